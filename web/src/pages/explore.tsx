// Metrics: what there is, what it means, and a first graph of it without writing a query.
import { useEffect, useMemo, useState } from "preact/hooks";
import { call, isAbort, type Params } from "../lib/api";
import { urlOf } from "../lib/base";
import { full, labelName, quote, selector, visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { namesIn } from "../lib/ruledeps";
import type { Labels, MetadataItem, RulesData } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { CopyButton, Drawer, FilterBox, PageHead, Pending } from "../ui/parts";
import { Spark } from "../ui/Spark";
import "../styles/pages.css";

interface Row {
  name: string;
  type: string;
  unit: string;
  help: string;
}
const MOST_FAMILIES = 100;
const MOST_NAMES = 20_000;

/** Matcher for names that contain the words of `search` in their order. */
export function nameMatcher(search: string): string {
  const words = search
    .split(/\s+/)
    .filter(Boolean)
    .map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return `{__name__=~${JSON.stringify(`(?i).*${words.join(".*")}.*`)}}`;
}

/** Families whose help, type or unit contains all words of `search`. */
export function familiesAbout(search: string, meta: Record<string, MetadataItem[]> | undefined): string[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return Object.entries(meta ?? {})
    .filter(([name, items]) =>
      items.some((m) => {
        const text = `${name} ${m.help} ${m.type} ${m.unit}`.toLowerCase();
        return words.every((w) => text.includes(w));
      }),
    )
    .map(([name]) => name)
    .slice(0, MOST_FAMILIES);
}

const SUFFIXES = "(_bucket|_count|_sum|_total|_info|_created)?";

export function ExplorePage() {
  const search = param("search");
  const open = param("metric");
  const type = param("type");
  const wanted = useDelayed(search, 200);
  const params: Params = { limit: MOST_NAMES, ...(wanted ? { "match[]": nameMatcher(wanted) } : {}) };
  const names = useResource<string[]>("label/__name__/values", params);
  const meta = useResource<Record<string, MetadataItem[]>>("metadata", { limit_per_metric: 1 });
  const families = useMemo(() => familiesAbout(wanted, meta.data), [wanted, meta.data]);
  const about = useResource<string[]>(
    families.length ? "label/__name__/values" : "",
    families.length
      ? {
          "match[]": `{__name__=~${quote(`(${families.map((f) => f.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})${SUFFIXES}`)}}`,
          limit: MOST_NAMES,
        }
      : {},
  );
  const all = useMemo(
    () =>
      [...new Set([...(names.data ?? []), ...(about.data ?? [])])].map((name): Row => {
        const m = metaOf(name, meta.data);
        return { name, type: m?.type ?? "", unit: m?.unit ?? "", help: m?.help ?? "" };
      }),
    [names.data, about.data, meta.data],
  );
  const types = [...new Set(all.map((r) => r.type).filter(Boolean))].sort();
  const rows = type ? all.filter((r) => r.type === type) : all;
  return (
    <>
      <PageHead title="Metrics" source={{ path: "label/__name__/values", params, resource: names }}>
        <FilterBox
          value={search}
          label="Search names, help, type, unit"
          onChange={(v) => setParams({ search: v })}
        />
        <label class="select">
          <span class="sr">Type</span>
          <select value={type} onChange={(e) => setParams({ type: e.currentTarget.value })}>
            <option value="">All types</option>
            {types.map((t) => (
              <option key={t} value={t}>
                {t}
              </option>
            ))}
          </select>
        </label>
        {names.data && <span class="muted num">{full(rows.length)} metrics</span>}
      </PageHead>
      {!names.data && !search ? (
        <Pending resource={names} />
      ) : (
        <DataTable<Row>
          label="Metrics"
          rows={rows}
          rowKey={(r) => r.name}
          rowHeight={30}
          onRow={(r) => setParams({ metric: r.name })}
          empty={names.data ? "No metric has such a name." : "Searching…"}
          columns={[
            {
              key: "name",
              title: "Name",
              width: 380,
              sort: (r) => r.name,
              render: (r) => (
                <button
                  type="button"
                  class="plain mono cell"
                  aria-haspopup="dialog"
                  onClick={() => setParams({ metric: r.name })}
                >
                  <bdi>{visible(r.name)}</bdi>
                </button>
              ),
            },
            {
              key: "type",
              title: "Type",
              width: 90,
              optional: true,
              sort: (r) => r.type,
              render: (r) => r.type,
            },
            {
              key: "unit",
              title: "Unit",
              width: 80,
              optional: true,
              sort: (r) => r.unit,
              render: (r) => <bdi>{visible(r.unit)}</bdi>,
            },
            {
              key: "help",
              title: "Help",
              optional: true,
              render: (r) => <bdi class="muted">{visible(r.help)}</bdi>,
            },
          ]}
        />
      )}
      {open && (
        <MetricDrawer name={open} meta={metaOf(open, meta.data)} onClose={() => setParams({ metric: "" })} />
      )}
    </>
  );
}

function metaOf(name: string, all: Record<string, MetadataItem[]> | undefined): MetadataItem | undefined {
  return (all?.[name] ?? all?.[name.replace(/_(bucket|sum|count|total|created)$/, "")])?.[0];
}

/** A first query for a metric by its type and name. */
export function firstQuery(name: string, type: string): { expr: string; note: string } {
  const s = selector({ __name__: name });
  const base = name.replace(/_bucket$/, "");
  if (name.endsWith("_bucket"))
    return {
      expr: `histogram_quantile(0.95, sum by (le) (rate(${s}[5m])))`,
      note: `95 % of the observations of ${base} were below this.`,
    };
  if (type === "histogram" && !/_(sum|count)$/.test(name))
    return {
      expr: `histogram_quantile(0.95, sum(rate(${s}[5m])))`,
      note: "95 % of the observations were below this.",
    };
  if (type === "summary" && !/_(sum|count)$/.test(name))
    return { expr: s, note: "A summary: its quantiles." };
  if (type === "counter" || /_(total|count|sum)$/.test(name))
    return { expr: `sum by (job) (rate(${s}[5m]))`, note: "A counter: its growth per second." };
  return { expr: s, note: "A gauge: its value." };
}

const MOST_SERIES = 500;

/** The series of a metric. The name of a family, as of a classic histogram, stands for the first of its parts that has any. */
export async function findSeries(
  family: string,
  signal: AbortSignal,
): Promise<{ name: string; series: Labels[] }> {
  const start = Math.floor(Date.now() / 1000) - 3600;
  for (const suffix of ["", "_bucket", "_count", "_total"]) {
    const name = family + suffix;
    const { data } = await call<Labels[]>(
      "series",
      { "match[]": selector({ __name__: name }), start, limit: MOST_SERIES },
      signal,
    );
    if (data?.length) return { name, series: data };
  }
  return { name: family, series: [] };
}

function MetricDrawer(props: { name: string; meta: MetadataItem | undefined; onClose: () => void }) {
  const { meta } = props;
  const [found, setFound] = useState<{ name: string; series: Labels[] }>();
  useEffect(() => {
    const stop = new AbortController();
    setFound(undefined);
    findSeries(props.name, stop.signal).then(setFound, (e: unknown) => {
      if (!isAbort(e)) setFound({ name: props.name, series: [] });
    });
    return () => stop.abort();
  }, [props.name]);
  const series = found?.series;
  const name = found?.name ?? props.name;
  const rules = useResource<RulesData>("rules", { exclude_alerts: "true" });
  const users = useMemo(
    () => (rules.data?.groups ?? []).flatMap((g) => g.rules).filter((r) => namesIn(r.query).has(name)),
    [rules.data, name],
  );
  const first = firstQuery(name, meta?.type ?? "");
  const labels = breakdown(series ?? []);
  return (
    <Drawer title={<bdi class="mono">{visible(name)}</bdi>} onClose={props.onClose}>
      <p>
        {meta && <b>{meta.type}</b>} <bdi>{visible(meta?.help ?? "")}</bdi>
        {meta?.unit && <span class="muted"> Unit: {visible(meta.unit)}.</span>}
      </p>
      <p class="muted">{first.note}</p>
      {found ? (
        <Spark expr={first.expr} range={3_600_000} height={180} axes />
      ) : (
        <div style={{ height: "180px" }} />
      )}
      <p class="row">
        <a class="btn small primary" href={urlOf(queryLink(first.expr))}>
          Open in Query
        </a>
        <a class="btn small" href={urlOf(queryLink(selector({ __name__: name }), { tab: "table" }))}>
          All series
        </a>
        <CopyButton text={name} label="Copy name" />
      </p>
      <h3>Rules that use it</h3>
      {users.length ? (
        <ul class="rule-links">
          {users.map((r, i) => (
            <li key={`${r.name} ${i}`}>
              <a
                href={urlOf(
                  `${r.type === "alerting" ? "alerts" : "rules"}?search=${encodeURIComponent(r.name)}`,
                )}
              >
                <bdi>{visible(r.name)}</bdi>
              </a>{" "}
              <span class="muted">{r.type === "alerting" ? "alert" : "recording rule"}</span>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">{rules.data ? "None." : "…"}</p>
      )}
      <h3>
        Labels
        {series && (
          <span class="muted">
            {" "}
            of {series.length === MOST_SERIES ? `the first ${MOST_SERIES}` : series.length} series
          </span>
        )}
      </h3>
      <table class="label-rows">
        <tbody>
          {labels.map(([label, values]) => (
            <tr key={label}>
              <th scope="row">
                <a
                  href={urlOf(
                    queryLink(`count by (${labelName(label)}) (${selector({ __name__: name })})`, {
                      tab: "table",
                    }),
                  )}
                >
                  <bdi>{visible(label)}</bdi>
                </a>{" "}
                <span class="muted">{values.length}</span>
              </th>
              <td>
                <bdi>{values.slice(0, 6).map(visible).join(", ")}</bdi>
                {values.length > 6 && " …"}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Drawer>
  );
}

function breakdown(series: Labels[]): [string, string[]][] {
  const all = new Map<string, Set<string>>();
  for (const s of series)
    for (const [k, v] of Object.entries(s)) {
      if (k === "__name__") continue;
      const set = all.get(k) ?? new Set();
      set.add(v);
      all.set(k, set);
    }
  return [...all]
    .map(([k, v]): [string, string[]] => [k, [...v].sort()])
    .sort((a, b) => b[1].length - a[1].length);
}

/** The value once it has rested for `ms`. */
function useDelayed(value: string, ms: number): string {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const t = setTimeout(() => setRested(value), ms);
    return () => clearTimeout(t);
  }, [value, ms]);
  return rested;
}
