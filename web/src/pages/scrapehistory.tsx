// The last scrapes of a target, from the series that every scrape leaves behind.
import { useMemo } from "preact/hooks";
import { labelName, num, quote, short } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { formatDuration, formatTime, humanDuration, parseDuration } from "../lib/time";
import type { QueryData, Target } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { Badge } from "../ui/parts";

const SHOWN = 30;
const NAMES = [
  "up",
  "scrape_duration_seconds",
  "scrape_samples_scraped",
  "scrape_samples_post_metric_relabeling",
  "scrape_series_added",
];

interface Scrape {
  at: number;
  up: boolean | undefined;
  took: number;
  samples: number;
  kept: number;
  added: number;
}

export function scrapesOf(data: QueryData | undefined): Scrape[] {
  const all = new Map<number, Record<string, number>>();
  for (const item of data?.resultType === "matrix" ? data.result : [])
    for (const [t, v] of item.values ?? []) {
      const at = Math.round(t * 1000);
      all.set(at, { ...all.get(at), [item.metric.__name__ ?? ""]: num(v) });
    }
  return [...all]
    .sort((a, b) => b[0] - a[0])
    .slice(0, SHOWN)
    .map(([at, v]) => ({
      at,
      up: v.up === undefined ? undefined : v.up === 1,
      took: v.scrape_duration_seconds ?? Number.NaN,
      samples: v.scrape_samples_scraped ?? Number.NaN,
      kept: v.scrape_samples_post_metric_relabeling ?? Number.NaN,
      added: v.scrape_series_added ?? Number.NaN,
    }));
}

export function ScrapeHistory({ target: t }: { target: Target }) {
  const interval = parseDuration(t.scrapeInterval) ?? 60_000;
  const labels = Object.entries(t.labels)
    .map(([k, v]) => `${labelName(k)}=${quote(v)}`)
    .join(",");
  const query = `{__name__=~"${NAMES.join("|")}",${labels}}[${formatDuration((SHOWN + 1) * interval)}]`;
  const res = useResource<QueryData>(
    "query",
    { query, limit: 2 * NAMES.length },
    Math.max(2, Math.min(30, interval / 1000)),
  );
  const scrapes = useMemo(() => scrapesOf(res.data), [res.data]);
  const slowest = Math.max(0, ...scrapes.map((s) => s.took || 0));
  const failed = scrapes.filter((s) => s.up === false).length;
  if (!res.data) return <p class="muted">{res.error || "…"}</p>;
  if (!scrapes.length) return <p class="muted">No scrape is stored yet.</p>;
  return (
    <>
      <Bars scrapes={[...scrapes].reverse()} top={slowest} />
      <p class="muted">
        {failed
          ? `${failed} of the last ${scrapes.length} scrapes failed. `
          : `None of the last ${scrapes.length} scrapes failed. `}
        The slowest took {humanDuration(slowest)} of the {t.scrapeTimeout} it may take.
      </p>
      <DataTable<Scrape>
        label="Last scrapes"
        rows={scrapes}
        rowKey={(s) => String(s.at)}
        rowHeight={27}
        maxHeight="260px"
        columns={[
          {
            key: "at",
            title: "Time",
            render: (s) => (
              <span class="num" title={formatTime(s.at, zone.value, true)}>
                {formatTime(s.at, zone.value, true).slice(11)}
              </span>
            ),
          },
          {
            key: "up",
            title: "Result",
            width: 100,
            render: (s) =>
              s.up === undefined ? "–" : <Badge tone={s.up ? "good" : "bad"}>{s.up ? "up" : "down"}</Badge>,
          },
          {
            key: "took",
            title: "Took",
            width: 84,
            align: "right",
            sort: (s) => s.took,
            render: (s) => <span class="num">{humanDuration(s.took)}</span>,
          },
          {
            key: "samples",
            title: "Samples",
            optional: true,
            width: 150,
            align: "right",
            sort: (s) => s.samples,
            render: (s) => (
              <span class="num">
                {Number.isNaN(s.samples) ? "–" : short(s.samples, 6)}
                {s.kept < s.samples && <span class="muted">, {short(s.kept, 6)} kept</span>}
              </span>
            ),
          },
          {
            key: "added",
            title: "New series",
            optional: true,
            width: 104,
            align: "right",
            sort: (s) => s.added,
            render: (s) => <span class="num">{Number.isNaN(s.added) ? "–" : short(s.added, 6)}</span>,
          },
        ]}
      />
    </>
  );
}

function Bars({ scrapes, top }: { scrapes: Scrape[]; top: number }) {
  return (
    <span class="scrape-bars" aria-hidden="true">
      {scrapes.map((s) => (
        <span
          key={s.at}
          class={s.up === false ? "down" : ""}
          style={{ height: `${Math.max(6, Math.min(100, (100 * (s.took || 0)) / top))}%` }}
        />
      ))}
    </span>
  );
}
