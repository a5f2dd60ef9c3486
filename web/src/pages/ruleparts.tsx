// What the pages of alerts and rules share.
import { visible } from "../lib/format";
import type { Labels, Rule, RuleGroup, RulesData } from "../lib/types";
import { CopyButton, type Tone } from "../ui/parts";

export const STATE_TONE: Record<string, Tone> = {
  firing: "bad",
  pending: "warn",
  unknown: "quiet",
  inactive: "good",
};

export interface RuleRow {
  key: string;
  group: string;
  file: string;
  interval: number;
  rule: Rule;
}

export function rulesOf(data: RulesData | undefined): RuleRow[] {
  return (data?.groups ?? []).flatMap((g: RuleGroup) =>
    g.rules.map((rule, i) => ({
      key: `${g.file}\u0000${g.name}\u0000${i}`,
      group: g.name,
      file: g.file,
      interval: g.interval,
      rule,
    })),
  );
}

export function ExprBlock({ expr }: { expr: string }) {
  return (
    <div class="code-box">
      <pre class="code-block">{expr.split("\n").map(visible).join("\n")}</pre>
      <CopyButton text={expr} />
    </div>
  );
}

/** Annotations as text. A value that is a whole web address becomes a link; nothing else does. */
export function Annotations({ annotations }: { annotations: Labels }) {
  const names = Object.keys(annotations).sort();
  if (!names.length) return null;
  return (
    <dl class="facts">
      {names.map((k) => {
        const v = annotations[k]!;
        return [
          <dt key={`${k} name`}>
            <bdi>{visible(k)}</bdi>
          </dt>,
          <dd key={k}>
            {/^https?:\/\/[^\s"'<>]+$/.test(v) ? (
              <a href={v} target="_blank" rel="noreferrer noopener">
                <bdi>{visible(v)}</bdi>
              </a>
            ) : (
              <bdi>{visible(v)}</bdi>
            )}
          </dd>,
        ];
      })}
    </dl>
  );
}
