// Why a valid query has no result: which selector matches nothing, which of its matchers is to blame, what names come
// near, whether data was there earlier, and which filter or join removed everything.
import { labelName, quote } from "../lib/format";
import { formatDuration } from "../lib/time";
import {
  type BinaryNode,
  flatten,
  isFilter,
  type MatcherNode,
  type Node,
  type SelectorNode,
  selectorText,
  textOf,
  valueType,
} from "./ast";

export interface Finding {
  text: string;
  /** Expressions to try instead. */
  tries: { label: string; expr: string }[];
}

/** What the doctor asks of the server; a test brings its own. */
export interface Patient {
  parse(expr: string): Promise<Node>;
  /** Number of series the expression has at the moment looked at. */
  count(expr: string): Promise<number>;
  /** Label sets of a vector, a few of them. */
  labelNames(expr: string): Promise<string[]>;
  metricsLike(part: string): Promise<string[]>;
  values(label: string, selector: string): Promise<string[]>;
}

const MOST_SELECTORS = 8;
const MOST_NEAR = 5;

export async function diagnose(expr: string, patient: Patient): Promise<Finding[]> {
  const root = await patient.parse(expr);
  const nodes = flatten(root).map((n) => n.node);
  const selectors = nodes.filter(
    (n): n is SelectorNode => n.type === "vectorSelector" || n.type === "matrixSelector",
  );
  const findings: Finding[] = [];
  for (const s of selectors.slice(0, MOST_SELECTORS)) {
    const found = await examine(expr, s, patient);
    if (found) findings.push(found);
  }
  if (findings.length) return findings;
  for (const n of nodes) {
    const found = await examineNode(n, patient);
    if (found) findings.push(found);
    if (findings.length >= 3) break;
  }
  if (!findings.length)
    findings.push({
      text: "Every selector matches something, yet the whole has no result at this time.",
      tries: [],
    });
  return findings;
}

async function examine(expr: string, s: SelectorNode, p: Patient): Promise<Finding | null> {
  const bare = selectorText(s, s.matchers, true);
  const shown = selectorText(s);
  const instant = s.offset || s.timestamp !== null || s.startOrEnd ? shown.replace(/\[[^\]]*\]/, "") : bare;
  if (s.type === "matrixSelector") {
    if ((await p.count(`count_over_time(${shown})`)) > 0) {
      const range = s.range ?? 0;
      if (!(await p.count(`count_over_time(${shown}) > 1`))) {
        const longer = [60_000, 300_000, 900_000, 3_600_000].find((r) => r > range) ?? range * 4;
        return {
          text: `${shown} has only one sample per series: functions such as rate() need two. The range is shorter than two scrape intervals, or the first scrape was only just now.`,
          tries: [
            replacement(
              expr,
              shown,
              shown.replace(`[${formatDuration(range)}]`, `[${formatDuration(longer)}]`),
            ),
          ],
        };
      }
      return null;
    }
  } else if ((await p.count(instant)) > 0) return null;

  const moved = instant !== bare;
  if (moved && (await p.count(bare)) > 0)
    return {
      text: `${bare} has samples now, but none at the time that ${shown} looks at: its data begin later or have a gap there.`,
      tries: [
        replacement(
          expr,
          shown,
          selectorText({ ...s, offset: 0, timestamp: null, startOrEnd: null }),
          "At the time of the query",
        ),
      ],
    };

  // Was it there earlier?
  for (const span of ["1h", "1d", "7d"]) {
    if ((await p.count(`last_over_time(${bare}[${span}])`)) > 0)
      return {
        text: `${shown} has no samples now, but it had some in the last ${span}. Its target may be gone, or the series has ended.`,
        tries: [
          { label: `Newest value of the last ${span}`, expr: `last_over_time(${bare}[${span}])` },
          { label: "State of the targets", expr: "up" },
        ],
      };
  }

  const name = s.matchers.find((m) => m.name === "__name__" && m.type === "=");
  // A metric that has ended is no unknown one: what it had in the last day counts too.
  const seen = async (selector: string) =>
    (await p.count(selector)) || (await p.count(`last_over_time(${selector}[1d])`));
  if (name) {
    const alone = selectorText(s, [name], true);
    if (!(await seen(alone))) return unknownMetric(expr, s, name.value, p);
  }
  for (const m of s.matchers) {
    if (m === name) continue;
    const others = s.matchers.filter((x) => x !== m);
    if (!others.length) continue;
    const rest = selectorText(s, others, true);
    if ((await seen(rest)) > 0) return wrongMatcher(expr, s, m, rest, p);
  }
  return {
    text: `${shown} matches nothing: no single matcher is to blame, several of them do not fit together.`,
    tries: name ? [{ label: "The metric without matchers", expr: selectorText(s, [name], true) }] : [],
  };
}

