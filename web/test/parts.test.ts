import { describe, expect, it } from "vitest";
import { yRange } from "../src/chart/TimeChart";
import { diffLines, folded } from "../src/lib/diff";
import { bytesPerSample, forecast, readRetention } from "../src/lib/forecast";
import { readOpenApi } from "../src/lib/openapi";
import { readBatches } from "../src/lib/search";
import { readLabelled } from "../src/lib/selfmetrics";
import { queueState, rowsBy } from "../src/pages/delivery";
import { factOf } from "../src/pages/status";
import type { Node } from "../src/query/ast";
import { type Exemplar, thin, traceUrl } from "../src/query/exemplars";
import { alertRule, grafanaPanel } from "../src/query/export";
import { type PlanNode, pair, unmatched } from "../src/query/plan";
import { gaps, spacing } from "../src/query/raw";
import { recordName } from "../src/query/StatsTab";
import { afterEvent } from "../src/ui/notices";
import { rank } from "../src/ui/Palette";
import { begun, sparkFloor } from "../src/ui/Spark";

describe("exemplars", () => {
  const at = (time: number, value: number): Exemplar => ({ series: {}, labels: {}, time, value });
  it("lead to traces by a template or by an address of their own", () => {
    expect(traceUrl("https://t/{trace_id}?a={b}", { trace_id: "x/y", b: "1" })).toBe("https://t/x%2Fy?a=1");
    expect(traceUrl("https://t/{absent}", { trace_id: "x" })).toBe("");
    expect(traceUrl("javascript:{trace_id}", { trace_id: "alert(1)" })).toBe("");
    expect(traceUrl("", { url: "https://t/1" })).toBe("https://t/1");
    expect(traceUrl("", {})).toBe("");
  });
  it("are thinned to the highest and the middle of each slice", () => {
    const all = Array.from({ length: 1000 }, (_, i) => at(i / 10, i % 10));
    const shown = thin(all, 0, 100_000);
    expect(shown.length).toBeLessThanOrEqual(122);
    expect(shown.some((e) => e.value === 9)).toBe(true);
    expect(thin([at(1, 1), at(2, 2)], 0, 10_000)).toHaveLength(2);
  });
});

describe("what leaves the query page", () => {
  it("is a panel that Grafana reads", () => {
    const panel = JSON.parse(grafanaPanel('a{b="c"}', "stacked", false));
    expect(panel.type).toBe("timeseries");
    expect(panel.targets[0].expr).toBe('a{b="c"}');
    expect(panel.fieldConfig.defaults.custom.stacking.mode).toBe("normal");
    expect(JSON.parse(grafanaPanel("h", "auto", true)).type).toBe("heatmap");
  });
  it("is a rule whose expression keeps its lines", () => {
    expect(alertRule("a\n  > 1")).toContain(
      "        expr: |-\n          a\n            > 1\n        for: 5m",
    );
  });
});

describe("raw samples", () => {
  it("tell their distances and gaps", () => {
    const times = [0, 10, 20, 30, 60, 70];
    expect(spacing(times)).toEqual({ median: 10, min: 10, max: 30, gaps: 1 });
    expect(gaps(times)).toEqual([4]);
    expect(spacing([5]).gaps).toBe(0);
  });
});

