// Lines or stacked areas over time, drawn by uPlot on a canvas, with a tooltip and a keyboard cursor.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { neat, short } from "../lib/format";
import { formatTime, type Zone } from "../lib/time";
import type { Labels } from "../lib/types";
import { LabelText } from "../ui/labels";
import { type Frame, stack } from "./frame";
import { type Ink, ink } from "./palette";
import { css, pannable, timeAxisSize, timeTicks, useWidth } from "./plot";

export interface TimeChartProps {
  frame: Frame;
  /** The same query in the past, line by line as far as it matches; drawn faint and dashed. */
  ghost?: (Frame["lines"][number] | undefined)[] | undefined;
  mode: "lines" | "stacked";
  height: number;
  zone: Zone;
  dark: boolean;
  /** Where the vertical axis begins; missing or null leaves it to the data. */
  yMin?: number | null | undefined;
  /** Points beside the lines, such as exemplars. */
  marks?: Mark[] | undefined;
  onMark?: ((index: number) => void) | undefined;
  /** Horizontal lines, such as the threshold of an alert. */
  levels?: number[] | undefined;
  /** Ranges of time with a coloured ground, such as those in which an alert fired. */
  spans?: Span[] | undefined;
  /** Draws every sample as a dot. */
  dots?: boolean | undefined;
  hidden?: ReadonlySet<number> | undefined;
  /** Labels every line has, left out of the tooltip. */
  common?: Labels | undefined;
  label: string;
  /** Colours by place in the whole result, when only some of its lines are drawn. */
  inks?: Ink[] | undefined;
  onZoom?: ((fromSeconds: number, toSeconds: number) => void) | undefined;
  /** Called after the graph was moved with Shift held down; seconds, positive into the past. */
  onPan?: ((seconds: number) => void) | undefined;
  onZoomOut?: (() => void) | undefined;
  /** Charts with the same name move their cursors together. */
  sync?: string | undefined;
  onReady?: ((canvas: HTMLCanvasElement) => void) | undefined;
  spark?: boolean;
}

export interface Mark {
  /** Seconds since the epoch. */
  t: number;
  v: number;
}
export interface Span {
  from: number;
  to: number;
  tone: "bad" | "warn";
}

interface Tip {
  left: number;
  top: number;
  flip: boolean;
  time: number;
  line: number;
  value: number;
  past: number | null;
  mark?: number;
}

