// How regular the samples of a series are.

export interface Spacing {
  /** Milliseconds between neighbours; NaN with fewer than two samples. */
  median: number;
  min: number;
  max: number;
  /** Distances much longer than the usual one. */
  gaps: number;
}

// A scrape may be late by half an interval without one having been missed.
const LATE = 1.5;

function distances(times: number[]): number[] {
  return times.slice(1).map((t, i) => t - times[i]!);
}

function medianOf(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)]! : Number.NaN;
}

export function spacing(times: number[]): Spacing {
  const all = distances(times);
  if (!all.length) return { median: Number.NaN, min: Number.NaN, max: Number.NaN, gaps: 0 };
  let min = all[0]!;
  let max = all[0]!;
  for (const d of all) {
    if (d < min) min = d;
    if (d > max) max = d;
  }
  return { median: medianOf(all), min, max, gaps: gaps(times).length };
}

/** Indices of the samples that come later than expected after the one before. */
export function gaps(times: number[]): number[] {
  const all = distances(times);
  const usual = medianOf(all);
  return all.flatMap((d, i) => (d > usual * LATE ? [i + 1] : []));
}
