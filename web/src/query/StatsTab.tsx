// What a query costs: time by phase, samples, the most expensive parts, and what a recording rule would save.
import { call } from "../lib/api";
import { bytes, full, short, visible } from "../lib/format";
import { formatDuration, humanDuration } from "../lib/time";
import type { QueryData, QueryStats } from "../lib/types";
import { CopyButton } from "../ui/parts";
import { Busy } from "./Busy";
import type { TabProps } from "./PanelView";
import { type Explanation, flat, type Part, pair } from "./plan";
import { stepOf } from "./state";
import { useQuery } from "./useQuery";
import "../styles/pages.css";
import { Hint } from "./late";

const PHASES: [string, string][] = [
  ["execQueueTime", "Waiting for its turn"],
  ["queryPreparationTime", "Finding the series"],
  ["innerEvalTime", "Reading and calculating"],
  ["resultSortTime", "Sorting"],
];
const MOST_PARTS = 6;
// Below this many samples read, storing the result beforehand saves nothing a person would notice.
const WORTH_RECORDING = 1_000_000;

export function StatsTab(props: TabProps) {
  const { panel, turn, onChange } = props;
  const step = stepOf(panel.resolution, panel.range, 1000);
  const key = panel.expr ? JSON.stringify([panel.expr, panel.range, panel.end, step, turn]) : "";
  const run = useQuery(
    key,
    0,
    async (signal) => {
      const end = Math.floor((panel.end ?? Date.now()) / step) * step;
      const params = {
        query: panel.expr,
        start: (end - panel.range) / 1000,
        end: end / 1000,
        step: step / 1000,
      };
      const plain = await call<QueryData>("query_range", { ...params, stats: "all" }, signal);
      const explained = await call<Explanation>("explain", params, signal);
      return { plain, explained, points: Math.floor(panel.range / step) + 1 };
    },
    props.onFail,
  );
  const s = run.value;
  if (!panel.expr) return <Hint onTry={(expr) => onChange({ expr })} />;
  if (!s)
    return (
      <div class="tab">
        <Busy run={run} />
        {!props.failed && <div class="placeholder" />}
      </div>
    );
  const stats: QueryStats = s.plain.data.stats ?? {};
  const timings = stats.timings ?? {};
  const inServer = timings.execTotalTime ?? 0;
  const outside = Math.max(0, s.plain.took / 1000 - inServer);
  const rows: [string, number][] = [
    ...PHASES.map(([k, name]): [string, number] => [name, timings[k] ?? 0]),
    ["Sending and reading the answer", outside],
  ];
  const most = Math.max(...rows.map(([, t]) => t), 1e-9);
  const parts = flat(pair(s.explained.data.plan, undefined))
    .filter((p) => p.plan.ownSeconds > 0 && p.plan.kind !== "number" && p.plan.kind !== "string")
    .sort((a, b) => b.plan.ownSeconds - a.plan.ownSeconds)
    .slice(0, MOST_PARTS);
  const read = stats.samples?.samplesRead ?? stats.samples?.totalQueryableSamples ?? 0;
  const result = s.plain.data.result as { values?: unknown[]; histograms?: unknown[] }[];
  return (
    <div class="tab">
      <Busy run={run} />
      <ul class="tiles small stat-tiles">
        <Fact name="Series in the result" value={full(result.length)} />
        <Fact name="Points" value={short(result.reduce((n, r) => n + (r.values?.length ?? 0), 0))} />
        <Fact name="Samples read" value={short(read)} />
        <Fact name="Peak samples" value={short(stats.samples?.peakSamples ?? 0)} />
        <Fact name="Answer" value={bytes(s.plain.bytes)} />
        <Fact name="Steps" value={`${full(s.points)} of ${formatDuration(step)}`} />
      </ul>
      <div class="two stat-columns">
        <section>
          <h2 class="part-title">Where the time went</h2>
          <table class="bars">
            <tbody>
              {rows.map(([name, seconds]) => (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  <td class="num right">{humanDuration(seconds)}</td>
                  <td class="bar-cell" aria-hidden="true">
                    <span class="meter">
                      <span style={{ width: `${(100 * seconds) / most}%` }} />
                    </span>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
        <section>
          <h2 class="part-title">The most expensive parts</h2>
          <table class="bars">
            <tbody>
              {parts.map((p) => (
                <tr key={p.id}>
                  <th scope="row">
                    <button
                      type="button"
                      class="plain mono part-text"
                      title="Open this part in the table"
                      onClick={() => props.onChange({ expr: p.plan.text, tab: "table" })}
                    >
                      <bdi>{visible((p.plan.text || p.plan.kind).replace(/\s+/g, " "))}</bdi>
                    </button>
                  </th>
                  <td class="num right">{humanDuration(p.plan.ownSeconds)}</td>
                  <td class="num right muted">{short(p.plan.samples)} samples</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      </div>
      <Advice part={pair(s.explained.data.plan, undefined)} read={read} />
    </div>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <li>
      <div class="tile">
        <span class="tile-name">{name}</span>
        <span class="tile-value num">{value}</span>
      </div>
    </li>
  );
}

/** Names the largest aggregation whose stored result would spare most of the reading. */
function Advice({ part, read }: { part: Part; read: number }) {
  const best = flat(part)
    .filter((p) => p.plan.kind === "aggregation" && p.plan.text !== "")
    .sort((a, b) => b.plan.seconds - a.plan.seconds)[0];
  if (!best || read < WORTH_RECORDING)
    return (
      <p class="muted">
        {read < WORTH_RECORDING
          ? "This query reads few samples: a recording rule would not make it noticeably quicker."
          : "No part of this query sums up many series: a recording rule would not help."}
      </p>
    );
  const rule = `- record: ${recordName(best.plan.text)}\n  expr: ${JSON.stringify(best.plan.text)}\n`;
  return (
    <section>
      <h2 class="part-title">A recording rule would help</h2>
      <p>
        Most of the work is in one aggregation. Stored by a rule, its {full(best.plan.series)} series are read
        instead of {short(read)} samples.
      </p>
      <div class="code-box">
        <pre class="code-block">{rule}</pre>
        <CopyButton text={rule} />
      </div>
    </section>
  );
}

/** A name after the level:metric:operations convention, as far as the text tells. */
export function recordName(expr: string): string {
  const by = /\bby\s*\(([^)]*)\)/.exec(expr)?.[1]?.replace(/\s/g, "").replace(/,/g, "_") || "all";
  const metric = /([a-zA-Z_:][a-zA-Z0-9_:]*)\s*[{[]/.exec(expr)?.[1] ?? "metric";
  const op = /^\s*([a-z_]+)/.exec(expr)?.[1] ?? "value";
  const inner = /\b(rate|increase|irate|delta|avg_over_time|max_over_time)\b/.exec(expr)?.[1];
  return `${by}:${metric}:${op}${inner ? `_${inner}` : ""}`;
}
