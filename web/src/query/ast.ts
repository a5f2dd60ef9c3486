// The syntax tree of api/v1/parse_query: its shape, its text, and what each node means in words.
import { labelName, quote } from "../lib/format";
import { formatDuration } from "../lib/time";

export interface MatcherNode {
  name: string;
  type: "=" | "!=" | "=~" | "!~";
  value: string;
}
interface At {
  offset: number;
  timestamp: number | null;
  startOrEnd: "start" | "end" | null;
}
export interface SelectorNode extends At {
  type: "vectorSelector" | "matrixSelector";
  name: string;
  matchers: MatcherNode[];
  range?: number;
}
export interface SubqueryNode extends At {
  type: "subquery";
  expr: Node;
  range: number;
  step: number;
}
export interface CallNode {
  type: "call";
  func: { name: string; returnType: string };
  args: Node[];
}
export interface AggregationNode {
  type: "aggregation";
  op: string;
  expr: Node;
  param: Node | null;
  grouping: string[];
  without: boolean;
}
export interface Matching {
  card: "one-to-one" | "many-to-one" | "one-to-many" | "many-to-many";
  labels: string[] | null;
  on: boolean;
  include: string[] | null;
}
export interface BinaryNode {
  type: "binaryExpr";
  op: string;
  lhs: Node;
  rhs: Node;
  matching: Matching | null;
  bool: boolean;
}
export type Node =
  | SelectorNode
  | SubqueryNode
  | CallNode
  | AggregationNode
  | BinaryNode
  | { type: "unaryExpr"; op: string; expr: Node }
  | { type: "parenExpr"; expr: Node }
  | { type: "numberLiteral" | "stringLiteral"; val: string }
  | { type: "placeholder"; children?: Node[] };

export type ValueType = "vector" | "matrix" | "scalar" | "string";

export function children(n: Node): Node[] {
  switch (n.type) {
    case "call":
      return n.args;
    case "aggregation":
      return n.param ? [n.param, n.expr] : [n.expr];
    case "binaryExpr":
      return [n.lhs, n.rhs];
    case "unaryExpr":
    case "parenExpr":
    case "subquery":
      return [n.expr];
    default:
      return [];
  }
}

export function valueType(n: Node): ValueType {
  switch (n.type) {
    case "matrixSelector":
    case "subquery":
      return "matrix";
    case "numberLiteral":
      return "scalar";
    case "stringLiteral":
      return "string";
    case "call":
      return n.func.returnType as ValueType;
    case "unaryExpr":
    case "parenExpr":
      return valueType(n.expr);
    case "binaryExpr":
      return valueType(n.lhs) === "scalar" && valueType(n.rhs) === "scalar" ? "scalar" : "vector";
    default:
      return "vector";
  }
}

function names(labels: string[] | null): string {
  return (labels ?? []).map(labelName).join(", ");
}

function suffix(n: At): string {
  let out = "";
  if (n.timestamp !== null && n.timestamp !== undefined) out += ` @ ${(n.timestamp / 1000).toFixed(3)}`;
  else if (n.startOrEnd) out += ` @ ${n.startOrEnd}()`;
  if (n.offset) out += ` offset ${formatDuration(n.offset)}`;
  return out;
}

export function matcherText(m: MatcherNode): string {
  return `${labelName(m.name)}${m.type}${quote(m.value)}`;
}

export function selectorText(n: SelectorNode, matchers = n.matchers, bare = false): string {
  const named = n.name !== "" && /^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(n.name);
  const rest = matchers.filter((m) => !(named && m.name === "__name__" && m.type === "="));
  const head = named && matchers.some((m) => m.name === "__name__") ? n.name : "";
  const parts = rest.map((m) => (m.name === "__name__" && m.type === "=" ? quote(m.value) : matcherText(m)));
  const text = parts.length || !head ? `${head}{${parts.join(", ")}}` : head;
  if (bare) return text;
  return `${text}${n.type === "matrixSelector" ? `[${formatDuration(n.range ?? 0)}]` : ""}${suffix(n)}`;
}

/** PromQL text of the node. */
export function textOf(n: Node): string {
  switch (n.type) {
    case "vectorSelector":
    case "matrixSelector":
      return selectorText(n);
    case "subquery":
      return `${textOf(n.expr)}[${formatDuration(n.range)}:${n.step ? formatDuration(n.step) : ""}]${suffix(n)}`;
    case "call":
      return `${n.func.name}(${n.args.map(textOf).join(", ")})`;
    case "aggregation": {
      const by =
        n.without || n.grouping.length ? ` ${n.without ? "without" : "by"} (${names(n.grouping)})` : "";
      return `${n.op}${by} (${n.param ? `${textOf(n.param)}, ` : ""}${textOf(n.expr)})`;
    }
    case "binaryExpr":
      return `${textOf(n.lhs)} ${operator(n)} ${textOf(n.rhs)}`;
    case "unaryExpr":
      return `${n.op}${textOf(n.expr)}`;
    case "parenExpr":
      return `(${textOf(n.expr)})`;
    case "numberLiteral":
      return n.val;
    case "stringLiteral":
      return quote(n.val);
    default:
      return "";
  }
}