async function unknownMetric(expr: string, s: SelectorNode, name: string, p: Patient): Promise<Finding> {
  const near = nearest(name, await candidates(name, p));
  return {
    text: `There is no metric named ${name}.${near.length ? " Names that come near:" : ""}`,
    tries: near.map((n) => {
      const renamed: SelectorNode = {
        ...s,
        name: n,
        matchers: s.matchers.map((m) => (m.name === "__name__" ? { ...m, value: n } : m)),
      };
      return replacement(expr, selectorText(s), selectorText(renamed), n);
    }),
  };
}

/** Names that share a good part with the one that was typed: the whole, then its halves and words. */
async function candidates(name: string, p: Patient): Promise<string[]> {
  const words = name.split(/[_:]/).filter((w) => w.length > 2);
  const parts = [
    name,
    ...words.sort((a, b) => b.length - a.length).slice(0, 3),
    name.slice(0, Math.ceil(name.length / 2)),
  ];
  const all = new Set<string>();
  for (const part of parts) {
    for (const n of await p.metricsLike(part)) all.add(n);
    if (all.size > 200) break;
  }
  return [...all];
}

async function wrongMatcher(
  expr: string,
  s: SelectorNode,
  m: MatcherNode,
  rest: string,
  p: Patient,
): Promise<Finding> {
  const values = await p.values(m.name, rest);
  const said = `${labelName(m.name)}${m.type}${quote(m.value)}`;
  if (!values.length) {
    return {
      text: `${rest} exists, but its series have no label ${m.name}.`,
      tries: [
        replacement(
          expr,
          selectorText(s),
          selectorText(
            s,
            s.matchers.filter((x) => x !== m),
          ),
          `Without ${said}`,
        ),
      ],
    };
  }
  const near = nearest(m.value, values);
  const list = (near.length ? near : values).slice(0, MOST_NEAR);
  return {
    text: `${rest} exists, but none of its ${values.length} values of ${m.name} fits ${said}. ${near.length ? "Values that come near:" : "Values it has:"}`,
    tries: [
      ...list.map((v) =>
        replacement(
          expr,
          selectorText(s),
          selectorText(
            s,
            s.matchers.map((x) => (x === m ? { ...m, type: "=" as const, value: v } : x)),
          ),
          v,
        ),
      ),
      replacement(
        expr,
        selectorText(s),
        selectorText(
          s,
          s.matchers.filter((x) => x !== m),
        ),
        `Without ${said}`,
      ),
    ],
  };
}

async function examineNode(n: Node, p: Patient): Promise<Finding | null> {
  if (n.type !== "binaryExpr") return null;
  const both = valueType(n.lhs) === "vector" && valueType(n.rhs) === "vector";
  if (!both) {
    if (!isFilter(n)) return null;
    const side = valueType(n.lhs) === "vector" ? n.lhs : n.rhs;
    const left = await p.count(textOf(side));
    if (left === 0 || (await p.count(textOf(n))) > 0) return null;
    return {
      text: `${textOf(side)} has ${left} series, but for none of them the comparison ${n.op} is true.`,
      tries: [{ label: "Without the comparison", expr: textOf(side) }],
    };
  }
  if (n.op === "or" || n.op === "unless") return null;
  const [l, r] = [await p.count(textOf(n.lhs)), await p.count(textOf(n.rhs))];
  if (l === 0 || r === 0 || (await p.count(textOf(n))) > 0) return null;
  return join(n, l, r, p);
}