describe("plans", () => {
  const number = (val: string): Node => ({ type: "numberLiteral", val });
  const plan = (kind: string, children: PlanNode[] = []): PlanNode => ({
    kind,
    name: "",
    text: kind,
    constant: false,
    series: 1,
    samples: 1,
    seconds: 1,
    ownSeconds: 1,
    children,
  });
  it("are paired with the tree of the text as far as both agree", () => {
    const tree: Node = {
      type: "parenExpr",
      expr: { type: "unaryExpr", op: "-", expr: { type: "parenExpr", expr: number("1") } },
    };
    const part = pair(plan("negation", [plan("number")]), tree);
    expect(part.syntax?.type).toBe("unaryExpr");
    expect(part.children[0]!.syntax?.type).toBe("numberLiteral");
    expect(pair(plan("number"), tree).children).toEqual([]);
    expect(pair(plan("x", [plan("y"), plan("z")]), tree).children[1]!.syntax).toBeUndefined();
  });
  it("name the series without a partner", () => {
    const series = (name: string): Node => ({
      type: "vectorSelector",
      name,
      matchers: [{ name: "__name__", type: "=", value: name }],
      offset: 0,
      timestamp: null,
      startOrEnd: null,
    });
    const join: Node = {
      type: "binaryExpr",
      op: "/",
      lhs: series("a"),
      rhs: { type: "parenExpr", expr: series("b") },
      matching: { card: "many-to-one", labels: ["job"], on: true, include: ["x"] },
      bool: false,
    };
    expect(unmatched(join)).toEqual({
      left: "a unless on (job) (b)",
      right: "(b) unless on (job) a",
    });
    expect(unmatched({ ...join, op: "or" } as Node)).toBeNull();
    expect(unmatched({ ...join, rhs: number("1") } as Node)).toBeNull();
  });
  it("suggest names for recording rules", () => {
    expect(recordName("sum by (job, path) (rate(http_requests_total[5m]))")).toBe(
      "job_path:http_requests_total:sum_rate",
    );
  });
});

describe("the vertical axis", () => {
  it("begins where it is told", () => {
    expect(yRange(5, 10, 0)[0]).toBe(0);
    expect(yRange(-5, 10, 0)[0]).toBe(-5);
    expect(yRange(5, 10, 7)[0]).toBe(7);
    expect(yRange(5, 10, null)[0]).toBeCloseTo(4.7);
    expect(yRange(null, null, 3)).toEqual([3, 4]);
    expect(yRange(5, 5, null)).toEqual([4.5, 5.5]);
  });
});

describe("disk in the future", () => {
  const block = (numBytes: number, numSamples: number) => ({
    ulid: "",
    minTime: 0,
    maxTime: 1,
    stats: { numBytes, numSamples },
  });
  it("follows from the size of a sample, the rate and the retention", () => {
    expect(bytesPerSample([block(100, 400), block(300, 400)])).toBe(0.5);
    expect(bytesPerSample([])).toBeNull();
    expect(readRetention("15d or 1GiB")).toEqual({
      time: 15 * 86_400_000,
      bytes: 2 ** 30,
      text: "15d or 1GiB",
    });
    expect(forecast([block(1, 2)], 1000, readRetention("10d"))).toEqual({
      perDay: 43_200_000,
      full: 432_000_000,
      bySize: false,
    });
    expect(forecast([block(1, 2)], 1e6, readRetention("10d or 1GiB"))!.bySize).toBe(true);
    expect(forecast([], 1000, readRetention("10d"))).toBeNull();
  });
});

describe("differences of configurations", () => {
  it("are found and folded", () => {
    const before = ["a", "b", "c", "d"].join("\n");
    const after = ["a", "x", "c", "d", "e"].join("\n");
    expect(diffLines(before, after).filter((l) => l.kind !== "same")).toEqual([
      { kind: "gone", text: "b" },
      { kind: "new", text: "x" },
      { kind: "new", text: "e" },
    ]);
    const long = Array.from({ length: 50 }, (_, i) => String(i)).join("\n");
    expect(folded(diffLines(long, `${long}\nend`))[0]).toEqual({ kind: "fold", count: 47 });
    expect(folded(diffLines(long, long))).toEqual([{ kind: "fold", count: 50 }]);
  });
});

describe("the description of the API", () => {
  it("is read from the YAML of the server", () => {
    const all = readOpenApi(`openapi: 3.1.0
info:
  title: x
  description: |
    several: lines
      of: text
components:
  parameters:
    limit:
      name: limit
      in: query
      description: "At most: this many"
paths:
  /api/v1/query:
    get:
      summary: "Evaluate: it"
      parameters:
        - name: query
          in: query
          required: true
          schema: { type: string }
        - $ref: "#/components/parameters/limit"
      responses:
        "200":
          description: Success
    post:
      summary: Other
  /api/v1/label/{name}/values:
    get:
      parameters:
      - { name: name, in: path, required: true }
`);
    expect(all.map((o) => `${o.method} ${o.path}`)).toEqual([
      "get /api/v1/query",
      "post /api/v1/query",
      "get /api/v1/label/{name}/values",
    ]);
    expect(all[0]!.summary).toBe("Evaluate: it");
    expect(all[0]!.parameters).toEqual([
      { name: "query", in: "query", required: true, description: "" },
      { name: "limit", in: "query", required: false, description: "At most: this many" },
    ]);
    expect(all[2]!.parameters[0]!.in).toBe("path");
  });
  it("survives what it does not know", () => {
    expect(readOpenApi("")).toEqual([]);
    expect(readOpenApi("paths: [1, 2]\n{{{\n- - -\n\t:::")).toEqual([]);
  });
});