export function TimeChart(props: TimeChartProps) {
  const { frame, ghost, mode, height, zone, dark, hidden, sync, spark } = props;
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const width = useWidth(host);
  const [tip, setTip] = useState<Tip | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const off = hidden ?? NONE;

  // A new plot is needed only when its lines, look or size class change; fresh values alone are swapped in, so that a
  // refresh does not take the cursor away.
  const shape = JSON.stringify([
    frame.lines.map((l) => l.labels),
    ghost?.map((g) => !!g),
    mode,
    zone,
    dark,
    props.yMin,
    [...off],
    sync,
    props.dots,
    props.levels,
    props.spans,
    props.inks?.map((i) => i.colour),
  ]);
  const data = chartData(frame, ghost, mode, off);

  useLayoutEffect(() => {
    const el = host.current;
    if (!el || width === 0) return;
    const u = new uPlot(options(), data, el);
    plot.current = u;
    const unpan = props.onPan && pannable(u, (seconds) => latest.current.onPan?.(seconds));
    props.onReady?.(u.ctx.canvas);
    return () => {
      unpan?.();
      u.destroy();
      plot.current = null;
      setTip(null);
    };
  }, [shape, width === 0]);

  useLayoutEffect(() => {
    plot.current?.setSize({ width, height });
  }, [width, height]);

  const seen = useRef(frame);
  useLayoutEffect(() => {
    if (seen.current !== frame) plot.current?.setData(data);
    seen.current = frame;
  }, [frame, ghost]);

  useLayoutEffect(() => {
    // The range of the axis depends on the marks, so it is asked for again.
    plot.current?.setData(data);
  }, [props.marks]);

  function options(): uPlot.Options {
    const text = css("--muted");
    const grid = css("--grid");
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = {
      stroke: text,
      font,
      grid: { stroke: grid, width: 1 },
      ticks: { stroke: grid, width: 1, size: 4 },
    };
    const lines = frame.lines.map((_, i): uPlot.Series => {
      const { colour, dash } = props.inks?.[i] ?? ink(i, dark);
      return {
        stroke: colour,
        dash,
        width: 1.5,
        show: !off.has(i),
        points: props.dots
          ? { show: true, size: 4, fill: colour }
          : { show: (u, n) => alone(u, n).length > 0, filter: alone, size: 4, fill: colour },
        ...(mode === "stacked" ? { fill: `${colour}38` } : {}),
        ...(spark
          ? { ...(frame.lines.length === 1 ? { fill: `${colour}22` } : {}), points: { show: false } }
          : {}),
      };
    });
    const past = (ghost ?? []).map((g, i): uPlot.Series => {
      const { colour } = props.inks?.[i] ?? ink(i, dark);
      return {
        stroke: `${colour}99`,
        dash: [3, 4],
        width: 1.25,
        show: !!g && !off.has(i),
        points: { show: false },
      };
    });
    const shown = frame.lines.map((_, i) => i).filter((i) => !off.has(i));
    return {
      width,
      height,
      pxAlign: false,
      padding: spark ? [4, 0, 0, 0] : [12, 18, 0, 0],
      tzDate: (seconds) =>
        zone === "utc" ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000),
      legend: { show: false },
      cursor: {
        ...(sync ? { sync: { key: sync, setSeries: false } } : {}),
        drag: { x: !!props.onZoom, y: false, setScale: false },
        bind: {
          // With Shift the graph is moved instead.
          mousedown: (_u, _el, handler) => (e) => {
            if (!e.shiftKey) handler(e);
            return null;
          },
          dblclick: () => () => null,
        },
        focus: { prox: 30 },
        points: { size: 7 },
        y: false,
      },
      focus: { alpha: mode === "stacked" ? 1 : 0.35 },
      scales: {
        x: { time: true },
        y: {
          range: (_u, lo, hi) => {
            const p = latest.current;
            const top = hi === null ? Number.POSITIVE_INFINITY : hi + (hi - Math.min(0, lo ?? 0)) * ABOVE;
            const marks = (p.marks ?? []).map((m) => Math.min(m.v, top));
            const levels = p.levels ?? [];
            return yRange(
              withExtra(lo, [...marks, ...levels], Math.min),
              withExtra(hi, [...marks, ...levels], Math.max),
              p.yMin ?? (mode === "stacked" ? 0 : null),
            );
          },
        },
      },
      axes: spark
        ? [{ show: false }, { show: false }]
        : [
            { ...axis, space: 70, size: timeAxisSize, values: timeTicks(zone) },
            {
              ...axis,
              values: (_u, ticks) => ticks.map((t) => short(t, 4)),
              size: (_u, labels) =>
                Math.max(38, 12 + 6.6 * Math.max(0, ...(labels ?? []).map((l) => l.length))),
            },
          ],
      ...(mode === "stacked"
        ? {
            bands: shown.slice(1).map((i, n): uPlot.Band => ({ series: [i + 1, shown[n]! + 1] })),
          }
        : {}),
      series: [{}, ...lines, ...past],
      hooks: {
        drawAxes: [(u) => drawSpans(u, latest.current.spans)],
        draw: [
          (u) => {
            drawLevels(u, latest.current.levels);
            drawMarks(u, latest.current.marks);
          },
        ],
        setSelect: [
          (u) => {
            if (u.select.width < 6) return;
            const from = u.posToVal(u.select.left, "x");
            const to = u.posToVal(u.select.left + u.select.width, "x");
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            latest.current.onZoom?.(from, to);
          },
        ],
        setCursor: [(u) => setTip(spark ? null : tipAt(u, latest.current))],
      },
    };
  }

  function onKey(event: KeyboardEvent) {
    const u = plot.current;
    if (!u || spark) return;
    const jump = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (event.key === "Escape") u.setCursor({ left: -10, top: -10 });
    if (!jump) return;
    event.preventDefault();
    const count = frame.times.length;
    const from = u.cursor.idx ?? (jump > 0 ? -1 : count);
    const i = Math.max(0, Math.min(count - 1, from + jump * (event.shiftKey ? 10 : 1)));
    const values = data.slice(1, frame.lines.length + 1);
    const line = Math.max(
      values.findIndex((v, n) => !off.has(n) && v[i] != null),
      0,
    );
    const y = values[line]?.[i];
    u.setCursor({ left: u.valToPos(frame.times[i]!, "x"), top: y == null ? 10 : u.valToPos(y, "y") });
  }

  const size = { height: `${height}px` };
  const tipLine = tip ? frame.lines[tip.line] : undefined;
  return (
    <div class="chart">
      {spark ? (
        <div ref={host} class="chart-host" style={size} role="img" aria-label={props.label} />
      ) : (
        // biome-ignore lint/a11y/useSemanticElements: a chart is no fieldset; its twin is the table tab
        <div
          ref={host}
          class="chart-host"
          style={size}
          tabIndex={0}
          role="group"
          aria-label={`${props.label}. Left and right arrow keys move along time.`}
          onKeyDown={onKey}
          onDblClick={() => tip?.mark === undefined && props.onZoomOut?.()}
          onClick={() => {
            if (tip?.mark !== undefined) props.onMark?.(tip.mark);
          }}
        />
      )}
      {tip && tipLine && (
        <div
          class={`tip${tip.flip ? " flip" : ""}`}
          style={{ left: `${tip.left}px`, top: `${tip.top}px` }}
          role="status"
        >
          <div class="tip-time">{formatTime(tip.time * 1000, zone)}</div>
          <div class="tip-value">
            <span
              class="swatch"
              style={{
                background:
                  tip.mark === undefined
                    ? (props.inks?.[tip.line] ?? ink(tip.line, dark)).colour
                    : "var(--accent)",
              }}
            />
            <b>{neat(tip.value)}</b>
            {tip.past !== null && (
              <span class="muted">
                {" "}
                before {neat(tip.past)} ({delta(tip.value, tip.past)})
              </span>
            )}
          </div>
          {tip.mark === undefined ? (
            <LabelText labels={tipLine.labels} skip={props.common} wrap />
          ) : (
            <span class="muted">Exemplar: click for its trace</span>
          )}
        </div>
      )}
    </div>
  );
}

