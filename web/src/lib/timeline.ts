// What was pending and firing when, from the ALERTS series.
import type { Labels, MatrixItem } from "./types";

export type AlertState = "pending" | "firing";
/** Seconds since the epoch. */
export interface Run {
  from: number;
  to: number;
  state: AlertState;
}

/**
 * Stretches of time in which an alert was in a state. `items` are samples of ALERTS taken every `step` seconds, each
 * standing for the step before it. Where both states were seen, firing wins.
 */
export function runsOf(items: MatrixItem[], step: number, now = Date.now() / 1000): Run[] {
  const at = new Map<number, AlertState>();
  for (const item of items) {
    const state = item.metric.alertstate === "firing" ? "firing" : "pending";
    for (const [t] of item.values ?? []) if (at.get(t) !== "firing") at.set(t, state);
  }
  const runs: Run[] = [];
  for (const t of [...at.keys()].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    const state = at.get(t)!;
    if (last && last.state === state && t - step <= last.to + 1e-6) last.to = t;
    else runs.push({ from: t - step, to: t, state });
  }
  // The newest step reaches past the present.
  return runs.map((r) => ({ ...r, to: Math.min(r.to, Math.max(now, r.from)) }));
}

/** Groups samples of ALERTS by some of their labels. */
export function byLabels(items: MatrixItem[], key: (labels: Labels) => string): Map<string, MatrixItem[]> {
  const out = new Map<string, MatrixItem[]>();
  for (const item of items) {
    const k = key(item.metric);
    out.set(k, [...(out.get(k) ?? []), item]);
  }
  return out;
}

export interface Summary {
  times: number;
  seconds: number;
  longest: number;
}

export function summary(runs: Run[]): Summary {
  const firing = runs.filter((r) => r.state === "firing").map((r) => r.to - r.from);
  return {
    times: firing.length,
    seconds: firing.reduce((a, b) => a + b, 0),
    longest: Math.max(0, ...firing),
  };
}
