// Histograms over time as cells of a heat map: native ones from their buckets, classic ones from their `le` series.
import { num } from "../lib/format";
import type { MatrixItem } from "../lib/types";

export interface Cell {
  /** Index of the time. */
  t: number;
  /** Indices of the lower and the upper bound. */
  from: number;
  to: number;
  count: number;
}
export interface HeatMap {
  times: number[];
  /** All bucket bounds, ascending. */
  bounds: number[];
  cells: Cell[];
  most: number;
}

export type HeatKind = "native" | "classic" | null;

/** Which kind of heat map a result can be drawn as. */
export function heatKind(items: MatrixItem[]): HeatKind {
  if (items.some((i) => i.histograms?.length)) return "native";
  const classic = items.filter((i) => i.metric.le !== undefined).length;
  return items.length > 1 && classic === items.length ? "classic" : null;
}

type Put = (t: number, lo: number, hi: number, count: number) => void;

export function toHeat(items: MatrixItem[], start: number, end: number, step: number): HeatMap {
  const count = Math.floor((end - start) / step + 1e-9) + 1;
  const times = Array.from({ length: count }, (_, i) => (start + i * step) / 1000);
  const index = (t: number) => Math.round((t * 1000 - start) / step);
  const sums = new Map<string, { t: number; lo: number; hi: number; count: number }>();
  const put: Put = (t, lo, hi, n) => {
    if (!(n > 0) || t < 0 || t >= count) return;
    const key = `${t} ${lo} ${hi}`;
    const cell = sums.get(key);
    if (cell) cell.count += n;
    else sums.set(key, { t, lo, hi, count: n });
  };
  if (heatKind(items) === "native") native(items, index, put);
  else classic(items, index, put);
  const bounds = [...new Set([...sums.values()].flatMap((c) => [c.lo, c.hi]))].sort((a, b) => a - b);
  const at = new Map(bounds.map((b, i) => [b, i]));
  let most = 0;
  const cells = [...sums.values()].map((c): Cell => {
    // Wide buckets hold more by being wide: colour goes by the count in each row of the map.
    const rows = at.get(c.hi)! - at.get(c.lo)!;
    most = Math.max(most, c.count / Math.max(1, rows));
    return { t: c.t, from: at.get(c.lo)!, to: at.get(c.hi)!, count: c.count };
  });
  return { times, bounds, cells, most };
}

function native(items: MatrixItem[], index: (t: number) => number, put: Put): void {
  for (const item of items)
    for (const [t, h] of item.histograms ?? [])
      for (const [, lo, hi, n] of h.buckets ?? []) put(index(t), num(lo), num(hi), num(n));
}

function classic(items: MatrixItem[], index: (t: number) => number, put: Put): void {
  // Series that differ in nothing but `le` belong to one histogram, whose buckets are cumulative.
  const groups = new Map<string, { le: number; values: Map<number, number> }[]>();
  for (const item of items) {
    const { le, ...rest } = item.metric;
    if (le === undefined) continue;
    const key = JSON.stringify(Object.entries(rest).sort());
    const values = new Map((item.values ?? []).map(([t, v]): [number, number] => [index(t), num(v)]));
    groups.set(key, [...(groups.get(key) ?? []), { le: num(le), values }]);
  }
  for (const buckets of groups.values()) {
    buckets.sort((a, b) => a.le - b.le);
    for (let i = 0; i < buckets.length; i++) {
      const below = buckets[i - 1];
      const mine = buckets[i]!;
      const lo = below ? below.le : mine.le > 0 ? 0 : Number.NEGATIVE_INFINITY;
      for (const [t, v] of mine.values) put(t, lo, mine.le, v - (below?.values.get(t) ?? 0));
    }
  }
}
