// Home: whether all is well, what there is to see, and how to connect Grafana.
import type { ComponentChildren } from "preact";
import { fullUrl, urlOf } from "../lib/base";
import { useExamples } from "../lib/examples";
import { forecast, readRetention } from "../lib/forecast";
import { bytes, full, short } from "../lib/format";
import { useResource } from "../lib/resource";
import { useSelfMetrics } from "../lib/selfmetrics";
import { apiTime, humanDuration } from "../lib/time";
import type { AlertItem, BlockMeta, RulesData, RuntimeInfo, TargetsData } from "../lib/types";
import { queryLink } from "../query/state";
import { Ago, CopyButton, PageHead, Pending } from "../ui/parts";
import { Spark } from "../ui/Spark";
import "../styles/pages.css";

const FIGURES = [
  "prometheus_tsdb_head_samples_appended_total",
  "prometheus_tsdb_head_series",
  "process_resident_memory_bytes",
  "prometheus_tsdb_storage_blocks_bytes",
  "prometheus_tsdb_wal_storage_size_bytes",
  "process_start_time_seconds",
] as const;

export function HomePage() {
  const targets = useResource<TargetsData>("targets", { state: "active" }, 10);
  const rules = useResource<RulesData>("rules", { exclude_alerts: "true" }, 15);
  const alerts = useResource<{ alerts: AlertItem[] }>("alerts", {}, 10);
  const runtime = useResource<RuntimeInfo>("status/runtimeinfo", {}, 15);
  const self = useSelfMetrics(FIGURES);
  const blocks = useResource<{ blocks: BlockMeta[] | null }>("status/tsdb/blocks", {}, 60);
  if (!targets.data && targets.error) return <Pending resource={targets} />;

  const all = targets.data?.activeTargets;
  const up = all?.filter((t) => t.health === "up").length ?? 0;
  const down = all?.filter((t) => t.health === "down").length ?? 0;
  const failing = rules.data?.groups.flatMap((g) => g.rules).filter((r) => r.health === "err").length;
  const firing = alerts.data?.alerts.filter((a) => a.state === "firing").length;
  const value = (name: (typeof FIGURES)[number]) => self?.values.get(name);
  const rate = self?.rates.get("prometheus_tsdb_head_samples_appended_total");
  const disk = sum(
    value("prometheus_tsdb_storage_blocks_bytes"),
    value("prometheus_tsdb_wal_storage_size_bytes"),
  );
  const started = value("process_start_time_seconds");
  const r = runtime.data;
  const future = r ? forecast(blocks.data?.blocks ?? [], rate ?? 0, readRetention(r.storageRetention)) : null;
  return (
    <>
      <PageHead title="Home" source={{ path: "targets", params: { state: "active" }, resource: targets }} />
      <ul class="tiles" aria-label="Health at a glance">
        <Tile
          name="Targets up"
          href={down ? "targets?health=down" : "targets"}
          tone={!all ? "" : down ? "bad" : "good"}
          value={all ? `${up} / ${all.length}` : undefined}
          note={!all ? "" : down ? `${down} down` : all.length ? "all scraped" : "none configured"}
        />
        <Tile
          name="Alerts firing"
          href="alerts"
          tone={firing === undefined ? "" : firing ? "bad" : "good"}
          value={firing === undefined ? undefined : String(firing)}
          note={firing === undefined ? "" : firing ? "look now" : "quiet"}
        />
        <Tile
          name="Rules failing"
          href={failing ? "rules?health=err" : "rules"}
          tone={failing === undefined ? "" : failing ? "bad" : "good"}
          value={failing === undefined ? undefined : String(failing)}
          note={rules.data ? `of ${rules.data.groups.reduce((n, g) => n + g.rules.length, 0)}` : ""}
        />
        <Tile
          name="Ingest"
          href={queryLink("rate(prometheus_tsdb_head_samples_appended_total[1m])")}
          value={rate === undefined ? undefined : short(rate)}
          note="samples per second"
        />
        <Tile
          name="Active series"
          href="cardinality"
          value={fmt(value("prometheus_tsdb_head_series"), (n) => (n < 1e6 ? full(n) : short(n, 4)))}
          note="in memory"
        />
        <Tile
          name="Memory"
          href={queryLink("process_resident_memory_bytes")}
          value={fmt(value("process_resident_memory_bytes"), bytes)}
          note="resident"
        />
        <Tile
          name="Disk"
          href="storage"
          value={fmt(disk, bytes)}
          note={
            !r
              ? ""
              : future?.full
                ? `${bytes(future.full)} ${future.bySize ? "at most" : `after ${r.storageRetention}`}`
                : `keeps ${r.storageRetention}`
          }
        />
        <Tile
          name="Configuration"
          href="status?view=config"
          tone={!r ? "" : r.reloadConfigSuccess ? "good" : "bad"}
          value={!r ? undefined : r.reloadConfigSuccess ? "loaded" : "reload failed"}
          note={
            r ? (
              <>
                <Ago at={apiTime(r.lastConfigTime)} />
                {started ? `, up ${humanDuration(Date.now() / 1000 - started)}` : ""}
              </>
            ) : (
              ""
            )
          }
        />
      </ul>
      <Examples />
      <Grafana />
    </>
  );
}

function fmt(n: number | undefined, f: (n: number) => string): string | undefined {
  return n === undefined ? undefined : f(n);
}

function sum(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined && b === undefined ? undefined : (a ?? 0) + (b ?? 0);
}

function Tile(props: {
  name: string;
  value: string | undefined;
  note: ComponentChildren;
  href: string;
  tone?: string;
}) {
  return (
    <li>
      <a class={`tile ${props.tone ?? ""}`} href={urlOf(props.href)}>
        <span class="tile-name">{props.name}</span>
        <span class="tile-value num">{props.value ?? "–"}</span>
        <span class="tile-note">{props.note}</span>
      </a>
    </li>
  );
}

function Examples() {
  const found = useExamples();
  return (
    <section aria-labelledby="examples">
      <h2 id="examples">From the metrics you have</h2>
      {found?.length === 0 && (
        <p class="muted">No samples yet. They appear here as soon as the first scrape is in.</p>
      )}
      <div class="cards">
        {(found ?? []).map((e) => (
          <article class="card" key={e.expr}>
            <h3>
              <a href={urlOf(queryLink(e.expr, { range: 900_000 }))}>{e.title}</a>
            </h3>
            <Spark expr={e.expr} unit={e.unit} />
            <code class="expr-line">{e.expr}</code>
          </article>
        ))}
      </div>
    </section>
  );
}

function Grafana() {
  const url = fullUrl("").replace(/\/$/, "");
  const yaml = `apiVersion: 1
datasources:
  - name: Meerkat
    type: prometheus
    access: proxy
    url: ${url}
    isDefault: true
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
`;
  return (
    <section class="card grafana" aria-labelledby="grafana">
      <h2 id="grafana">Connect Grafana</h2>
      <div class="two">
        <div>
          <p>
            Add a data source of type <b>Prometheus</b> with this address:
          </p>
          <p class="row">
            <code class="big-code">{url}</code>
            <CopyButton text={url} label="Copy address" />
          </p>
          <p>
            Or put this file into <code>provisioning/datasources/</code>.
          </p>
          <CopyButton text={yaml} label="Copy YAML" />
        </div>
        <pre class="code-block">{yaml}</pre>
      </div>
    </section>
  );
}
