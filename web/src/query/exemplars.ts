// Exemplars: single observations behind the samples of a graph, and the traces they lead to.
import type { Mark } from "../chart/TimeChart";
import { call } from "../lib/api";
import { num } from "../lib/format";
import type { Labels } from "../lib/types";

export interface Exemplar {
  /** Labels of the series it belongs to. */
  series: Labels;
  /** Its own labels, such as a trace's identifier. */
  labels: Labels;
  value: number;
  /** Seconds since the epoch. */
  time: number;
}

interface Found {
  seriesLabels: Labels;
  exemplars: { labels: Labels; value: string; timestamp: number }[];
}

/** Exemplars of all series that the query selects, oldest first. Times in milliseconds. */
export async function askExemplars(
  query: string,
  start: number,
  end: number,
  signal: AbortSignal,
): Promise<Exemplar[]> {
  const answer = await call<Found[] | undefined>(
    "query_exemplars",
    { query, start: start / 1000, end: end / 1000 },
    signal,
  );
  return (answer.data ?? [])
    .flatMap((s) =>
      s.exemplars.map((e) => ({
        series: s.seriesLabels,
        labels: e.labels,
        value: num(e.value),
        time: e.timestamp,
      })),
    )
    .filter((e) => Number.isFinite(e.value))
    .sort((a, b) => a.time - b.time);
}

const COLUMNS = 60;
const PER_COLUMN = 2;

/** Few enough to be told apart: in each slice of the time range the highest and the one in the middle. */
export function thin(all: Exemplar[], start: number, end: number): Exemplar[] {
  const slices = new Map<number, Exemplar[]>();
  for (const e of all) {
    const slice = Math.floor((COLUMNS * (e.time * 1000 - start)) / Math.max(1, end - start));
    slices.set(slice, [...(slices.get(slice) ?? []), e]);
  }
  return [...slices.values()]
    .flatMap((s) => {
      const down = s.sort((a, b) => b.value - a.value);
      return down.length <= PER_COLUMN ? down : [down[0]!, down[down.length >> 1]!];
    })
    .sort((a, b) => a.time - b.time);
}

export function marksOf(shown: Exemplar[]): Mark[] {
  return shown.map((e) => ({ t: e.time, v: e.value }));
}

/**
 * Address of an exemplar's trace: a label that is a web address itself, else the template with `{label}` filled in.
 * Empty when a label is missing or the result is no web address.
 */
export function traceUrl(template: string, labels: Labels): string {
  const own = Object.values(labels).find((v) => /^https?:\/\/[^\s"'<>]+$/.test(v));
  if (own) return own;
  let missing = false;
  const url = template.replace(/\{([^{}]+)\}/g, (_all, name: string) => {
    const value = labels[name];
    if (value === undefined) missing = true;
    return encodeURIComponent(value ?? "");
  });
  return !missing && /^https?:\/\/[^\s"'<>]+$/.test(url) ? url : "";
}
