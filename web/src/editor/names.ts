// What completion may ask of the server. Never "all names of everything": each call has a limit, metric names come by
// prefix, answers are kept for a while, and a person can switch completion off.
import type { PrometheusClient } from "@prometheus-io/codemirror-promql";
import { EqlRegex, EqlSingle, Neq, NeqRegex } from "@prometheus-io/lezer-promql";
import { call, type Params } from "../lib/api";
import { labelName, quote } from "../lib/format";
import { escapeName } from "../lib/names";
import { searchMetrics } from "../lib/search";
import type { MetadataItem } from "../lib/types";

interface Matcher {
  name: string;
  value: string;
  matchesEmpty(): boolean;
  type: unknown;
}

const MOST_NAMES = 200;
// Before two letters are typed there is nothing to rank by.
const MOST_UNASKED = 500;
const MOST_METADATA = 2000;
const MOST_VALUES = 1000;
const KEEP_MS = 30_000;
// Names that existed in the last hours are enough; asking for all time would open every block.
const LOOKBACK_MS = 12 * 3_600_000;

export class MetricNames implements PrometheusClient {
  private readonly kept = new Map<string, { at: number; answer: Promise<unknown> }>();

  constructor(private readonly enabled: () => boolean) {}

  private ask<T>(path: string, params: Params, fallback: T): Promise<T> {
    if (!this.enabled()) return Promise.resolve(fallback);
    const now = Date.now();
    // The window moves in whole minutes so that equal questions stay equal.
    const start = Math.floor((now - LOOKBACK_MS) / 60_000) * 60;
    const full = path === "metadata" ? params : { ...params, start };
    const key = `${path} ${JSON.stringify(full)}`;
    return this.keep(key, () => call<T>(path, full).then((a) => a.data ?? fallback), fallback);
  }

  private keep<T>(key: string, get: () => Promise<T>, fallback: T): Promise<T> {
    const now = Date.now();
    const old = this.kept.get(key);
    if (old && now - old.at < KEEP_MS) return old.answer as Promise<T>;
    const answer = get().catch(() => fallback);
    if (this.kept.size > 200) this.kept.clear();
    this.kept.set(key, { at: now, answer });
    return answer;
  }

  metricNames(prefix = ""): Promise<string[]> {
    const text = prefix.replace(/[^\w:.]/g, "");
    if (!this.enabled()) return Promise.resolve([]);
    if (text.length < 2) return this.ask<string[]>("label/__name__/values", { limit: MOST_UNASKED }, []);
    return this.keep(`names ${text}`, () => searchMetrics(text, MOST_NAMES), []);
  }

  metricMetadata(): Promise<Record<string, MetadataItem[]>> {
    return this.ask<Record<string, MetadataItem[]>>(
      "metadata",
      { limit: MOST_METADATA, limit_per_metric: 1 },
      {},
    );
  }

  labelNames(metric = ""): Promise<string[]> {
    return this.ask<string[]>("labels", { ...matching(metric, []), limit: MOST_VALUES }, []);
  }

  labelValues(label: string, metric = "", matchers: Matcher[] = []): Promise<string[]> {
    const others = matchers.filter((m) => m.name !== label);
    return this.ask<string[]>(
      `label/${encodeURIComponent(escapeName(label))}/values`,
      { ...matching(metric, others), limit: MOST_VALUES },
      [],
    );
  }

  series(metric: string): Promise<Map<string, string>[]> {
    return this.ask<Record<string, string>[]>("series", { ...matching(metric, []), limit: 200 }, []).then(
      (all) => all.map((labels) => new Map(Object.entries(labels))),
    );
  }

  flags(): Promise<Record<string, string>> {
    return Promise.resolve({});
  }

  destroy(): void {
    this.kept.clear();
  }
}

const OPERATORS = new Map<unknown, string>([
  [EqlSingle, "="],
  [Neq, "!="],
  [EqlRegex, "=~"],
  [NeqRegex, "!~"],
]);

function matching(metric: string, matchers: Matcher[]): Params {
  const parts = matchers
    .filter((m) => m.value !== "" && !m.matchesEmpty())
    .map((m) => `${labelName(m.name)}${OPERATORS.get(m.type) ?? "="}${quote(m.value)}`);
  if (metric) parts.unshift(`__name__=${quote(metric)}`);
  return parts.length ? { "match[]": `{${parts.join(",")}}` } : {};
}
