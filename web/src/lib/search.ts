// Metric names by a part of them. Where the server ranks names itself (its search API is on), it is asked for the best;
// elsewhere names that begin with the text come first, then those that contain it. Never all names.
import { call, encodeParams } from "./api";
import { urlOf } from "./base";
import { quote } from "./format";

interface Features {
  api?: Record<string, boolean>;
}

let ranking: Promise<boolean> | undefined;

/** Whether the server ranks; asked once. */
function ranks(): Promise<boolean> {
  ranking ??= call<Features>("features").then(
    ({ data }) => data.api?.search === true,
    () => {
      ranking = undefined;
      return false;
    },
  );
  return ranking;
}

// Names that existed in the last hours are enough; asking for all time would open every block.
const LOOKBACK_S = 12 * 3600;

/** The window moves in whole minutes so that equal questions stay equal. */
function start(): number {
  return Math.floor((Date.now() / 1000 - LOOKBACK_S) / 60) * 60;
}

/** The names in an answer of the search API: lines of JSON, each with some results. */
export function readBatches(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    if (line.trim() === "") return [];
    const batch = JSON.parse(line) as { results?: { name: string }[] };
    return (batch.results ?? []).map((r) => r.name);
  });
}

async function ranked(text: string, limit: number, signal?: AbortSignal): Promise<string[]> {
  const query = encodeParams({
    "search[]": text,
    case_sensitive: "false",
    fuzz_alg: "subsequence",
    fuzz_threshold: 1,
    sort_by: "score",
    start: start(),
    limit,
  });
  const response = await fetch(urlOf(`api/v1/search/metric_names?${query}`), {
    ...(signal ? { signal } : {}),
    cache: "no-store",
  });
  if (!response.ok) throw new Error(`search: status ${response.status}`);
  return readBatches(await response.text());
}

async function matching(regex: string, limit: number, signal?: AbortSignal): Promise<string[]> {
  const answer = await call<string[]>(
    "label/__name__/values",
    { "match[]": `{__name__=~${quote(regex)}}`, start: start(), limit },
    signal,
  );
  return answer.data ?? [];
}

/** A text as a regular expression that matches it alone. */
export const literal = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** At most `limit` names for `text`, the best first as far as that is known. */
export async function searchMetrics(text: string, limit: number, signal?: AbortSignal): Promise<string[]> {
  if (await ranks())
    try {
      return await ranked(text, limit, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
    }
  const escaped = text.split(/\s+/).filter(Boolean).map(literal).join(".*");
  // Names that begin with the text are cheap to find; only where they do not fill the list are all names looked through.
  const first = await matching(`${escaped}.*`, limit, signal);
  if (first.length >= limit) return first;
  const rest = await matching(`(?i).*${escaped}.*`, limit, signal);
  return [...new Set([...first, ...rest])].slice(0, limit);
}
