// Series names and labels as text. Scraped strings pass through `visible` and stay in their own direction-isolated
// element, so that no value can act as markup or reorder what stands beside it.
import { labelName, quote, visible } from "../lib/format";
import type { Labels } from "../lib/types";

/** `name{a="b"}` with the parts told apart by colour. */
export function LabelText(props: { labels: Labels; skip?: Labels | undefined; wrap?: boolean }) {
  const { labels, skip } = props;
  const name = skip && "__name__" in skip ? undefined : labels.__name__;
  const keys = Object.keys(labels)
    .filter((k) => k !== "__name__" && !(skip && k in skip))
    .sort();
  return (
    <span class={`series${props.wrap ? " wrap" : ""}`}>
      {name !== undefined && <bdi class="l-name">{visible(name)}</bdi>}
      {(keys.length > 0 || name === undefined) && <span class="l-punct">{"{"}</span>}
      {keys.map((k, i) => (
        <span key={k}>
          {i > 0 && <span class="l-punct">, </span>}
          <bdi class="l-key">{visible(labelName(k))}</bdi>
          <span class="l-punct">=</span>
          <bdi class="l-value">{visible(quote(labels[k]!))}</bdi>
        </span>
      ))}
      {(keys.length > 0 || name === undefined) && <span class="l-punct">{"}"}</span>}
    </span>
  );
}

const TAIL = 14;

/** A name or an address that loses its middle where there is no room for all of it. */
export function CutText({ text }: { text: string }) {
  const all = [...visible(text)];
  if (all.length <= 2 * TAIL) return <bdi>{all.join("")}</bdi>;
  return (
    <span class="cut" title={all.join("")}>
      <bdi>{all.slice(0, -TAIL).join("")}</bdi>
      <bdi>{all.slice(-TAIL).join("")}</bdi>
    </span>
  );
}

/** Labels as separate chips; a click passes the pair on where the caller can filter by it. */
export function LabelChips(props: {
  labels: Labels;
  onPick?: ((name: string, value: string) => void) | undefined;
}) {
  return (
    <span class="chips">
      {Object.keys(props.labels)
        .sort()
        .map((k) => {
          const body = (
            <>
              <bdi class="l-key">{visible(k)}</bdi>
              <span class="l-punct">=</span>
              <bdi>{visible(props.labels[k]!)}</bdi>
            </>
          );
          return props.onPick ? (
            <button
              type="button"
              class="chip"
              key={k}
              onClick={() => props.onPick?.(k, props.labels[k]!)}
              title="Filter by this label"
            >
              {body}
            </button>
          ) : (
            <span class="chip" key={k}>
              {body}
            </span>
          );
        })}
    </span>
  );
}

/** Labels as a table, a row each. */
export function LabelRows({ labels }: { labels: Labels }) {
  return (
    <table class="label-rows">
      <tbody>
        {Object.keys(labels)
          .sort()
          .map((k) => (
            <tr key={k}>
              <th scope="row">
                {/* Long names break behind their underscores, as long as that is possible. */}
                <bdi>
                  {visible(k)
                    .split(/(?<=_)(?!_|$)/)
                    .map((part, i) => [i > 0 && <wbr key={`${i} break`} />, part])}
                </bdi>
              </th>
              <td>
                <bdi>{visible(labels[k]!)}</bdi>
              </td>
            </tr>
          ))}
      </tbody>
    </table>
  );
}