describe("own metrics with labels", () => {
  it("are read and summed by a label", () => {
    const text = '# HELP a b\na{url="x\\"y",quantile="0.9"} 2\na{url="x\\"y"} 3\nb 1\nab{url="z"} 4\n';
    const all = readLabelled(text, new Set(["a", "b"]));
    expect(all).toEqual([
      { name: "a", labels: { url: 'x"y', quantile: "0.9" }, value: 2 },
      { name: "a", labels: { url: 'x"y' }, value: 3 },
      { name: "b", labels: {}, value: 1 },
    ]);
    expect(rowsBy(all, (l) => l.url)[0]!.values).toEqual(
      new Map([
        ["a 0.9", 2],
        ["a", 3],
      ]),
    );
  });
  it("draw what is steady as steady", () => {
    expect(sparkFloor(0.9995, 1)).toBe(0);
    expect(sparkFloor(0.5, 1)).toBeNull();
    expect(sparkFloor(-1, -0.99)).toBeNull();
  });
  it("begin with the data where these begin late", () => {
    const times = Array.from({ length: 11 }, (_, i) => i);
    const line = (first: number) => ({
      labels: {},
      values: times.map((t) => (t < first ? null : t)),
      stats: { last: 10, min: first, max: 10, avg: 5 },
    });
    const late = begun({ times, lines: [line(6), line(8)] });
    expect(late.times).toEqual([5, 6, 7, 8, 9, 10]);
    expect(late.lines[1]!.values).toEqual([null, null, null, 8, 9, 10]);
    const whole = { times, lines: [line(1), line(8)] };
    expect(begun(whole)).toBe(whole);
  });
  it("name limits of the process", () => {
    expect(factOf("GOMEMLIMIT", 2 ** 63)).toBe("none");
    expect(factOf("GOMEMLIMIT", 2 ** 30)).toBe("1 GiB");
    expect(factOf("GOGC", "")).toBe("–");
  });
  it("tell a queue that sends nothing from one with nothing to send", () => {
    const state = (values: Record<string, number>) =>
      queueState(new Map(Object.entries(values).map(([k, v]) => [`prometheus_remote_storage_${k}`, v])), 1000)
        .state[1];
    expect(state({ queue_highest_sent_timestamp_seconds: 999 })).toBe("good");
    expect(state({ queue_highest_sent_timestamp_seconds: 900 })).toBe("behind");
    expect(state({ samples_retried_total: 5 })).toBe("stuck");
    expect(state({})).toBe("nothing to send");
    const dropped = { queue_highest_sent_timestamp_seconds: 999, samples_dropped_total: 7 };
    expect(state(dropped)).toBe("with losses");
    expect(state({ ...dropped, "samples_dropped_total dropped_series": 7 })).toBe("good");
  });
});

describe("search", () => {
  it("reads batches of the ranked search", () => {
    expect(
      readBatches('{"results":[{"name":"a"},{"name":"b"}]}\n{"status":"success","has_more":false}\n'),
    ).toEqual(["a", "b"]);
  });
  it("puts what begins with the text first", () => {
    const all = ["status", "targets", "start", "rest star"].map((title) => ({ title }));
    expect(rank(all, "star", 9).map((e) => e.title)).toEqual(["start", "rest star"]);
    expect(rank(all, "", 2)).toHaveLength(2);
  });
});

describe("notices", () => {
  it("come and go", () => {
    const n = (text: string, active: boolean) => ({ text, date: "", active });
    expect(afterEvent([n("a", true)], n("b", true)).map((x) => x.text)).toEqual(["a", "b"]);
    expect(afterEvent([n("a", true), n("b", true)], n("a", false)).map((x) => x.text)).toEqual(["b"]);
  });
});
