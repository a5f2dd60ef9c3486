// Storage: blocks on a time line and in a table, the log before them, what the disk will need, and deletion.
import { useState } from "preact/hooks";
import { bytesPerSample, forecast, readRetention, sizeOf } from "../lib/forecast";
import { bytes, full, short, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { useLabelled, useSelfMetrics } from "../lib/selfmetrics";
import { formatTime, humanDuration } from "../lib/time";
import type { BlockMeta, RuntimeInfo, TsdbStatus } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { lazy } from "../ui/lazy";
import { Drawer, PageHead, Pending, StaleNote } from "../ui/parts";
import { Figure } from "./cardinality";
import "../styles/pages.css";

const PATH = "status/tsdb/blocks";
const FIGURES = [
  "prometheus_tsdb_storage_blocks_bytes",
  "prometheus_tsdb_wal_storage_size_bytes",
  "prometheus_tsdb_blocks_loaded",
  "prometheus_tsdb_compactions_total",
  "prometheus_tsdb_compactions_failed_total",
  "prometheus_tsdb_out_of_order_samples_total",
  "prometheus_tsdb_wal_corruptions_total",
  "prometheus_tsdb_head_samples_appended_total",
  "prometheus_tsdb_wal_segment_current",
  "prometheus_tsdb_compaction_duration_seconds_sum",
  "prometheus_tsdb_compaction_duration_seconds_count",
] as const;
const SYNCS = ["prometheus_tsdb_wal_fsync_duration_seconds"] as const;

const DeleteSeries = lazy(() => import("./deleteseries").then((m) => m.DeleteSeries));

interface Features {
  api?: Record<string, boolean>;
}

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
  const features = useResource<Features>("features");
  const syncs = useLabelled(SYNCS, 15);
  const [open, setOpen] = useState("");
  const detail = blocks.find((b) => b.ulid === open);
  const retention = readRetention(runtime.data?.storageRetention ?? "");
  const rate = self?.rates.get("prometheus_tsdb_head_samples_appended_total") ?? 0;
  const future = forecast(blocks, rate, retention);
  const each = bytesPerSample(blocks);
  const sync = syncs?.find((s) => s.labels.quantile === "0.99")?.value;
  const compactions = self?.values.get("prometheus_tsdb_compaction_duration_seconds_count") ?? 0;
  const compacting = self?.values.get("prometheus_tsdb_compaction_duration_seconds_sum") ?? 0;
  return (
    <>
      <PageHead title="Storage" source={{ path: PATH, resource: res }} />
      {!missing && <StaleNote resource={res} />}
      <ul class="tiles small">
        <Figure name="Blocks on disk" value={v("prometheus_tsdb_storage_blocks_bytes", bytes)} />
        <Figure name="Write-ahead log" value={v("prometheus_tsdb_wal_storage_size_bytes", bytes)} />
        <Figure name="Kept for" value={runtime.data?.storageRetention ?? "–"} />
        <Figure name="A sample on disk" value={each === null ? "–" : `${each.toFixed(2)} B`} />
        <Figure name="Growth a day" value={future ? bytes(future.perDay) : "–"} />
        <Figure
          name={future?.bySize ? "At most" : "At full retention"}
          value={future?.full ? bytes(future.full) : "–"}
        />
        <Figure name="Log segment" value={v("prometheus_tsdb_wal_segment_current", (n) => full(n))} />
        <Figure name="Log sync, 99 % below" value={sync === undefined ? "–" : humanDuration(sync)} />
        <Figure
          name="Compactions"
          value={`${v("prometheus_tsdb_compactions_total", short)}, ${v("prometheus_tsdb_compactions_failed_total", short)} failed`}
        />
        <Figure
          name="A compaction takes"
          value={compactions ? humanDuration(compacting / compactions) : "–"}
        />
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
            onRow={(b) => setOpen(b.ulid)}
            empty="No blocks yet: the samples of the first hours are in memory and in the write-ahead log. The forecast begins with the first block."
            columns={[
              {
                key: "ulid",
                title: "Block",
                width: 240,
                render: (b) => (
                  <button
                    type="button"
                    class="plain mono cell"
                    aria-haspopup="dialog"
                    onClick={() => setOpen(b.ulid)}
                  >
                    <bdi>{visible(b.ulid)}</bdi>
                  </button>
                ),
              },
              {
                key: "from",
                title: "From",
                width: 160,
                sort: (b) => b.minTime,
                render: (b) => <span>{formatTime(b.minTime, zone.value)}</span>,
              },
              {
                key: "span",
                title: "Spans",
                width: 90,
                optional: true,
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
                optional: true,
                align: "right",
                sort: (b) => b.stats?.numSamples ?? 0,
                render: (b) => <span class="num">{short(b.stats?.numSamples ?? 0, 4)}</span>,
              },
              {
                key: "bytes",
                title: "Size",
                width: 92,
                align: "right",
                sort: (b) => sizeOf(b),
                render: (b) => <span class="num">{sizeOf(b) ? bytes(sizeOf(b)) : "–"}</span>,
              },
              {
                key: "each",
                title: "B a sample",
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
      {features.data?.api?.admin && <DeleteSeries />}
      {detail && <BlockDrawer block={detail} retention={retention.time} onClose={() => setOpen("")} />}
    </>
  );
}

function BlockDrawer(props: { block: BlockMeta; retention: number | null; onClose: () => void }) {
  const { block: b, retention } = props;
  const c = b.compaction;
  const facts: [string, string][] = [
    ["From", formatTime(b.minTime, zone.value)],
    ["To", formatTime(b.maxTime, zone.value)],
    ["Spans", humanDuration((b.maxTime - b.minTime) / 1000)],
    ["Series", full(b.stats?.numSeries ?? 0)],
    ["Samples", full(b.stats?.numSamples ?? 0)],
    ["Chunks", full(b.stats?.numChunks ?? 0)],
    ["Size", sizeOf(b) ? bytes(sizeOf(b)) : "–"],
    ["Level of compaction", String(c?.level ?? "–")],
    ...(retention === null
      ? []
      : [["Leaves on", formatTime(b.maxTime + retention, zone.value)] as [string, string]]),
  ];
  return (
    <Drawer title={<bdi class="mono">{visible(b.ulid)}</bdi>} onClose={props.onClose}>
      {c?.failed && <div class="notice bad">Compaction of this block failed: see the log of the server.</div>}
      <dl class="facts">
        {facts.map(([name, value]) => [
          <dt key={`${name} name`}>{name}</dt>,
          <dd key={name} class="num">
            {value}
          </dd>,
        ])}
      </dl>
      {/* A block that was never merged names itself as its source. */}
      {c?.sources && c.sources.length > 1 && (
        <>
          <h3>Made from {c.sources.length} blocks</h3>
          <ul class="mono">
            {c.sources.map((s) => (
              <li key={s}>{visible(s)}</li>
            ))}
          </ul>
        </>
      )}
    </Drawer>
  );
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
      <div role="img" aria-label={`${blocks.length} blocks between the times below`}>
        {levels.map((level) => (
          <div class="block-row" key={level}>
            <span class="block-name">Level {level}</span>
            <div class="block-track">
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
          </div>
        ))}
        {headOk && (
          <div class="block-row">
            <span class="block-name">In memory</span>
            <div class="block-track">
              <span class="head" style={place(head.minTime, head.maxTime)} title="In memory" />
            </div>
          </div>
        )}
      </div>
      <p class="stats ends">
        <span>{formatTime(from, zone.value).slice(0, 16)}</span>
        <span>{formatTime(to, zone.value).slice(0, 16)}</span>
      </p>
    </div>
  );
}
