// The query as a tree: each part with a sentence, the number of series it has now, and how long it took.
import { useEffect, useState } from "preact/hooks";
import { ApiError, call, explainError, isAbort } from "../lib/api";
import { full, visible } from "../lib/format";
import { humanDuration } from "../lib/time";
import type { QueryData } from "../lib/types";
import { children, type Node, operator, say, textOf, valueType } from "./ast";
import type { TabProps } from "./PanelView";

interface Measured {
  series: number | string;
  took: number;
  error?: string;
}
// Each part is a query of its own: enough for real queries, bounded for monstrous ones.
const MOST_NODES = 40;

export function ExplainTab({ panel, turn, onFail, onChange }: TabProps) {
  const [root, setRoot] = useState<Node>();
  const [missing, setMissing] = useState("");
  const [facts, setFacts] = useState<Map<Node, Measured>>(new Map());
  useEffect(() => {
    setRoot(undefined);
    setFacts(new Map());
    setMissing("");
    if (!panel.expr) return;
    const stop = new AbortController();
    (async () => {
      const tree = (await call<Node>("parse_query", { query: panel.expr }, stop.signal)).data;
      setRoot(tree);
      onFail(null);
      const queue: Node[] = [];
      const walk: Node[] = [tree];
      while (walk.length && queue.length < MOST_NODES) {
        const n = walk.shift()!;
        if (n.type !== "parenExpr" && !n.type.endsWith("Literal")) queue.push(n);
        walk.push(...children(n));
      }
      await Promise.all(
        [0, 1].map(async () => {
          for (let n = queue.shift(); n; n = queue.shift()) {
            const node = n;
            const measured = await measure(node, panel.moment, stop.signal);
            setFacts((old) => new Map(old).set(node, measured));
          }
        }),
      );
    })().catch((error: unknown) => {
      if (isAbort(error)) return;
      if (error instanceof ApiError && error.status === 404)
        setMissing("This server cannot explain queries.");
      else onFail(error instanceof ApiError ? error : new ApiError("internal", explainError(error), 0));
    });
    return () => stop.abort();
  }, [panel.expr, panel.moment, turn]);
  if (!panel.expr) return <div class="hint">Type an expression and press Enter.</div>;
  return (
    <div class="tab">
      <div class="controls" />
      {missing && <div class="empty">{missing}</div>}
      {root && (
        <ul class="tree" aria-label="Parts of the query">
          <TreeNode node={root} facts={facts} depth={0} onOpen={(expr) => onChange({ expr, tab: "table" })} />
        </ul>
      )}
    </div>
  );
}

const DEEPEST = 60;

function TreeNode(props: {
  node: Node;
  facts: Map<Node, Measured>;
  depth: number;
  onOpen: (expr: string) => void;
}) {
  const { node, facts, depth } = props;
  if (node.type === "parenExpr" && depth < DEEPEST)
    return <TreeNode {...props} node={node.expr} depth={depth + 1} />;
  const text = textOf(node);
  const f = facts.get(node);
  const kids = depth < DEEPEST ? children(node).filter((c) => !c.type.endsWith("Literal")) : [];
  return (
    <li>
      <div class="node">
        <button
          type="button"
          class="plain mono node-expr"
          title="Open this part"
          onClick={() => props.onOpen(text)}
        >
          {node.type === "binaryExpr" ? <b>{operator(node)}</b> : <bdi>{visible(text)}</bdi>}
        </button>
        {f && (
          <span class="node-facts num">
            {f.error ? (
              <span class="bad-text">{f.error}</span>
            ) : (
              <>
                <b class={f.series === 0 ? "bad-text" : ""}>
                  {typeof f.series === "number" ? `${full(f.series)} series` : f.series}
                </b>
                <span class="muted">{humanDuration(f.took / 1000)}</span>
              </>
            )}
          </span>
        )}
        <div class="node-say">{say(node)}</div>
      </div>
      {kids.length > 0 && (
        <ul>
          {kids.map((c, i) => (
            <TreeNode {...props} node={c} depth={depth + 1} key={i} />
          ))}
        </ul>
      )}
    </li>
  );
}

async function measure(node: Node, moment: number | null, signal: AbortSignal): Promise<Measured> {
  const text = textOf(node);
  const type = valueType(node);
  const query =
    type === "matrix" ? `count(count_over_time(${text}))` : type === "vector" ? `count(${text})` : text;
  try {
    const { data, took } = await call<QueryData>(
      "query",
      { query, ...(moment === null ? {} : { time: moment / 1000 }) },
      signal,
    );
    if (data.resultType === "scalar" || data.resultType === "string") return { series: data.result[1], took };
    return { series: data.resultType === "vector" ? Number(data.result[0]?.value?.[1] ?? 0) : 0, took };
  } catch (error) {
    if (isAbort(error)) throw error;
    return { series: 0, took: 0, error: explainError(error) };
  }
}
