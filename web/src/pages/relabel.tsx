// Relabelling step by step: each rule in words and what it changed.
import { visible } from "../lib/format";
import { useResource } from "../lib/resource";
import type { Labels } from "../lib/types";

export interface RelabelRule {
  source_labels?: string[];
  separator?: string;
  regex?: string;
  modulus?: number;
  target_label?: string;
  replacement?: string;
  action?: string;
}
interface RelabelStep {
  rule: RelabelRule;
  output: Labels;
  keep: boolean;
}

/** One sentence about what a rule does. */
export function sayRule(rule: RelabelRule): string {
  const sources = rule.source_labels ?? [];
  const source = sources.length
    ? sources.length === 1
      ? `the label ${sources[0]}`
      : `the labels ${sources.join(", ")} (joined by "${rule.separator ?? ";"}")`
    : "";
  const any = rule.regex === undefined || rule.regex === "(.*)" || rule.regex === ".*";
  const match = any ? "" : ` matches ${rule.regex}`;
  const target = rule.target_label ?? "";
  switch ((rule.action ?? "replace").toLowerCase()) {
    case "keep":
      return `Keeps the target only if ${source || "nothing"}${match || " has any value"}.`;
    case "drop":
      return `Drops the target if ${source || "nothing"}${match || " has any value"}.`;
    case "keepequal":
      return `Keeps the target only if ${source} equals the label ${target}.`;
    case "dropequal":
      return `Drops the target if ${source} equals the label ${target}.`;
    case "hashmod":
      return `Writes a number from 0 to ${(rule.modulus ?? 1) - 1}, made from ${source}, into ${target}.`;
    case "labelmap":
      return `Copies every label whose name matches ${rule.regex} to ${rule.replacement ?? "$1"}.`;
    case "labeldrop":
      return `Removes every label whose name matches ${rule.regex}.`;
    case "labelkeep":
      return `Removes every label whose name does not match ${rule.regex}.`;
    case "lowercase":
      return `Writes ${source} in small letters into ${target}.`;
    case "uppercase":
      return `Writes ${source} in capitals into ${target}.`;
    default: {
      const value = rule.replacement ?? "$1";
      if (value === "") return `Removes the label ${target}${match ? ` if ${source}${match}` : ""}.`;
      if (!source || (any && !value.includes("$"))) return `Sets ${target} to "${value}".`;
      return any && value === "$1"
        ? `Copies ${source} to ${target}.`
        : `If ${source}${match || " has any value"}, sets ${target} to "${value}".`;
    }
  }
}

export function RelabelSteps({ pool, labels }: { pool: string; labels: Labels }) {
  const steps = useResource<{ steps: RelabelStep[] | null }>("targets/relabel_steps", {
    scrapePool: pool,
    labels: JSON.stringify(labels),
  });
  const all = steps.data?.steps ?? [];
  if (steps.error) return <p class="muted">{steps.error}</p>;
  if (!all.length)
    return <p class="muted">{steps.data ? "This scrape pool has no relabeling rules." : "…"}</p>;
  return (
    <ol class="steps">
      {all.map((s, i) => (
        <li key={i}>
          <bdi>{visible(sayRule(s.rule))}</bdi>
          <details>
            <summary>Rule</summary>
            <code>{ruleText(s.rule)}</code>
          </details>
          <Change before={i ? all[i - 1]!.output : labels} step={s} />
        </li>
      ))}
    </ol>
  );
}

function ruleText(rule: RelabelRule): string {
  return Object.entries(rule)
    .filter(([, v]) => v !== "" && v !== null && !(Array.isArray(v) && v.length === 0))
    .map(([k, v]) => `${k}: ${Array.isArray(v) ? `[${v.join(", ")}]` : visible(String(v))}`)
    .join("  ");
}

function Change({ before, step }: { before: Labels; step: RelabelStep }) {
  if (!step.keep) return <p class="bad-text">The target is dropped here.</p>;
  const names = [...new Set([...Object.keys(before), ...Object.keys(step.output)])].sort();
  // What the server adds before the first rule is no doing of the rule.
  const changed = names.filter(
    (n) => before[n] !== step.output[n] && !(before[n] === undefined && n.startsWith("__")),
  );
  if (!changed.length) return <p class="muted">No change.</p>;
  return (
    <ul class="change">
      {changed.map((n) => (
        <li key={n}>
          <bdi class="l-key">{visible(n)}</bdi>:{" "}
          {before[n] !== undefined && (
            <del>
              <bdi>{visible(before[n])}</bdi>
            </del>
          )}{" "}
          {step.output[n] !== undefined && (
            <ins>
              <bdi>{visible(step.output[n])}</bdi>
            </ins>
          )}
        </li>
      ))}
    </ul>
  );
}