const NONE: ReadonlySet<number> = new Set();

/** Change in per cent from `past` to `now`. */
export function delta(now: number, past: number): string {
  if (past === 0) return now === 0 ? "±0 %" : "new";
  const p = (100 * (now - past)) / Math.abs(past);
  return `${p > 0 ? "+" : p < 0 ? "−" : "±"}${short(Math.abs(p))} %`;
}

function chartData(
  frame: Frame,
  ghost: TimeChartProps["ghost"],
  mode: "lines" | "stacked",
  off: ReadonlySet<number>,
): uPlot.AlignedData {
  const values = mode === "stacked" ? stack(frame.lines, off) : frame.lines.map((l) => l.values);
  const past = (ghost ?? []).map((g) => g?.values ?? new Array<null>(frame.times.length).fill(null));
  return [frame.times, ...values, ...past];
}

/** Single samples between gaps would be invisible as a line: these are drawn as dots. */
function alone(u: uPlot, series: number): number[] {
  const values = u.data[series]!;
  const found: number[] = [];
  for (let i = 0; i < values.length; i++)
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i);
  return found;
}

/** Bounds of the vertical axis around values from `lo` to `hi`; with `min` it begins there. */
export function yRange(lo: number | null, hi: number | null, min: number | null): [number, number] {
  if (lo === null || hi === null || !Number.isFinite(lo) || !Number.isFinite(hi))
    return [min ?? 0, (min ?? 0) + 1];
  // Values below zero stay in sight on an axis that is to begin at zero; any other beginning is taken at its word.
  const from = min === null ? lo : min === 0 ? Math.min(0, lo) : min;
  const to = Math.max(from, hi);
  if (from === to) {
    const pad = Math.abs(from) * 0.1 || 1;
    return [min === null ? from - pad : from, to + pad];
  }
  const pad = (to - from) * 0.06;
  if (min !== null) return [from, to + pad];
  return [from >= 0 && from - pad < 0 ? 0 : from - pad, to + pad];
}

