import { describe, expect, it } from "vitest";
import { linksOf, namesIn } from "../src/lib/ruledeps";
import { readScrapeError, unquote } from "../src/lib/scrapeerror";
import { covers, externalLabels, matcherOf, operatorOf, silencePage } from "../src/lib/silences";
import { runsOf, summary } from "../src/lib/timeline";
import { sayRule } from "../src/pages/relabel";
import type { RuleRow } from "../src/pages/ruleparts";
import { scrapesOf } from "../src/pages/scrapehistory";
import type { Node } from "../src/query/ast";
import { threshold } from "../src/query/threshold";

describe("silences", () => {
  const labels = { alertname: "Down", job: "node", instance: "a:1" };
  it("cover what all matchers fit", () => {
    const m = (...all: Parameters<typeof matcherOf>[]) => ({ matchers: all.map((a) => matcherOf(...a)) });
    expect(covers(m(["alertname", "=", "Down"]), labels)).toBe(true);
    expect(covers(m(["alertname", "=", "Down"], ["job", "!=", "node"]), labels)).toBe(false);
    expect(covers(m(["instance", "=~", "a:.*"]), labels)).toBe(true);
    expect(covers(m(["instance", "=~", "a"]), labels)).toBe(false);
    expect(covers(m(["instance", "!~", "b.*"], ["absent", "=", ""]), labels)).toBe(true);
    expect(covers(m(["instance", "=~", "("]), labels)).toBe(false);
    expect(covers(m(), labels)).toBe(false);
  });
  it("keep their operators", () => {
    for (const op of ["=", "!=", "=~", "!~"] as const) expect(operatorOf(matcherOf("a", op, "b"))).toBe(op);
    expect(operatorOf({ name: "a", value: "b", isRegex: false })).toBe("=");
  });
  it("are opened on the Alertmanager's own page only when it has a web address", () => {
    expect(silencePage("http://am:9093/p/api/v2/alerts", { a: 'x"y' })).toBe(
      `http://am:9093/p/#/silences/new?filter=${encodeURIComponent('{a="x\\"y"}')}`,
    );
    expect(silencePage("javascript:alert(1)", {})).toBe("");
  });
  it("are compared with the external labels too", () => {
    const yaml =
      'global:\n  scrape_interval: 1s\n  external_labels:\n    cluster: test\n    "a.b": "x: y"\n  other: 1\nrule_files:\n- a\n';
    expect(externalLabels(yaml)).toEqual({ cluster: "test", "a.b": "x: y" });
    expect(externalLabels("global: {}\n")).toEqual({});
  });
});

describe("the history of an alert", () => {
  const item = (alertstate: string, ...times: number[]) => ({
    metric: { alertname: "A", alertstate },
    values: times.map((t): [number, string] => [t, "1"]),
  });
  it("is a list of stretches, firing above pending", () => {
    const runs = runsOf([item("pending", 10, 20, 30, 60), item("firing", 30, 40)], 10, 1000);
    expect(runs).toEqual([
      { from: 0, to: 20, state: "pending" },
      { from: 20, to: 40, state: "firing" },
      { from: 50, to: 60, state: "pending" },
    ]);
    expect(summary(runs)).toEqual({ times: 1, seconds: 20, longest: 20 });
  });
  it("ends now", () => {
    expect(runsOf([item("firing", 10)], 10, 5)).toEqual([{ from: 0, to: 5, state: "firing" }]);
  });
});

describe("rules that read rules", () => {
  it("are found by the names in their expressions", () => {
    expect([...namesIn('sum by (job) (rate(a:b{x="c"}[5m])) / {"d.e"} # f')]).toContain("a:b");
    expect([...namesIn('{"d.e", x="1"} + {__name__="g"}')]).toEqual(expect.arrayContaining(["d.e", "g"]));
    expect(namesIn("rate(up[5m]) # c").has("rate")).toBe(false);
    expect(namesIn('label_replace(up, "a", "b", "c", "d")').has("b")).toBe(false);
  });
  it("are linked both ways, and late results are named", () => {
    const row = (key: string, group: string, interval: number, name: string, query: string): RuleRow => ({
      key,
      group,
      file: "f",
      interval,
      rule: {
        type: name === "Alert" ? "alerting" : "recording",
        name,
        query,
        health: "ok",
        evaluationTime: 0,
        lastEvaluation: "",
      },
    });
    const rules = [
      row("1", "g", 10, "a:c", "sum(b:d)"),
      row("2", "g", 10, "b:d", "up"),
      row("3", "h", 10, "Alert", "a:c > 1"),
      row("4", "slow", 60, "s:s", 'ALERTS{alertname="Alert"}'),
      row("5", "h", 10, "z:z", "s:s"),
    ];
    const links = linksOf(rules);
    expect(links.get("1")!.reads.map((r) => r.key)).toEqual(["2"]);
    expect(links.get("1")!.readBy.map((r) => r.key)).toEqual(["3"]);
    expect(links.get("1")!.late).toContain("b:d stands later");
    expect(links.get("4")!.reads.map((r) => r.key)).toEqual(["3"]);
    expect(links.get("5")!.late).toContain("less often");
    expect(links.get("3")!.late).toBe("");
  });
});

