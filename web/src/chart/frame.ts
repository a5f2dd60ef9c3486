// Query results as columns on one time grid: what charts draw, legends summarise and exports write.
import { num } from "../lib/format";
import type { Labels, MatrixItem } from "../lib/types";

export interface Line {
  labels: Labels;
  values: (number | null)[];
  stats: Stats;
}
export interface Stats {
  last: number | null;
  min: number | null;
  max: number | null;
  avg: number | null;
}
export interface Frame {
  /** Seconds since the epoch, evenly spaced. */
  times: number[];
  lines: Line[];
}

/** Puts a matrix on the grid start, start+step … end (milliseconds). Missing steps are null, so lines break there. */
export function toFrame(items: MatrixItem[], start: number, end: number, step: number, shift = 0): Frame {
  const count = Math.floor((end - start) / step + 1e-9) + 1;
  const times = Array.from({ length: count }, (_, i) => (start + i * step) / 1000);
  const lines: Line[] = [];
  for (const item of items) {
    if (!item.values?.length) continue;
    const values = new Array<number | null>(count).fill(null);
    for (const [t, text] of item.values) {
      const i = Math.round((t * 1000 + shift - start) / step);
      if (i >= 0 && i < count) {
        const v = num(text);
        values[i] = Number.isFinite(v) ? v : null;
      }
    }
    lines.push({ labels: item.metric, values, stats: summarise(values) });
  }
  return { times, lines };
}

/** One series at the times of its own samples. */
export function toFrameAt(item: MatrixItem): Frame {
  const points = item.values ?? [];
  const values = points.map(([, text]) => {
    const v = num(text);
    return Number.isFinite(v) ? v : null;
  });
  return {
    times: points.map(([t]) => t),
    lines: points.length ? [{ labels: item.metric, values, stats: summarise(values) }] : [],
  };
}

export function summarise(values: (number | null)[]): Stats {
  let last: number | null = null;
  let min: number | null = null;
  let max: number | null = null;
  let sum = 0;
  let n = 0;
  for (const v of values) {
    if (v === null) continue;
    last = v;
    if (min === null || v < min) min = v;
    if (max === null || v > max) max = v;
    sum += v;
    n++;
  }
  return { last, min, max, avg: n ? sum / n : null };
}

/** The `n` lines with the highest maximum, in their original order. */
export function biggest(lines: Line[], n: number): Line[] {
  if (lines.length <= n) return lines;
  const keep = new Set(
    [...lines].sort((a, b) => (b.stats.max ?? -Infinity) - (a.stats.max ?? -Infinity)).slice(0, n),
  );
  return lines.filter((l) => keep.has(l));
}

/** Running sums from the first line up; a hidden line adds nothing. */
export function stack(lines: Line[], hidden: ReadonlySet<number>): (number | null)[][] {
  const sums: number[] = [];
  return lines.map((line, i) =>
    line.values.map((v, t) => {
      if (hidden.has(i) || v === null) return hidden.has(i) ? null : (sums[t] ?? null);
      sums[t] = (sums[t] ?? 0) + v;
      return sums[t]!;
    }),
  );
}
