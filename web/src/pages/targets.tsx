// Targets: what is scraped, failing first, over all pools at once.
import { useMemo, useState } from "preact/hooks";
import { urlOf } from "../lib/base";
import { visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { apiTime, formatTime, humanDuration } from "../lib/time";
import type { Target, TargetsData } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { LabelChips, LabelRows } from "../ui/labels";
import {
  Ago,
  Badge,
  Drawer,
  FilterBox,
  PageHead,
  Pending,
  Segments,
  StaleNote,
  type Tone,
} from "../ui/parts";
import { ScrapeErrorBox } from "../ui/ScrapeErrorBox";
import { RelabelSteps } from "./relabel";
import { ScrapeHistory } from "./scrapehistory";
import "../styles/pages.css";
import "../styles/scraping.css";

const PATH = "targets";
const PARAMS = { state: "active" };
const RANK = { down: 0, unknown: 1, up: 2 } as const;
const TONES: Record<Target["health"], Tone> = { up: "good", down: "bad", unknown: "quiet" };

const MANY = 2000;
// Pools with failures stand first; the others are one click away.
const MOST_POOLS = 60;

type Health = "all" | Target["health"];

/** Every word of the filter must occur in the target's labels, address, pool or error. */
export function matchesTarget(t: Target, filter: string): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((w) => textOf(t).includes(w));
}

const TEXTS = new WeakMap<Target, string>();

/** What the filter looks through; with thousands of targets it is made once for each answer. */
function textOf(t: Target): string {
  const known = TEXTS.get(t);
  if (known !== undefined) return known;
  const text = [
    t.scrapePool,
    t.scrapeUrl,
    t.lastError,
    ...Object.entries(t.labels).map(([k, v]) => `${k}=${v} ${k}="${v}"`),
  ]
    .join(" ")
    .toLowerCase();
  TEXTS.set(t, text);
  return text;
}

/** Failing first, then by pool and address. */
export function orderTargets(targets: Target[]): Target[] {
  const { compare } = new Intl.Collator(undefined, { numeric: true });
  return [...targets].sort(
    (a, b) =>
      RANK[a.health] - RANK[b.health] ||
      (a.scrapePool === b.scrapePool ? 0 : compare(a.scrapePool, b.scrapePool)) ||
      compare(a.scrapeUrl, b.scrapeUrl),
  );
}

export function TargetsPage() {
  const [many, setMany] = useState(false);
  const [allPools, setAllPools] = useState(false);
  // Megabytes every few seconds would serve nobody.
  const res = useResource<TargetsData>(PATH, PARAMS, many ? 30 : 5);
  const filter = param("search");
  const pool = param("pool") || param("scrapePool");
  const health = (param("health") || "all") as Health;
  const [open, setOpen] = useState("");
  const all = useMemo(() => orderTargets(res.data?.activeTargets ?? []), [res.data]);
  if (all.length > MANY !== many && res.data) setMany(!many);
  const pools = useMemo(() => summarise(all), [all]);
  const inPool = useMemo(() => (pool ? all.filter((t) => t.scrapePool === pool) : all), [all, pool]);
  const rows = useMemo(
    () => inPool.filter((t) => (health === "all" || t.health === health) && matchesTarget(t, filter)),
    [inPool, health, filter],
  );
  const count = (h: Target["health"]) => inPool.reduce((n, t) => n + Number(t.health === h), 0);
  const detail = open ? all.find((t) => keyOf(t) === open) : undefined;
  return (
    <>
      <PageHead title="Targets" source={{ path: PATH, params: PARAMS, resource: res }}>
        <FilterBox
          value={filter}
          label="Filter by label, address or error"
          onChange={(v) => setParams({ search: v })}
        />
        <Segments<Health>
          label="Health"
          value={health}
          options={[
            ["all", `All ${inPool.length}`],
            ["down", `Down ${count("down")}`],
            ["unknown", `Unknown ${count("unknown")}`],
            ["up", `Up ${count("up")}`],
          ]}
          onChange={(h) => setParams({ health: h === "all" ? "" : h })}
        />
      </PageHead>
      <StaleNote resource={res} />
      {!res.data ? (
        <Pending resource={res} />
      ) : (
        <>
          {pools.length > 1 && (
            <ul class="pools" aria-label="Scrape pools">
              {pools.slice(0, allPools ? pools.length : MOST_POOLS).map((p) => (
                <li key={p.name}>
                  <button
                    type="button"
                    class="pool"
                    aria-pressed={pool === p.name}
                    onClick={() => setParams({ pool: pool === p.name ? "" : p.name, scrapePool: "" })}
                  >
                    <bdi class="pool-name">{visible(p.name)}</bdi>
                    <span class={p.up < p.total ? "bad-text" : "good-text"}>
                      {p.up}/{p.total} up
                    </span>
                    <span class="bar" aria-hidden="true">
                      <span style={{ width: `${(100 * p.up) / p.total}%` }} />
                    </span>
                  </button>
                </li>
              ))}
              {pools.length > MOST_POOLS && !allPools && (
                <li>
                  <button type="button" class="btn" onClick={() => setAllPools(true)}>
                    All {pools.length} pools
                  </button>
                </li>
              )}
            </ul>
          )}
          <DataTable
            label="Targets"
            rows={rows}
            rowKey={keyOf}
            rowHeight={34}
            onRow={(t) => setOpen(keyOf(t))}
            empty={
              all.length
                ? "No target matches these filters."
                : "No targets. Add a scrape_configs section to the configuration, then reload it."
            }
            columns={[
              {
                key: "health",
                title: "State",
                width: 96,
                sort: (t) => RANK[t.health],
                render: (t) => (
                  <button
                    type="button"
                    class="plain"
                    onClick={() => setOpen(keyOf(t))}
                    aria-haspopup="dialog"
                  >
                    <Badge tone={TONES[t.health]}>{t.health}</Badge>
                  </button>
                ),
              },
              {
                key: "endpoint",
                title: "Endpoint",
                width: 270,
                sort: (t) => t.scrapeUrl,
                render: (t) => <bdi class="mono">{visible(t.scrapeUrl)}</bdi>,
              },
              {
                key: "labels",
                title: "Labels and error",
                optional: true,
                render: (t) =>
                  t.lastError ? (
                    <bdi class="bad-text">{visible(t.lastError)}</bdi>
                  ) : (
                    <LabelChips
                      labels={t.labels}
                      onPick={(k, v) => setParams({ search: `${filter} ${k}="${v}"`.trim() })}
                    />
                  ),
              },
              {
                key: "last",
                title: "Last scrape",
                width: 110,
                align: "right",
                sort: (t) => apiTime(t.lastScrape),
                render: (t) => <Ago at={apiTime(t.lastScrape)} />,
                optional: true,
              },
              {
                key: "took",
                title: "Took",
                width: 84,
                align: "right",
                sort: (t) => t.lastScrapeDuration,
                render: (t) => <span class="num">{humanDuration(t.lastScrapeDuration)}</span>,
                optional: true,
              },
              {
                key: "interval",
                title: "Interval",
                width: 80,
                align: "right",
                render: (t) => <span class="num">{t.scrapeInterval}</span>,
                optional: true,
              },
            ]}
          />
        </>
      )}
      {detail && <TargetDrawer target={detail} onClose={() => setOpen("")} />}
    </>
  );
}

