// Warnings and infos of an answer.
import { useState } from "preact/hooks";
import type { Answer } from "../lib/api";
import { visible } from "../lib/format";
import { Icon } from "../ui/icons";

const BIG = 5 * 1024 * 1024;

export function Notes({ answer }: { answer: Answer<unknown> }) {
  const [more, setMore] = useState(false);
  const all = [
    ...answer.warnings.map((text): ["warn" | "info", string] => ["warn", text]),
    ...answer.infos.map((text): ["warn" | "info", string] => ["info", text]),
  ];
  if (answer.bytes > BIG)
    all.push([
      "warn",
      `The answer has ${Math.round(answer.bytes / 1024 / 1024)} MiB: an aggregation or a narrower selector would be quicker.`,
    ]);
  if (!all.length) return null;
  const shown = more ? all : all.slice(0, 2);
  return (
    <ul class="notes">
      {shown.map(([kind, text]) => (
        <li key={text} class={kind}>
          <Icon name={kind} size={14} />
          <bdi>{visible(text)}</bdi>
        </li>
      ))}
      {all.length > shown.length && (
        <li>
          <button type="button" class="link" onClick={() => setMore(true)}>
            {all.length - shown.length} more
          </button>
        </li>
      )}
    </ul>
  );
}