/** The operator with its modifiers, such as `/ on (job) group_left ()`. */
export function operator(n: BinaryNode): string {
  let out = n.op + (n.bool ? " bool" : "");
  const m = n.matching;
  if (!m) return out;
  if (m.on || m.labels?.length) out += ` ${m.on ? "on" : "ignoring"} (${names(m.labels)})`;
  if (m.card === "many-to-one") out += ` group_left (${names(m.include)})`;
  if (m.card === "one-to-many") out += ` group_right (${names(m.include)})`;
  return out;
}

const FUNCTIONS: Record<string, string> = {
  rate: "Growth per second over the range, resets of the counter taken into account.",
  irate: "Growth per second between the last two samples of the range.",
  increase: "Growth over the range, resets of the counter taken into account.",
  delta: "Difference between the ends of the range. For gauges.",
  deriv: "Slope per second of a line fitted through the range. For gauges.",
  histogram_quantile:
    "The value below which the given part of the observations lies, estimated from buckets.",
  absent: "1 when its argument is empty, otherwise nothing.",
  avg_over_time: "Mean of each series over the range.",
  max_over_time: "Largest sample of each series in the range.",
  min_over_time: "Smallest sample of each series in the range.",
  sum_over_time: "Sum of the samples of each series in the range.",
  count_over_time: "Number of samples of each series in the range.",
  last_over_time: "Newest sample of each series in the range.",
  label_replace: "Writes a label from another one by a regular expression.",
  label_join: "Writes a label by joining others.",
  clamp_min: "Raises values below the limit to it.",
  clamp_max: "Lowers values above the limit to it.",
  predict_linear: "Value expected in the given number of seconds if the trend of the range goes on.",
  time: "The moment of evaluation, in Unix seconds.",
  vector: "A single series without labels.",
  scalar: "The value of the only series; NaN if there is none or more than one.",
  sort: "Sorted by value, lowest first.",
  sort_desc: "Sorted by value, highest first.",
  changes: "How often the value changed in the range.",
  resets: "How often the counter was reset in the range.",
};

const AGGREGATIONS: Record<string, string> = {
  sum: "Adds up",
  avg: "Averages",
  min: "Takes the smallest of",
  max: "Takes the largest of",
  count: "Counts",
  group: "Lists the groups of",
  stddev: "Standard deviation of",
  stdvar: "Variance of",
  topk: "Keeps the highest series of",
  bottomk: "Keeps the lowest series of",
  quantile: "Quantile over",
  count_values: "Counts equal values of",
  limitk: "Keeps some series of",
  limit_ratio: "Keeps a part of the series of",
};

/** One sentence about what the node does. */
export function say(n: Node): string {
  switch (n.type) {
    case "vectorSelector":
      return "The newest sample of every matching series.";
    case "matrixSelector":
      return `All samples of every matching series in the ${formatDuration(n.range ?? 0)} before each moment.`;
    case "subquery":
      return `Evaluates the expression again and again over ${formatDuration(n.range)}.`;
    case "call":
      return FUNCTIONS[n.func.name] ?? `Applies ${n.func.name} to each series.`;
    case "aggregation": {
      const what = AGGREGATIONS[n.op] ?? n.op;
      if (n.without)
        return n.grouping.length
          ? `${what} series that agree in all labels except ${n.grouping.join(", ")}.`
          : `${what} series that agree in all labels.`;
      return n.grouping.length
        ? `${what} series with the same ${n.grouping.join(", ")}.`
        : `${what} all series.`;
    }
    case "binaryExpr":
      return sayBinary(n);
    case "unaryExpr":
      return n.op === "-" ? "Changes the sign." : "Leaves the value as it is.";
    case "parenExpr":
      return "Grouping only.";
    default:
      return "A constant.";
  }
}

const FILTERS = new Set(["==", "!=", ">", "<", ">=", "<="]);

export function isFilter(n: Node): boolean {
  return n.type === "binaryExpr" && FILTERS.has(n.op) && !n.bool;
}

function sayBinary(n: BinaryNode): string {
  const both = valueType(n.lhs) === "vector" && valueType(n.rhs) === "vector";
  if (!both) {
    if (isFilter(n)) return "Keeps the series for which the comparison is true.";
    return n.bool ? "1 where the comparison is true, otherwise 0." : "Calculates with each value.";
  }
  const m = n.matching;
  const key = m?.on
    ? `the same ${m.labels?.length ? m.labels.join(", ") : "(no) labels"}`
    : m?.labels?.length
      ? `the same labels apart from ${m.labels.join(", ")}`
      : "exactly the same labels";
  if (n.op === "and") return `Keeps series of the left that have a partner on the right with ${key}.`;
  if (n.op === "or")
    return `All series of the left, and those of the right that have no partner with ${key}.`;
  if (n.op === "unless") return `Keeps series of the left that have no partner on the right with ${key}.`;
  const many =
    m?.card === "many-to-one"
      ? " Many series on the left may share one on the right."
      : m?.card === "one-to-many"
        ? " Many series on the right may share one on the left."
        : "";
  return `Pairs series that have ${key}${isFilter(n) ? " and keeps the left one where the comparison is true" : ""}.${many}`;
}

/** Every node with its depth, parents before children; stops at `most`. */
export function flatten(root: Node, most = 200): { node: Node; depth: number }[] {
  const out: { node: Node; depth: number }[] = [];
  const todo: { node: Node; depth: number }[] = [{ node: root, depth: 0 }];
  while (todo.length && out.length < most) {
    const next = todo.pop()!;
    out.push(next);
    for (const c of [...children(next.node)].reverse()) todo.push({ node: c, depth: next.depth + 1 });
  }
  return out;
}
