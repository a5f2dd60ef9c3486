// The server's own figures, read from /metrics: they are there at once, even when nothing scrapes this server.
import { useEffect, useState } from "preact/hooks";
import { urlOf } from "./base";
import { num } from "./format";
import { live } from "./prefs";
import type { Labels } from "./types";

export interface SelfMetrics {
  at: number;
  /** Sum over the label sets of each name that was asked for. */
  values: Map<string, number>;
  /** Growth per second over the last minute, at first since the server began. */
  rates: Map<string, number>;
}

/** Sums the samples of the named metrics in exposition text. */
export function readExposition(text: string, names: ReadonlySet<string>): Map<string, number> {
  const out = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const stop = line.search(/[{\s]/);
    const name = line.slice(0, stop);
    if (!names.has(name)) continue;
    const rest = line[stop] === "{" ? line.slice(line.lastIndexOf("}") + 1) : line.slice(stop);
    const value = num(rest.trim().split(/\s+/)[0]);
    if (!Number.isNaN(value)) out.set(name, (out.get(name) ?? 0) + value);
  }
  return out;
}

export interface Labelled {
  name: string;
  labels: Labels;
  value: number;
}

/** The samples of the named metrics in exposition text, with their labels. */
export function readLabelled(text: string, names: ReadonlySet<string>): Labelled[] {
  const out: Labelled[] = [];
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const name = line.slice(0, line.search(/[{\s]/));
    if (!names.has(name)) continue;
    const labels: Labels = {};
    const open = line.indexOf("{");
    const close = line.lastIndexOf("}");
    if (open === name.length)
      for (const m of line.slice(open + 1, close).matchAll(/([\w.:]+)="((?:[^"\\]|\\.)*)"/g))
        labels[m[1]!] = m[2]!.replace(/\\(.)/g, (_all, c: string) => (c === "n" ? "\n" : c));
    const value = num(
      line
        .slice(Math.max(close, name.length) + 1)
        .trim()
        .split(/\s+/)[0],
    );
    out.push({ name, labels, value });
  }
  return out;
}

/** The named metrics of this server with their labels, read again and again. */
export function useLabelled(names: readonly string[], seconds = 5): Labelled[] | undefined {
  const [state, setState] = useState<Labelled[]>();
  const lively = live.value;
  const key = names.join();
  useEffect(() => {
    const stop = new AbortController();
    const wanted = new Set(names);
    const ask = () =>
      fetch(urlOf("metrics"), { signal: stop.signal, cache: "no-store", headers: { Accept: "text/plain" } })
        .then((r) => (r.ok ? r.text() : Promise.reject(new Error(String(r.status)))))
        .then((text) => setState(readLabelled(text, wanted)))
        .catch(() => {
          // The figures are then missing; the pages' own calls report an unreachable server.
        });
    ask();
    const timer = lively ? setInterval(() => !document.hidden && ask(), seconds * 1000) : undefined;
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [key, seconds, lively]);
  return state;
}

const START = "process_start_time_seconds";
// Milliseconds.
const WINDOW = 62_000;
const TELLING = 20_000;

export function useSelfMetrics(names: readonly string[], seconds = 5): SelfMetrics | undefined {
  const [state, setState] = useState<SelfMetrics>();
  const lively = live.value;
  const key = names.join();
  useEffect(() => {
    const stop = new AbortController();
    const asked = new Set([...names, START]);
    let readings: { at: number; values: Map<string, number> }[] = [];
    const ask = () =>
      fetch(urlOf("metrics"), { signal: stop.signal, cache: "no-store", headers: { Accept: "text/plain" } })
        .then((r) => (r.ok ? r.text() : Promise.reject(new Error(String(r.status)))))
        .then((text) => {
          const at = Date.now();
          const values = readExposition(text, asked);
          const rates = new Map<string, number>();
          // Targets are scraped in turns: a few seconds would miss most of them, or see one that is large.
          readings = readings.filter((r) => at - r.at < WINDOW);
          const began = values.get(START);
          const old = readings[0];
          const before =
            began && !(old && at - old.at >= TELLING)
              ? { at: began * 1000, values: new Map(names.map((n) => [n, 0])) }
              : old;
          if (before && at > before.at)
            for (const [name, value] of values) {
              const was = before.values.get(name);
              if (was !== undefined && value >= was)
                rates.set(name, ((value - was) * 1000) / (at - before.at));
            }
          readings.push({ at, values });
          setState({ at, values, rates });
        })
        .catch(() => {
          // The cards then show a dash; the pages' own calls report an unreachable server.
        });
    ask();
    // The first rate needs a second reading: take it soon.
    const soon = setTimeout(ask, 1000);
    const timer = lively ? setInterval(() => !document.hidden && ask(), seconds * 1000) : undefined;
    return () => {
      stop.abort();
      clearTimeout(soon);
      clearInterval(timer);
    };
  }, [key, seconds, lively]);
  return state;
}
