// The query as a tree: what each part means, how many series and samples it took, how long, and who found no partner.
import { useEffect, useState } from "preact/hooks";
import { ApiError, call, explainError, isAbort } from "../lib/api";
import { full, short, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { formatTime, humanDuration } from "../lib/time";
import type { Labels, QueryData } from "../lib/types";
import { LabelText } from "../ui/labels";
import { Segments } from "../ui/parts";
import { type Node, operator, say } from "./ast";
import { Busy } from "./Busy";
import { Notes } from "./Notes";
import type { TabProps } from "./PanelView";
import { type Explanation, type Part, type PlanNode, pair, unmatched } from "./plan";
import { stepOf } from "./state";
import { useQuery } from "./useQuery";
import "../styles/pages.css";
import { Hint } from "./late";

type Over = "moment" | "range";

export function ExplainTab(props: TabProps) {
  const { panel, turn, onChange } = props;
  const [over, setOver] = useState<Over>("moment");
  const key = panel.expr
    ? JSON.stringify([panel.expr, over, panel.moment, panel.range, panel.end, turn])
    : "";
  const run = useQuery(
    key,
    0,
    async (signal) => {
      const at = panel.moment ?? Date.now();
      const step = stepOf(panel.resolution, panel.range, 1000);
      const end = panel.end ?? Date.now();
      const times =
        over === "moment"
          ? { time: at / 1000 }
          : { start: (end - panel.range) / 1000, end: end / 1000, step: step / 1000 };
      const [answer, tree] = await Promise.all([
        call<Explanation>("explain", { query: panel.expr, ...times }, signal),
        call<Node>("parse_query", { query: panel.expr }, signal),
      ]);
      return { answer, at: over === "moment" ? at : end, part: pair(answer.data.plan, tree.data) };
    },
    props.onFail,
  );
  const e = run.value;
  if (!panel.expr) return <Hint onTry={(expr) => onChange({ expr })} />;
  return (
    <div class="tab">
      <div class="controls">
        <Segments<Over>
          label="Evaluate"
          value={over}
          options={[
            ["moment", "At one moment"],
            ["range", "Over the graph's range"],
          ]}
          onChange={setOver}
        />
        {e && (
          <span class="muted">
            evaluated in {humanDuration(e.answer.data.plan.seconds)}, at {formatTime(e.at, zone.value)}
          </span>
        )}
      </div>
      <Busy run={run} />
      {e && <Notes answer={e.answer} />}
      {e ? (
        <ul class="tree" aria-label="Parts of the query">
          <TreeNode
            part={e.part}
            whole={e.answer.data.plan.seconds}
            at={e.at}
            onOpen={(expr) => onChange({ expr, tab: "table" })}
          />
        </ul>
      ) : (
        !props.failed && <div class="placeholder" />
      )}
    </div>
  );
}

/** The part's text; long ones are shortened in the middle of the tree, where their parts follow anyway. */
function title(part: Part): string {
  const { plan, syntax } = part;
  if (syntax?.type === "binaryExpr") return operator(syntax);
  return plan.text || plan.name || plan.kind;
}

function TreeNode(props: { part: Part; whole: number; at: number; onOpen: (expr: string) => void }) {
  const { part, whole } = props;
  const { plan, syntax } = part;
  const share = whole > 0 ? plan.ownSeconds / whole : 0;
  const joins = unmatched(syntax);
  const kids = part.children.filter((c) => c.plan.kind !== "number" && c.plan.kind !== "string");
  return (
    <li>
      <div class="node">
        <button
          type="button"
          class="plain mono node-expr"
          title="Open this part in the table"
          onClick={() => props.onOpen(plan.text)}
        >
          {syntax?.type === "binaryExpr" ? (
            <b>{title(part)}</b>
          ) : (
            <bdi>{visible(title(part).replace(/\s+/g, " "))}</bdi>
          )}
        </button>
        <span class="node-facts num">
          <b class={plan.series === 0 ? "bad-text" : ""}>{full(plan.series)} series</b>
          <span>{plan.samples === 1 ? "1 sample" : `${short(plan.samples)} samples`}</span>
          <span title="Time of this part alone, without the parts below">
            {humanDuration(plan.ownSeconds)}
          </span>
          <span
            class="meter small"
            role="img"
            aria-label={`${Math.round(share * 100)} per cent of the whole time`}
          >
            <span style={{ width: `${Math.min(100, 100 * share)}%` }} />
          </span>
        </span>
        <div class="node-say">
          {syntax ? say(syntax) : KINDS[plan.kind]}
          {plan.constant && " The same at every step, so evaluated once."}
        </div>
        {joins && <Unmatched queries={joins} at={props.at} onOpen={props.onOpen} />}
      </div>
      {kids.length > 0 && (
        <ul>
          {kids.map((c) => (
            <TreeNode {...props} part={c} key={c.id} />
          ))}
        </ul>
      )}
    </li>
  );
}

const KINDS: Record<PlanNode["kind"], string> = {
  selector: "The newest sample of every matching series.",
  "range selector": "All samples of every matching series in the range.",
  subquery: "Evaluates the expression again and again.",
};
const MOST_SHOWN = 5;

interface Side {
  count: number;
  some: Labels[];
}

/** What the sides of a join could not pair. */
function Unmatched(props: {
  queries: { left: string; right: string };
  at: number;
  onOpen: (expr: string) => void;
}) {
  const { queries, at } = props;
  const [sides, setSides] = useState<{ left: Side; right: Side }>();
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    setSides(undefined);
    setError("");
    const ask = async (query: string): Promise<Side> => {
      const time = at / 1000;
      const [count, some] = await Promise.all([
        call<QueryData>("query", { query: `count(${query})`, time }, stop.signal),
        call<QueryData>("query", { query, time, limit: MOST_SHOWN }, stop.signal),
      ]);
      const n = count.data.resultType === "vector" ? count.data.result[0]?.value?.[1] : undefined;
      return {
        count: Number(n ?? 0),
        some: some.data.resultType === "vector" ? some.data.result.map((r) => r.metric) : [],
      };
    };
    Promise.all([ask(queries.left), ask(queries.right)]).then(
      ([left, right]) => setSides({ left, right }),
      (e: unknown) => {
        if (!isAbort(e)) setError(e instanceof ApiError ? e.message : explainError(e));
      },
    );
    return () => stop.abort();
  }, [queries.left, queries.right, at]);
  if (error) return <p class="bad-text">{error}</p>;
  if (!sides) return null;
  if (!sides.left.count && !sides.right.count)
    return <p class="good-text">Every series of both sides has a partner.</p>;
  const list = (name: string, side: Side, query: string) =>
    side.count > 0 && (
      <div>
        <button type="button" class="link" onClick={() => props.onOpen(query)}>
          {full(side.count)} on the {name} without a partner
        </button>
        <ul class="alone">
          {side.some.map((labels) => (
            <li key={JSON.stringify(labels)}>
              <LabelText labels={labels} wrap />
            </li>
          ))}
          {side.count > side.some.length && (
            <li class="muted">and {full(side.count - side.some.length)} more</li>
          )}
        </ul>
      </div>
    );
  return (
    <div class="unmatched">
      {list("left", sides.left, queries.left)}
      {list("right", sides.right, queries.right)}
    </div>
  );
}
