// What an alerting expression compares with what: to draw the value beside its limit.
import { isFilter, type Node, textOf, valueType } from "./ast";

export interface Threshold {
  /** The side that varies. */
  expr: string;
  /** The limit, when it is a number. */
  level: number | null;
  op: string;
}

function bare(n: Node): Node {
  return n.type === "parenExpr" ? bare(n.expr) : n;
}

function constant(n: Node): number | null {
  const b = bare(n);
  if (b.type === "numberLiteral") return Number(b.val);
  if (b.type === "unaryExpr") {
    const v = constant(b.expr);
    return v === null ? null : b.op === "-" ? -v : v;
  }
  if (b.type === "binaryExpr") {
    const [l, r] = [constant(b.lhs), constant(b.rhs)];
    if (l === null || r === null) return null;
    if (b.op === "*") return l * r;
    if (b.op === "/") return l / r;
    if (b.op === "+") return l + r;
    if (b.op === "-") return l - r;
  }
  return null;
}

/** The first comparison with a number, seen from the top; the whole expression when there is none. */
export function threshold(root: Node): Threshold {
  let n = bare(root);
  // "a > 1 and b > 2": the left side carries the value.
  while (n.type === "binaryExpr" && (n.op === "and" || n.op === "unless" || n.op === "or")) n = bare(n.lhs);
  if (n.type === "binaryExpr" && isFilter(n)) {
    const right = constant(n.rhs);
    const left = constant(n.lhs);
    if (right !== null) return { expr: textOf(n.lhs), level: right, op: n.op };
    if (left !== null) return { expr: textOf(n.rhs), level: left, op: n.op };
    if (valueType(n.lhs) === "vector") return { expr: textOf(n.lhs), level: null, op: n.op };
  }
  return { expr: textOf(root), level: null, op: "" };
}