function withExtra(v: number | null, extra: number[], pick: (...all: number[]) => number): number | null {
  const all = v === null ? extra : [v, ...extra];
  return all.length ? pick(...all) : null;
}

function drawSpans(u: uPlot, spans: Span[] | undefined): void {
  for (const s of spans ?? []) {
    const left = Math.max(u.bbox.left, u.valToPos(s.from, "x", true));
    const right = Math.min(u.bbox.left + u.bbox.width, u.valToPos(s.to, "x", true));
    if (right < left) continue;
    u.ctx.fillStyle = css(s.tone === "bad" ? "--bad-soft" : "--warn-soft");
    u.ctx.fillRect(left, u.bbox.top, Math.max(2, right - left), u.bbox.height);
  }
}

function drawLevels(u: uPlot, levels: number[] | undefined): void {
  for (const v of levels ?? []) {
    const y = Math.round(u.valToPos(v, "y", true));
    u.ctx.save();
    u.ctx.strokeStyle = css("--bad");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, y);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
    u.ctx.stroke();
    u.ctx.restore();
  }
}

const MARK_RADIUS = 3.5;
// Marks raise the top of the axis by at most this part of the height of the lines: one outlier must not flatten them.
const ABOVE = 1.5;

function drawMarks(u: uPlot, marks: Mark[] | undefined): void {
  if (!marks?.length) return;
  const r = MARK_RADIUS * devicePixelRatio;
  u.ctx.save();
  u.ctx.fillStyle = css("--surface");
  u.ctx.strokeStyle = css("--accent");
  u.ctx.lineWidth = 1.5 * devicePixelRatio;
  for (const m of marks) {
    const x = u.valToPos(m.t, "x", true);
    const wanted = u.valToPos(m.v, "y", true);
    if (x < u.bbox.left || x > u.bbox.left + u.bbox.width || wanted > u.bbox.top + u.bbox.height + r)
      continue;
    const y = Math.max(wanted, u.bbox.top + r);
    u.ctx.beginPath();
    u.ctx.moveTo(x, y - r);
    u.ctx.lineTo(x + r, y);
    // What lies above the axis is a triangle at its edge.
    if (y === wanted) u.ctx.lineTo(x, y + r);
    u.ctx.lineTo(x - r, y);
    u.ctx.closePath();
    u.ctx.fill();
    u.ctx.stroke();
  }
  u.ctx.restore();
}

/** The mark under the pointer, or -1. */
function markAt(u: uPlot, marks: Mark[] | undefined, left: number, top: number): number {
  let best = -1;
  let distance = 9;
  for (const [i, m] of (marks ?? []).entries()) {
    const y = Math.max(u.valToPos(m.v, "y"), MARK_RADIUS);
    const d = Math.hypot(u.valToPos(m.t, "x") - left, y - top);
    if (d < distance) {
      distance = d;
      best = i;
    }
  }
  return best;
}

function tipAt(u: uPlot, props: TimeChartProps): Tip | null {
  const { left, top, idx } = u.cursor;
  if (left == null || top == null || left < 0 || idx == null) return null;
  const on = markAt(u, props.marks, left, top);
  const mark = props.marks?.[on];
  if (mark)
    return {
      left: left + u.over.offsetLeft,
      top: Math.min(top + u.over.offsetTop, props.height - 40),
      flip: left > u.over.clientWidth / 2,
      time: mark.t,
      line: 0,
      value: mark.v,
      past: null,
      mark: on,
    };
  const count = props.frame.lines.length;
  let best = -1;
  let distance = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; i++) {
    if (props.hidden?.has(i)) continue;
    const y = u.data[i + 1]?.[idx];
    if (y == null || props.frame.lines[i]!.values[idx] == null) continue;
    const d = Math.abs(u.valToPos(y, "y") - top);
    if (d < distance) {
      distance = d;
      best = i;
    }
  }
  if (best < 0) return null;
  const box = u.over;
  const past = props.ghost?.[best]?.values[idx];
  return {
    left: left + box.offsetLeft,
    top: Math.min(top + box.offsetTop, props.height - 40),
    flip: left > box.clientWidth / 2,
    time: props.frame.times[idx]!,
    line: best,
    value: props.frame.lines[best]!.values[idx]!,
    past: past ?? null,
  };
}
