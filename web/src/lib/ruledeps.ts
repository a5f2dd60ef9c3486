// Which rules read what other rules write.
import type { RuleRow } from "../pages/ruleparts";

export interface Links {
  /** Rules whose results this one reads. */
  reads: RuleRow[];
  /** Rules that read the result of this one. */
  readBy: RuleRow[];
  /** Why results may be one evaluation old, in words; empty when they are fresh. */
  late: string;
}

/** Names of series in an expression: identifiers outside of strings, comments and calls. */
export function namesIn(expr: string): Set<string> {
  const bare = expr
    .replace(/#[^\n]*/g, " ")
    .replace(/\{\s*(["'])((?:(?!\1)[^\\]|\\.)*)\1(?=\s*[,}])/g, " $2 {")
    .replace(/__name__\s*=\s*(["'])((?:(?!\1)[^\\]|\\.)*)\1/g, " $2 ")
    .replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/g, " ");
  const out = new Set<string>();
  for (const m of bare.matchAll(/[a-zA-Z_:][\w:.]*/g)) {
    const rest = bare.slice(m.index + m[0].length);
    if (!/^\s*\(/.test(rest)) out.add(m[0]);
  }
  return out;
}

/** Names of alerts that an expression asks ALERTS for. */
function alertsIn(expr: string): Set<string> {
  const out = new Set<string>();
  for (const m of expr.matchAll(/ALERTS(?:_FOR_STATE)?\s*\{[^}]*alertname\s*=\s*"([^"]*)"/g)) out.add(m[1]!);
  return out;
}

/** The links of every rule, by its key. */
export function linksOf(rules: RuleRow[]): Map<string, Links> {
  const writers = new Map<string, RuleRow[]>();
  const add = (name: string, r: RuleRow) => writers.set(name, [...(writers.get(name) ?? []), r]);
  for (const r of rules) add(r.rule.type === "recording" ? r.rule.name : `alert ${r.rule.name}`, r);
  const links = new Map<string, Links>(rules.map((r) => [r.key, { reads: [], readBy: [], late: "" }]));
  const place = new Map(rules.map((r, i) => [r.key, i]));
  for (const r of rules) {
    const mine = links.get(r.key)!;
    const wanted = [...namesIn(r.rule.query), ...[...alertsIn(r.rule.query)].map((a) => `alert ${a}`)];
    for (const name of wanted)
      for (const w of writers.get(name) ?? []) {
        if (w === r) continue;
        mine.reads.push(w);
        links.get(w.key)!.readBy.push(r);
      }
    const own = mine.reads.find(
      (w) => w.group === r.group && w.file === r.file && place.get(w.key)! > place.get(r.key)!,
    );
    const other = mine.reads.find(
      (w) => (w.group !== r.group || w.file !== r.file) && w.interval > r.interval,
    );
    if (own) mine.late = `${own.rule.name} stands later in the same group: this rule reads its last result.`;
    else if (other)
      mine.late = `${other.rule.name} is evaluated less often than this rule: its result may be old.`;
  }
  return links;
}
