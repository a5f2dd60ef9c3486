import { describe, expect, it } from "vitest";
import { flatten, type Node, say, textOf } from "../src/query/ast";
import { diagnose, distance, nearest, type Patient } from "../src/query/doctor";

const sel = (
  name: string,
  matchers: [string, "=" | "!=" | "=~" | "!~", string][] = [],
  range?: number,
): Node => ({
  type: range ? "matrixSelector" : "vectorSelector",
  name,
  offset: 0,
  timestamp: null,
  startOrEnd: null,
  ...(range ? { range } : {}),
  matchers: [
    ...matchers.map(([n, type, value]) => ({ name: n, type, value })),
    { name: "__name__", type: "=" as const, value: name },
  ],
});
const div = (lhs: Node, rhs: Node, op = "/"): Node => ({
  type: "binaryExpr",
  op,
  lhs,
  rhs,
  bool: false,
  matching: { card: "one-to-one", labels: [], on: false, include: [] },
});

describe("text of a tree", () => {
  it("prints PromQL", () => {
    const tree: Node = {
      type: "aggregation",
      op: "sum",
      grouping: ["job"],
      without: false,
      param: null,
      expr: {
        type: "call",
        func: { name: "rate", returnType: "vector" },
        args: [sel("x", [["a", "=~", "b|c"]], 300_000)],
      },
    };
    expect(textOf(tree)).toBe('sum by (job) (rate(x{a=~"b|c"}[5m]))');
    expect(say(tree)).toBe("Adds up series with the same job.");
    expect(flatten(tree)).toHaveLength(3);
  });
  it("prints joins", () => {
    const join = div(sel("a"), sel("b")) as Extract<Node, { type: "binaryExpr" }>;
    join.matching = { card: "many-to-one", on: true, labels: ["job"], include: ["v"] };
    expect(textOf(join)).toBe("a / on (job) group_left (v) b");
  });
});

describe("near names", () => {
  it("measures distance with swapped letters as one", () => {
    expect(distance("kitten", "sitting")).toBe(3);
    expect(distance("ndoe", "node")).toBe(1);
    expect(distance("", "abc")).toBe(3);
  });
  it("ranks and leaves strangers out", () => {
    expect(nearest("nod_load1", ["node_load1", "node_load15", "zzz"])).toEqual(["node_load1", "node_load15"]);
  });
});

/** A server whose expressions with data are listed. */
function patient(tree: Node, counts: Record<string, number>, more: Partial<Patient> = {}): Patient {
  return {
    parse: async () => tree,
    count: async (expr) => counts[expr] ?? 0,
    labelNames: async () => [],
    metricsLike: async () => [],
    values: async () => [],
    ...more,
  };
}

describe("the doctor", () => {
  it("blames the matcher of a metric that has ended, not its name", async () => {
    const p = patient(
      sel("requests_total", [["code", "=", "418"]]),
      { "last_over_time(requests_total[1d])": 3 },
      { values: async () => ["200", "404"] },
    );
    const [f] = await diagnose('requests_total{code="418"}', p);
    expect(f?.text).toContain("none of its 2 values of code fits");
  });
  it("names an unknown metric and those that come near", async () => {
    const p = patient(sel("nod_load1"), {}, { metricsLike: async () => ["node_load1", "up"] });
    const [f] = await diagnose("nod_load1", p);
    expect(f!.text).toContain("no metric named nod_load1");
    expect(f!.tries).toEqual([{ label: "node_load1", expr: "node_load1" }]);
  });
  it("finds the matcher to blame and values that come near", async () => {
    const tree = sel("up", [["job", "=", "ndoe"]]);
    const p = patient(tree, { up: 3 }, { values: async () => ["node", "prometheus"] });
    const [f] = await diagnose('up{job="ndoe"}', p);
    expect(f!.text).toContain('none of its 2 values of job fits job="ndoe"');
    expect(f!.tries.map((t) => t.expr)).toEqual(['up{job="node"}', "up"]);
  });
  it("says when data was there earlier", async () => {
    const p = patient(sel("gone"), { "last_over_time(gone[1d])": 2 });
    const [f] = await diagnose("gone", p);
    expect(f!.text).toContain("had some in the last 1d");
  });
  it("tells a moment without data from a metric without data", async () => {
    const tree = { ...sel("up"), offset: 86_400_000 } as Node;
    const [f] = await diagnose("up offset 1d", patient(tree, { up: 3 }));
    expect(f!.text).toContain("up has samples now, but none at the time that up offset 1d looks at");
    expect(f!.tries[0]!.expr).toBe("up");
  });
  it("sees a range shorter than two scrapes", async () => {
    const tree: Node = {
      type: "call",
      func: { name: "rate", returnType: "vector" },
      args: [sel("x", [], 15_000)],
    };
    const p = patient(tree, { "count_over_time(x[15s])": 4 });
    const [f] = await diagnose("rate(x[15s])", p);
    expect(f!.text).toContain("only one sample per series");
    expect(f!.tries[0]!.expr).toBe("rate(x[1m])");
  });
  it("sees a filter that lets nothing through", async () => {
    const tree: Node = {
      ...(div(sel("up"), { type: "numberLiteral", val: "5" }, ">") as object),
      matching: null,
    } as Node;
    const [f] = await diagnose("up > 5", patient(tree, { up: 3 }));
    expect(f!.text).toContain("for none of them the comparison > is true");
  });
  it("explains sides that do not match", async () => {
    const p = patient(
      div(sel("a"), sel("b")),
      { a: 2, b: 1 },
      {
        labelNames: async (e) => (e === "a" ? ["__name__", "job", "pod"] : ["__name__", "job"]),
      },
    );
    const [f] = await diagnose("a / b", p);
    expect(f!.text).toContain("Only the left has pod.");
    expect(f!.tries[0]!.expr).toBe("a / on (job) group_left () b");
  });
});