async function join(n: BinaryNode, l: number, r: number, p: Patient): Promise<Finding> {
  const [left, right] = [await p.labelNames(textOf(n.lhs)), await p.labelNames(textOf(n.rhs))];
  const only = (a: string[], b: string[]) => a.filter((x) => x !== "__name__" && !b.includes(x));
  const [onlyLeft, onlyRight] = [only(left, right), only(right, left)];
  const shared = left.filter((x) => x !== "__name__" && right.includes(x));
  const differ = [
    onlyLeft.length ? `Only the left has ${onlyLeft.join(", ")}.` : "",
    onlyRight.length ? `Only the right has ${onlyRight.join(", ")}.` : "",
  ]
    .filter(Boolean)
    .join(" ");
  const tries: Finding["tries"] = [];
  if (!n.matching?.on && shared.length && (onlyLeft.length || onlyRight.length)) {
    const on: BinaryNode = {
      ...n,
      matching: {
        card: onlyLeft.length ? "many-to-one" : onlyRight.length ? "one-to-many" : "one-to-one",
        on: true,
        labels: shared,
        include: [],
      },
    };
    const isSet = n.op === "and";
    if (isSet) on.matching!.card = "one-to-one";
    tries.push({ label: `Match on ${shared.join(", ")}`, expr: textOf(on) });
  }
  tries.push(
    { label: "The left side", expr: textOf(n.lhs) },
    { label: "The right side", expr: textOf(n.rhs) },
  );
  return {
    text: `The sides of ${n.op} have ${l} and ${r} series, but no pair of them has the same labels. ${differ}`.trim(),
    tries,
  };
}

function replacement(expr: string, from: string, to: string, label = to): { label: string; expr: string } {
  // The server prints selectors in its own spelling: where the typed text differs, the corrected selector alone helps.
  return { label, expr: expr.includes(from) ? expr.replace(from, () => to) : to };
}

/** The candidates nearest to `text` by edit distance, at most five and none that shares little. */
export function nearest(text: string, all: string[]): string[] {
  const a = text.toLowerCase();
  return all
    .filter((n) => n !== text)
    .map((n) => {
      const b = n.toLowerCase();
      const part = a.length > 2 && (b.includes(a) || a.includes(b)) ? -3 : 0;
      return { n, d: distance(a, b) + part };
    })
    .filter(({ n, d }) => d <= Math.max(2, 0.5 * Math.max(text.length, n.length)))
    .sort((x, y) => x.d - y.d || (x.n < y.n ? -1 : 1))
    .slice(0, MOST_NEAR)
    .map(({ n }) => n);
}

const LONGEST = 120;

/** Levenshtein's distance, with swapped neighbours as one step (optimal string alignment). */
export function distance(a: string, b: string): number {
  const s = a.slice(0, LONGEST);
  const t = b.slice(0, LONGEST);
  let before: number[] = [];
  let row = Array.from({ length: t.length + 1 }, (_, j) => j);
  for (let i = 1; i <= s.length; i++) {
    const next = [i];
    for (let j = 1; j <= t.length; j++) {
      const cost = s[i - 1] === t[j - 1] ? 0 : 1;
      let d = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + cost);
      if (i > 1 && j > 1 && s[i - 1] === t[j - 2] && s[i - 2] === t[j - 1])
        d = Math.min(d, before[j - 2]! + 1);
      next.push(d);
    }
    before = row;
    row = next;
  }
  return row[t.length]!;
}
