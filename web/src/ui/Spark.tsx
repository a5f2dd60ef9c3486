// A small chart of one query over the last minutes, for cards.
import { useEffect, useState } from "preact/hooks";
import { biggest, type Frame, toFrame } from "../chart/frame";
import { TimeChart } from "../chart/TimeChart";
import { call, explainError, isAbort } from "../lib/api";
import { bytes, percent, short } from "../lib/format";
import { isDark, live, zone } from "../lib/prefs";
import { formatDuration, humanDuration } from "../lib/time";
import type { QueryData } from "../lib/types";

const MOST_LINES = 12;
// A small chart has no axis: noise around a steady value must not look like ups and downs.
const STEADY = 0.1;

/** Where the vertical axis of a small chart begins: at zero for what hardly changes, else with the data. */
export function sparkFloor(lowest: number, highest: number): number | null {
  return lowest >= 0 && highest - lowest < STEADY * highest ? 0 : null;
}

/** A frame whose data begin late, as on a young server, without what stands before them. */
export function begun(frame: Frame): Frame {
  const first = Math.min(...frame.lines.map((l) => l.values.findIndex((v) => v !== null)));
  const at = first - 1;
  if (!(at > frame.times.length * LATE)) return frame;
  return {
    times: frame.times.slice(at),
    lines: frame.lines.map((l) => ({ ...l, values: l.values.slice(at) })),
  };
}
const LATE = 0.2;

const UNITS: Record<string, (n: number) => string> = {
  ratio: (n) => (n < 0.001 ? "0 %" : percent(n, 1)),
  bytes,
  seconds: humanDuration,
};

export function Spark(props: {
  expr: string;
  range?: number;
  height?: number;
  seconds?: number;
  unit?: string | undefined;
  /** Draws axes and shows values under the pointer. */
  axes?: boolean;
}) {
  const { expr, range = 900_000, height = 96, seconds = 10 } = props;
  const [frame, setFrame] = useState<Frame>();
  const [error, setError] = useState("");
  const lively = live.value;
  useEffect(() => {
    const stop = new AbortController();
    const step = Math.max(1000, Math.round(range / 180_000) * 1000);
    const ask = () => {
      const end = Math.floor(Date.now() / step) * step;
      call<QueryData>(
        "query_range",
        { query: expr, start: (end - range) / 1000, end: end / 1000, step: step / 1000, limit: 200 },
        stop.signal,
      ).then(
        ({ data }) => {
          const f = toFrame(data.resultType === "matrix" ? data.result : [], end - range, end, step);
          setFrame(begun({ times: f.times, lines: biggest(f.lines, MOST_LINES) }));
          setError("");
        },
        (e: unknown) => {
          if (!isAbort(e)) setError(explainError(e));
        },
      );
    };
    ask();
    const timer = lively ? setInterval(() => !document.hidden && ask(), seconds * 1000) : undefined;
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [expr, range, lively]);
  if (error) return <p class="spark-note bad-text">{error}</p>;
  if (!frame) return <div style={{ height: `${height}px` }} />;
  if (!frame.lines.length)
    return (
      <p class="spark-note muted" style={props.axes ? {} : { height: `${height}px` }}>
        No samples in the last {formatDuration(range)}.
      </p>
    );
  const say = UNITS[props.unit ?? ""] ?? short;
  const last = frame.lines.map((l) => l.stats.last ?? 0);
  const lowest = Math.min(...frame.lines.map((l) => l.stats.min ?? 0));
  const highest = Math.max(...frame.lines.map((l) => l.stats.max ?? 0));
  return (
    <div class="spark">
      <TimeChart
        frame={frame}
        mode="lines"
        height={height}
        zone={zone.value}
        dark={isDark()}
        yMin={sparkFloor(lowest, highest)}
        label={`Small graph of ${expr}`}
        spark={!props.axes}
      />
      <p class="spark-note muted num">
        {frame.lines.length === 1
          ? `now ${say(last[0]!)}${say(lowest) === say(highest) ? "" : `, between ${say(lowest)} and ${say(highest)}`}`
          : `${frame.lines.length} series, ${say(Math.min(...last))} to ${say(Math.max(...last))}`}
      </p>
    </div>
  );
}