function keyOf(t: Target): string {
  return `${t.scrapePool}\u0000${t.scrapeUrl}\u0000${JSON.stringify(t.labels)}`;
}

function summarise(targets: Target[]): { name: string; up: number; total: number }[] {
  const pools = new Map<string, { name: string; up: number; total: number }>();
  for (const t of targets) {
    const p = pools.get(t.scrapePool) ?? { name: t.scrapePool, up: 0, total: 0 };
    p.total++;
    if (t.health === "up") p.up++;
    pools.set(t.scrapePool, p);
  }
  return [...pools.values()].sort(
    (a, b) => b.total - b.up - (a.total - a.up) || a.name.localeCompare(b.name),
  );
}

function TargetDrawer({ target: t, onClose }: { target: Target; onClose: () => void }) {
  const labels = Object.entries(t.labels)
    .map(([k, v]) => `${k}=${JSON.stringify(v)}`)
    .join(", ");
  const link = /^https?:\/\//.test(t.globalUrl) ? t.globalUrl : undefined;
  return (
    <Drawer title={<bdi>{visible(t.labels.instance ?? t.scrapeUrl)}</bdi>} onClose={onClose}>
      <p>
        <Badge tone={TONES[t.health]}>{t.health}</Badge>
      </p>
      {t.lastError && <ScrapeErrorBox text={t.lastError} />}
      <dl class="facts">
        <dt>Endpoint</dt>
        <dd>
          {link ? (
            <a href={link} target="_blank" rel="noreferrer noopener">
              <bdi>{visible(t.scrapeUrl)}</bdi>
            </a>
          ) : (
            <bdi>{visible(t.scrapeUrl)}</bdi>
          )}
        </dd>
        <dt>Scrape pool</dt>
        <dd>
          <bdi>{visible(t.scrapePool)}</bdi>
        </dd>
        <dt>Last scrape</dt>
        <dd>
          {formatTime(apiTime(t.lastScrape), zone.value)} (<Ago at={apiTime(t.lastScrape)} />
          ), took {humanDuration(t.lastScrapeDuration)}
        </dd>
        <dt>Interval, timeout</dt>
        <dd>
          {t.scrapeInterval}, {t.scrapeTimeout}
        </dd>
      </dl>
      <p class="row">
        <a class="btn small" href={urlOf(queryLink(`up{${labels}}`))}>
          Graph of up
        </a>
        <a class="btn small" href={urlOf(queryLink(`scrape_duration_seconds{${labels}}`))}>
          Scrape duration
        </a>
        <a class="btn small" href={urlOf(queryLink(`scrape_samples_scraped{${labels}}`))}>
          Samples scraped
        </a>
      </p>
      <h3>Last scrapes</h3>
      <ScrapeHistory target={t} />
      <h3>Labels</h3>
      <LabelRows labels={t.labels} />
      <h3>Relabeling, step by step</h3>
      <RelabelSteps pool={t.scrapePool} labels={t.discoveredLabels} />
      <h3>Discovered labels</h3>
      <p class="muted">Before relabeling.</p>
      <LabelRows labels={t.discoveredLabels} />
    </Drawer>
  );
}
