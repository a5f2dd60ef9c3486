// Any selector taken apart: by metric, job or another label, now and at an earlier moment, with what it costs.
import { useEffect, useState } from "preact/hooks";
import { call, explainError, isAbort } from "../lib/api";
import { urlOf } from "../lib/base";
import { bytesPerSample } from "../lib/forecast";
import { bytes, full, labelName, percent, quote, short, visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { useSelfMetrics } from "../lib/selfmetrics";
import { humanDuration } from "../lib/time";
import type { BlockMeta, QueryData } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { CutText } from "../ui/labels";

interface Row {
  value: string;
  now: number;
  before: number;
}
interface Result {
  by: string;
  rows: Row[];
  now: number;
  before: number;
  labels: string[];
}

const EVERYTHING = '{__name__!=""}';
// More groups than this in one answer would be no overview.
const MOST_GROUPS = 2000;
const EARLIER: [string, number][] = [
  ["10 minutes ago", 600],
  ["1 hour ago", 3600],
  ["6 hours ago", 21_600],
  ["1 day ago", 86_400],
  ["1 week ago", 604_800],
];
// Below this many series the memory of the program itself would count for more than that of the series. Then the
// figure measured with a million series stands in (benches/record).
const FEW_SERIES = 100_000;
const BYTES_EACH = 450;
const FIGURES = [
  "prometheus_tsdb_head_series",
  "prometheus_tsdb_head_samples_appended_total",
  "process_resident_memory_bytes",
] as const;

export function Breakdown() {
  const focus = param("focus");
  const by = param("by") || "__name__";
  const ago = Number(param("ago") || "3600");
  const [text, setText] = useState(focus);
  const [result, setResult] = useState<Result>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const self = useSelfMetrics(FIGURES, 15);
  const blocks = useResource<{ blocks: BlockMeta[] | null }>("status/tsdb/blocks", {}, 120);
  useEffect(() => {
    setText(focus);
    setError("");
    if (!focus) {
      setResult(undefined);
      return;
    }
    const stop = new AbortController();
    setBusy(true);
    const now = Date.now() / 1000;
    const count = async (time: number): Promise<Map<string, number>> => {
      const { data } = await call<QueryData>(
        "query",
        { query: `topk(${MOST_GROUPS}, count by (${labelName(by)}) (${focus}))`, time },
        stop.signal,
      );
      const rows = data.resultType === "vector" ? data.result : [];
      return new Map(rows.map((r) => [r.metric[by] ?? "", Number(r.value?.[1] ?? 0)]));
    };
    const total = async (time: number) => {
      const { data } = await call<QueryData>("query", { query: `count(${focus})`, time }, stop.signal);
      return data.resultType === "vector" ? Number(data.result[0]?.value?.[1] ?? 0) : 0;
    };
    (async () => {
      const [a, b, names, sumNow, sumThen] = await Promise.all([
        count(now),
        count(now - ago),
        call<string[]>("labels", { "match[]": focus, start: Math.floor(now) - 300, limit: 200 }, stop.signal),
        total(now),
        total(now - ago),
      ]);
      const all = [...new Set([...a.keys(), ...b.keys()])];
      setResult({
        by,
        rows: all.map((value) => ({ value, now: a.get(value) ?? 0, before: b.get(value) ?? 0 })),
        now: sumNow,
        before: sumThen,
        labels: names.data ?? [],
      });
      setBusy(false);
    })().catch((e: unknown) => {
      if (isAbort(e)) return;
      setBusy(false);
      setError(explainError(e));
    });
    return () => stop.abort();
  }, [focus, by, ago]);

  // What an average series of this server costs.
  const series = self?.values.get("prometheus_tsdb_head_series") ?? 0;
  const memory = self?.values.get("process_resident_memory_bytes") ?? 0;
  const rate = self?.rates.get("prometheus_tsdb_head_samples_appended_total");
  const each = bytesPerSample(blocks.data?.blocks ?? []);
  const inMemory = series >= FEW_SERIES ? memory / series : BYTES_EACH;
  const aDay = series && rate && each !== null ? (rate / series) * 86_400 * each : 0;
  const inside = (r: Row) => {
    const more = `${labelName(by)}=${quote(r.value)}`;
    return focus.endsWith("}")
      ? `${focus.slice(0, -1)}${/\{\s*\}$/.test(focus) ? "" : ", "}${more}}`
      : `${focus}{${more}}`;
  };
  const options = [...new Set(["__name__", "job", "instance", by, ...(result?.labels ?? [])])];
  const r = result;
  return (
    <section class="card focus-card" aria-labelledby="focus-title">
      <h2 id="focus-title">Look inside a selector</h2>
      <form
        class="row"
        onSubmit={(e) => {
          e.preventDefault();
          setParams({ focus: text.trim() || EVERYTHING });
        }}
      >
        <input
          id="focus"
          class="field mono wide-field"
          aria-label="Selector"
          placeholder={EVERYTHING}
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={(e) => setText(e.currentTarget.value)}
        />
        <label class="row tight">
          by
          <select class="field" value={by} onChange={(e) => setParams({ by: e.currentTarget.value })}>
            {options.map((o) => (
              <option key={o} value={o}>
                {o === "__name__" ? "metric" : visible(o)}
              </option>
            ))}
          </select>
        </label>
        <label class="row tight">
          against
          <select
            class="field"
            value={String(ago)}
            onChange={(e) => setParams({ ago: e.currentTarget.value })}
          >
            {!EARLIER.some(([, seconds]) => seconds === ago) && (
              <option value={String(ago)}>{humanDuration(ago)} ago</option>
            )}
            {EARLIER.map(([name, seconds]) => (
              <option key={seconds} value={String(seconds)}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <button type="submit" class="btn primary">
          Count
        </button>
        {focus && (
          <a class="btn small" href={urlOf(queryLink(focus, { tab: "table" }))}>
            Open in Query
          </a>
        )}
      </form>
      <div class={`busy-line${busy ? " on" : ""}`} />
      {error && (
        <div class="notice bad" role="alert">
          {error}
        </div>
      )}
      {r && (
        <>
          <p class="stats">
            <span>
              <b>{full(r.now)}</b> series now
            </span>
            <span>
              {full(r.before)} then ({change(r.now, r.before)})
            </span>
            <span>about {bytes(r.now * inMemory)} of memory</span>
            {aDay > 0 && <span>about {bytes(r.now * aDay)} of disk a day</span>}
            <span>
              {full(r.rows.length)} {r.rows.length === 1 ? "value" : "values"} of{" "}
              {r.by === "__name__" ? "the metric name" : visible(r.by)}
              {r.rows.length >= MOST_GROUPS && ", the largest"}
            </span>
          </p>
          <DataTable<Row>
            label="Series by value"
            rows={r.rows}
            rowKey={(x) => x.value}
            rowHeight={28}
            maxHeight="420px"
            initialSort={{ key: "now", down: true }}
            empty="This selector matches no series at either moment."
            columns={[
              {
                key: "value",
                title: r.by === "__name__" ? "Metric" : r.by,
                sort: (x) => x.value,
                render: (x) => (
                  <button
                    type="button"
                    class="plain cell mono"
                    title="Look inside"
                    onClick={() =>
                      setParams({ focus: inside(x), by: r.by === "__name__" ? "job" : "__name__" })
                    }
                  >
                    <CutText text={x.value === "" ? "(none)" : x.value} />
                  </button>
                ),
              },
              {
                key: "now",
                title: "Series",
                width: 80,
                align: "right",
                sort: (x) => x.now,
                render: (x) => <span class="num">{full(x.now)}</span>,
              },
              {
                key: "share",
                title: "Share",
                width: 150,
                optional: true,
                render: (x) => (
                  <span class="meter-cell">
                    <span class="meter" aria-hidden="true">
                      <span style={{ width: `${(100 * x.now) / Math.max(1, r.now)}%` }} />
                    </span>
                    <span class="num">{percent(x.now, r.now)}</span>
                  </span>
                ),
              },
              {
                key: "change",
                title: "Change",
                width: 84,
                align: "right",
                sort: (x) => x.now - x.before,
                render: (x) => (
                  <span
                    class={`num${x.now > x.before ? " warn-text" : x.now < x.before ? " good-text" : " muted"}`}
                    title={`${full(x.before)} then`}
                  >
                    {x.now === x.before
                      ? "±0"
                      : `${x.now > x.before ? "+" : "−"}${full(Math.abs(x.now - x.before))}`}
                  </span>
                ),
              },
              {
                key: "memory",
                title: "Memory",
                width: 100,
                align: "right",
                optional: true,
                render: (x) => <span class="num">{bytes(x.now * inMemory)}</span>,
              },
              {
                key: "disk",
                title: "Disk a day",
                width: 100,
                align: "right",
                optional: true,
                render: (x) => <span class="num">{aDay > 0 ? bytes(x.now * aDay) : "–"}</span>,
              },
            ]}
          />
          <p class="muted">
            Memory is counted with {bytes(inMemory)} a series,{" "}
            {series >= FEW_SERIES ? "the average of this server" : "as measured with a million series"}; disk
            with{" "}
            {aDay > 0
              ? `${bytes(aDay)} a day for the average series of this server`
              : "the size of a sample in blocks, once there is a block"}
            .
            {rate !== undefined &&
              ` This server takes ${short(rate)} samples per second for ${full(series)} series.`}
          </p>
        </>
      )}
    </section>
  );
}

function change(now: number, before: number): string {
  if (!before) return now ? "all new" : "none";
  const p = (100 * (now - before)) / before;
  return p === 0 ? "no change" : `${p > 0 ? "+" : "−"}${Number(Math.abs(p).toPrecision(3))} %`;
}
