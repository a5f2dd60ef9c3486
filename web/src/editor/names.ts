// What completion may ask of the server. Never "all names of everything": each call has a limit, names and values come
// by what is typed, answers are kept for a while, and a person can switch completion off.
import type { CompletionContext, CompletionResult } from "@codemirror/autocomplete";
import type { CompleteStrategy, PrometheusClient } from "@prometheus-io/codemirror-promql";
import { EqlRegex, EqlSingle, Neq, NeqRegex } from "@prometheus-io/lezer-promql";
import { call, type Params } from "../lib/api";
import { labelName, quote } from "../lib/format";
import { escapeName } from "../lib/names";
import { literal, searchMetrics } from "../lib/search";
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
// What the order of the server counts beside how well a name fits what is typed.
const MOST_BOOST = 40;
// Names that existed in the last hours are enough; asking for all time would open every block.
const LOOKBACK_MS = 12 * 3_600_000;

export class MetricNames implements PrometheusClient {
  private readonly kept = new Map<string, { at: number; answer: Promise<unknown> }>();
  /** What stands between the quote and the cursor. */
  typed = "";
  /** Whether the last answer held all there is, so that more letters need no new question. */
  whole = true;

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
    if (text.length < 2)
      return this.upTo(
        MOST_UNASKED,
        this.ask<string[]>("label/__name__/values", { limit: MOST_UNASKED }, []),
      );
    return this.upTo(
      MOST_NAMES,
      this.keep(`names ${text}`, () => searchMetrics(text, MOST_NAMES), []),
    );
  }

  private async upTo(most: number, answer: Promise<string[]>): Promise<string[]> {
    const names = await answer;
    if (names.length >= most) this.whole = false;
    return names;
  }

  /** Types and help texts, unless there are so many metrics that most of the list would stay without. */
  metricMetadata(): Promise<Record<string, MetadataItem[]>> {
    if (!this.whole) return Promise.resolve({});
    return this.ask<Record<string, MetadataItem[]>>(
      "metadata",
      { limit: MOST_METADATA, limit_per_metric: 1 },
      {},
    );
  }

  labelNames(metric = ""): Promise<string[]> {
    return this.ask<string[]>("labels", { ...matching(metric, []), limit: MOST_VALUES }, []);
  }

  async labelValues(label: string, metric = "", matchers: Matcher[] = []): Promise<string[]> {
    const others = matchers.filter((m) => m.name !== label);
    const { typed } = this;
    const values = (more: string[]) =>
      this.ask<string[]>(
        `label/${encodeURIComponent(escapeName(label))}/values`,
        { ...matching(metric, others, more), limit: MOST_VALUES },
        [],
      );
    const first = await values([]);
    if (first.length < MOST_VALUES || !typed) return this.upTo(MOST_VALUES, Promise.resolve(first));
    // More than a list holds: those that contain what is typed.
    this.whole = false;
    return values([`${labelName(label)}=~${quote(`(?i).*${literal(typed)}.*`)}`]);
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

/**
 * Completion that asks again with each letter as long as the server has more than it sent, and keeps the server's order
 * among names that fit equally well.
 */
export function asking(names: MetricNames, inner: CompleteStrategy): CompleteStrategy {
  return {
    async promQL(context: CompletionContext): Promise<CompletionResult | null> {
      names.typed = context.matchBefore(/["'`][^"'`]*/)?.text.slice(1) ?? "";
      names.whole = true;
      const result = await inner.promQL(context);
      if (!result) return null;
      const count = result.options.length;
      const options = result.options.map((o, i) =>
        o.type === "constant" ? { ...o, boost: MOST_BOOST * (1 - i / count) } : o,
      );
      const { validFor, ...rest } = { ...result, options };
      return names.whole && validFor ? { ...rest, validFor } : rest;
    },
  };
}

function matching(metric: string, matchers: Matcher[], more: string[] = []): Params {
  const parts = matchers
    .filter((m) => m.value !== "" && !m.matchesEmpty())
    .map((m) => `${labelName(m.name)}${OPERATORS.get(m.type) ?? "="}${quote(m.value)}`);
  parts.push(...more);
  if (metric) parts.unshift(`__name__=${quote(metric)}`);
  return parts.length ? { "match[]": `{${parts.join(",")}}` } : {};
}