describe("errors of scrapes", () => {
  it("mark the place in the line", () => {
    const e = readScrapeError('parsing "is": invalid syntax while parsing: "this is {not\\n"');
    expect(e.line).toBe("this is {not");
    expect(e.line!.slice(e.from, e.to)).toBe("is");
    const f = readScrapeError('expected label name, got "\\"x\\"} 1\\n" while parsing: "a{\\"x\\"} 1\\n"');
    expect(f.line!.slice(f.from, f.to)).toBe('"x"}');
  });
  it("name the line by its number", () => {
    const e = readScrapeError('expected equal, got "!" while parsing line 12: "a{b!\\"c\\"} 1"');
    expect([e.reason, e.number, e.line]).toEqual(['expected equal, got "!"', 12, 'a{b!"c"} 1']);
    expect(e.line!.slice(e.from, e.to)).toBe("!");
    const limit = readScrapeError('label_limit exceeded (metric: "a in b") in line 3: "a{b=\\"c\\"} 1"');
    expect([limit.number, limit.line]).toEqual([3, 'a{b="c"} 1']);
    expect(limit.hint).toContain("limit");
    expect(readScrapeError('dial: lookup in: "x"').line).toBeUndefined();
  });
  it("say what helps", () => {
    expect(readScrapeError("dial: Connection refused (os error 111)").hint).toContain("Nothing listens");
    expect(readScrapeError("server returned HTTP status 404 Not Found").hint).toContain("metrics_path");
    expect(readScrapeError("something new").hint).toBe("");
  });
  it("undo quoting", () => {
    expect(unquote('"a\\n\\"\\\\\\u{e9}\\x41"')).toBe('a\n"\\éA');
  });
});

describe("relabeling in words", () => {
  it.each([
    [{ action: "drop", source_labels: ["a"], regex: "x.*" }, "Drops the target if the label a matches x.*."],
    [{ action: "replace", target_label: "env", replacement: "test", regex: "(.*)" }, 'Sets env to "test".'],
    [
      { source_labels: ["a"], target_label: "b", regex: "(.*)", replacement: "$1", action: "replace" },
      "Copies the label a to b.",
    ],
    [{ action: "labeldrop", regex: "tmp_.*" }, "Removes every label whose name matches tmp_.*."],
    [
      { action: "hashmod", source_labels: ["a"], modulus: 4, target_label: "s" },
      "Writes a number from 0 to 3, made from the label a, into s.",
    ],
  ])("%j", (rule, said) => expect(sayRule(rule)).toBe(said));
});

describe("scrapes of the past", () => {
  it("are put together from their series", () => {
    const one = (__name__: string, ...values: [number, string][]) => ({ metric: { __name__ }, values });
    const found = scrapesOf({
      resultType: "matrix",
      result: [one("up", [1, "1"], [2, "0"]), one("scrape_duration_seconds", [1, "0.5"], [2, "1"])],
    });
    expect(found.map((s) => [s.at, s.up, s.took])).toEqual([
      [2000, false, 1],
      [1000, true, 0.5],
    ]);
  });
});

describe("the limit of an alert", () => {
  const number = (val: string): Node => ({ type: "numberLiteral", val });
  const series = (name: string): Node => ({
    type: "vectorSelector",
    name,
    matchers: [{ name: "__name__", type: "=", value: name }],
    offset: 0,
    timestamp: null,
    startOrEnd: null,
  });
  const binary = (op: string, lhs: Node, rhs: Node): Node => ({
    type: "binaryExpr",
    op,
    lhs,
    rhs,
    matching: null,
    bool: false,
  });
  it("is the number it is compared with", () => {
    expect(threshold(binary(">", series("a"), number("5")))).toEqual({ expr: "a", level: 5, op: ">" });
    expect(threshold(binary("and", binary("<", series("a"), number("1")), series("b"))).level).toBe(1);
    const product = binary("*", number("2"), number("3"));
    expect(threshold(binary(">", series("a"), { type: "parenExpr", expr: product })).level).toBe(6);
    expect(threshold(series("a"))).toEqual({ expr: "a", level: null, op: "" });
    expect(threshold(binary(">", series("a"), series("b"))).level).toBeNull();
  });
});
