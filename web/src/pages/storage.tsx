// Storage: blocks on a time line and in a table, and the log before them.
import { bytes, full, short, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { useSelfMetrics } from "../lib/selfmetrics";
import { formatTime, humanDuration } from "../lib/time";
import type { BlockMeta, RuntimeInfo, TsdbStatus } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { PageHead, Pending, StaleNote } from "../ui/parts";
import { Figure } from "./cardinality";

const PATH = "status/tsdb/blocks";
const FIGURES = [
  "prometheus_tsdb_storage_blocks_bytes",
  "prometheus_tsdb_wal_storage_size_bytes",
  "prometheus_tsdb_blocks_loaded",
  "prometheus_tsdb_compactions_total",
  "prometheus_tsdb_compactions_failed_total",
  "prometheus_tsdb_out_of_order_samples_total",
  "prometheus_tsdb_wal_corruptions_total",
] as const;

export function StoragePage() {
  const res = useResource<{ blocks: BlockMeta[] | null }>(PATH, {}, 30);
  const head = useResource<TsdbStatus>("status/tsdb", { limit: 1 }, 30);
  const runtime = useResource<RuntimeInfo>("status/runtimeinfo", {}, 60);
  const self = useSelfMetrics(FIGURES, 15);
  const v = (name: (typeof FIGURES)[number], f: (n: number) => string) => {
    const n = self?.values.get(name);
    return n === undefined ? "–" : f(n);
  };
  const blocks = [...(res.data?.blocks ?? [])].sort((a, b) => b.minTime - a.minTime);
  const missing = res.status === 404;
  return (
    <>
      <PageHead title="Storage" source={{ path: PATH, resource: res }} />
      {!missing && <StaleNote resource={res} />}
      <ul class="tiles small">
        <Figure name="Blocks on disk" value={v("prometheus_tsdb_storage_blocks_bytes", bytes)} />
        <Figure name="Write-ahead log" value={v("prometheus_tsdb_wal_storage_size_bytes", bytes)} />
        <Figure name="Kept for" value={runtime.data?.storageRetention ?? "–"} />
        <Figure name="Compactions" value={v("prometheus_tsdb_compactions_total", short)} />
        <Figure name="Compactions failed" value={v("prometheus_tsdb_compactions_failed_total", short)} />
        <Figure name="Late samples refused" value={v("prometheus_tsdb_out_of_order_samples_total", short)} />
        <Figure name="Log corruptions" value={v("prometheus_tsdb_wal_corruptions_total", short)} />
      </ul>
      {missing ? (
        <div class="empty">
          This server does not list its blocks. It has {v("prometheus_tsdb_blocks_loaded", short)} loaded.
        </div>
      ) : !res.data ? (
        <Pending resource={res} />
      ) : (
        <>
          <TimeLine blocks={blocks} head={head.data?.headStats} />
          <DataTable<BlockMeta>
            label="Blocks"
            rows={blocks}
            rowKey={(b) => b.ulid}
            empty="No blocks yet: the samples of the first hours are in memory and in the write-ahead log."
            columns={[
              {
                key: "ulid",
                title: "Block",
                width: 240,
                render: (b) => <bdi class="mono">{visible(b.ulid)}</bdi>,
              },
              {
                key: "from",
                title: "From",
                width: 160,
                sort: (b) => b.minTime,
                render: (b) => <span class="num">{formatTime(b.minTime, zone.value)}</span>,
              },
              {
                key: "span",
                title: "Spans",
                width: 90,
                align: "right",
                sort: (b) => b.maxTime - b.minTime,
                render: (b) => <span class="num">{humanDuration((b.maxTime - b.minTime) / 1000)}</span>,
              },
              {
                key: "level",
                title: "Level",
                width: 70,
                align: "right",
                optional: true,
                sort: (b) => b.compaction?.level ?? 0,
                render: (b) => b.compaction?.level ?? "–",
              },
              {
                key: "series",
                title: "Series",
                width: 100,
                align: "right",
                optional: true,
                sort: (b) => b.stats?.numSeries ?? 0,
                render: (b) => <span class="num">{full(b.stats?.numSeries ?? 0)}</span>,
              },
              {
                key: "samples",
                title: "Samples",
                width: 120,
                align: "right",
                sort: (b) => b.stats?.numSamples ?? 0,
                render: (b) => <span class="num">{short(b.stats?.numSamples ?? 0, 4)}</span>,
              },
              {
                key: "bytes",
                title: "Size",
                width: 100,
                align: "right",
                optional: true,
                sort: (b) => sizeOf(b),
                render: (b) => <span class="num">{sizeOf(b) ? bytes(sizeOf(b)) : "–"}</span>,
              },
              {
                key: "each",
                title: "Bytes a sample",
                width: 120,
                align: "right",
                optional: true,
                render: (b) => (
                  <span class="num">
                    {sizeOf(b) && b.stats?.numSamples ? (sizeOf(b) / b.stats.numSamples).toFixed(2) : "–"}
                  </span>
                ),
              },
            ]}
          />
        </>
      )}
    </>
  );
}

function sizeOf(b: BlockMeta): number {
  return b.stats?.numBytes ?? b.stats?.sizeBytes ?? 0;
}

function TimeLine(props: { blocks: BlockMeta[]; head: TsdbStatus["headStats"] | undefined }) {
  const { blocks, head } = props;
  const headOk = head && head.maxTime > head.minTime && head.minTime > 0;
  const from = Math.min(...blocks.map((b) => b.minTime), ...(headOk ? [head.minTime] : []));
  const to = Math.max(...blocks.map((b) => b.maxTime), ...(headOk ? [head.maxTime] : []));
  if (!(to > from)) return null;
  const place = (a: number, b: number) => ({
    left: `${(100 * (a - from)) / (to - from)}%`,
    width: `${Math.max(0.3, (100 * (b - a)) / (to - from))}%`,
  });
  const levels = [...new Set(blocks.map((b) => b.compaction?.level ?? 1))].sort((a, b) => b - a);
  return (
    <div class="card line-card">
      <div class="block-line" role="img" aria-label={`${blocks.length} blocks between the times below`}>
        {levels.map((level) => (
          <div class="block-row" key={level}>
            {blocks
              .filter((b) => (b.compaction?.level ?? 1) === level)
              .map((b) => (
                <span
                  key={b.ulid}
                  class={b.compaction?.failed ? "failed" : ""}
                  style={place(b.minTime, b.maxTime)}
                  title={`${b.ulid}, level ${level}`}
                />
              ))}
          </div>
        ))}
        {headOk && (
          <div class="block-row">
            <span class="head" style={place(head.minTime, head.maxTime)} title="In memory" />
          </div>
        )}
      </div>
      <p class="stats ends">
        <span>{formatTime(from, zone.value)}</span>
        <span>{formatTime(to, zone.value)}</span>
      </p>
    </div>
  );
}
