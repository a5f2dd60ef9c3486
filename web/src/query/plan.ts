// The plan of api/v1/explain beside the syntax tree: which node of one belongs to which of the other.
import type { QueryStats } from "../lib/types";
import { type BinaryNode, children, type Node, textOf, valueType } from "./ast";

export interface PlanNode {
  kind: string;
  name: string;
  text: string;
  constant: boolean;
  series: number;
  samples: number;
  /** Spent here and below, added over all threads. */
  seconds: number;
  ownSeconds: number;
  children: PlanNode[];
}
export interface Explanation {
  plan: PlanNode;
  stats: QueryStats;
}

/** A node of the plan with the part of the syntax tree it stands for, if that can be told. */
export interface Part {
  id: string;
  plan: PlanNode;
  syntax: Node | undefined;
  children: Part[];
}

function bare(n: Node | undefined): Node | undefined {
  let at = n;
  while (at?.type === "parenExpr") at = at.expr;
  return at;
}

/** Walks both trees at once. Where they part (folded constants), the plan goes on alone. */
export function pair(plan: PlanNode, syntax: Node | undefined, id = "0"): Part {
  const node = bare(syntax);
  const below = node ? children(node) : [];
  const fits = below.length === plan.children.length;
  return {
    id,
    plan,
    syntax: node,
    children: plan.children.map((c, i) => pair(c, fits ? below[i] : undefined, `${id}.${i}`)),
  };
}

/** All parts, parents first. */
export function flat(part: Part): Part[] {
  return [part, ...part.children.flatMap(flat)];
}

/** Queries for the series of each side that find no partner on the other; null when the node is no such join. */
export function unmatched(n: Node | undefined): { left: string; right: string } | null {
  if (n?.type !== "binaryExpr" || n.op === "or" || n.op === "unless") return null;
  if (valueType(n.lhs) !== "vector" || valueType(n.rhs) !== "vector") return null;
  return { left: alone(n, n.lhs, n.rhs), right: alone(n, n.rhs, n.lhs) };
}

function alone(n: BinaryNode, a: Node, b: Node): string {
  const unless: BinaryNode = {
    ...n,
    op: "unless",
    bool: false,
    lhs: wrap(a),
    rhs: wrap(b),
    matching: n.matching && { ...n.matching, card: "many-to-many", include: [] },
  };
  return textOf(unless);
}

function wrap(n: Node): Node {
  return n.type === "binaryExpr" || n.type === "unaryExpr" ? { type: "parenExpr", expr: n } : n;
}
