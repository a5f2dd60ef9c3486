import { render } from "preact";
import { act } from "preact/test-utils";
import { beforeEach, describe, expect, it } from "vitest";
import { ApiError } from "../src/lib/api";
import { pickExamples } from "../src/lib/examples";
import { escapeName } from "../src/lib/names";
import { readExposition } from "../src/lib/selfmetrics";
import type { Target } from "../src/lib/types";
import { firstQuery, nameMatcher } from "../src/pages/explore";
import { changedFlag } from "../src/pages/flags";
import { matchesTarget, orderTargets } from "../src/pages/targets";
import { DataTable, sortRows } from "../src/ui/DataTable";

let host: HTMLElement;
beforeEach(() => {
  document.body.replaceChildren();
  host = document.createElement("div");
  document.body.append(host);
});

describe("tables", () => {
  const rows = Array.from({ length: 10_000 }, (_, i) => i);
  const table = () => (
    <DataTable
      label="numbers"
      rows={rows}
      rowKey={(r) => String(r)}
      columns={[{ key: "n", title: "n", render: (r) => String(r), sort: (r) => r, align: "right" }]}
    />
  );
  it("keep the document small however many rows there are", () => {
    act(() => render(table(), host));
    expect(host.querySelectorAll("tr").length).toBeLessThan(100);
    expect(host.querySelector("table")!.getAttribute("aria-rowcount")).toBe("10001");
  });
  it("sort by a click on the header", () => {
    act(() => render(table(), host));
    act(() => host.querySelector<HTMLButtonElement>("th button")!.click());
    expect(host.querySelector("tbody tr td")!.textContent).toBe("9999");
    expect(host.querySelector("th")!.getAttribute("aria-sort")).toBe("descending");
  });
  it("sort NaN last, digits as numbers, equals as they came", () => {
    expect(sortRows([Number.NaN, 2, 1], (n) => n, true)).toEqual([2, 1, Number.NaN]);
    expect(sortRows(["b10", "b9"], (s) => s, false)).toEqual(["b9", "b10"]);
    expect(
      sortRows(
        [
          { k: 1, n: "a" },
          { k: 1, n: "b" },
        ],
        (r) => r.k,
        true,
      ).map((r) => r.n),
    ).toEqual(["a", "b"]);
  });
});

describe("targets", () => {
  const t = (health: Target["health"], url: string, labels = {}): Target => ({
    discoveredLabels: {},
    labels,
    scrapePool: "p",
    scrapeUrl: url,
    globalUrl: url,
    lastError: health === "down" ? "connection refused" : "",
    lastScrape: "",
    lastScrapeDuration: 0,
    health,
    scrapeInterval: "15s",
    scrapeTimeout: "10s",
  });
  it("come with failing ones first", () => {
    const all = [
      t("up", "http://a2"),
      t("unknown", "http://c"),
      t("down", "http://z"),
      t("up", "http://a10"),
    ];
    expect(orderTargets(all).map((x) => x.scrapeUrl)).toEqual([
      "http://z",
      "http://c",
      "http://a2",
      "http://a10",
    ]);
  });
  it("are found by label, error and address", () => {
    const one = t("down", "http://a", { job: "node" });
    for (const f of ["", 'job="node"', "job=node", "refused", "http://a NODE"])
      expect(matchesTarget(one, f)).toBe(true);
    expect(matchesTarget(one, "job=other")).toBe(false);
  });
});

describe("first steps", () => {
  it("picks examples that exist and fills up with counters", () => {
    expect(pickExamples(["up", "foo_total"]).map((e) => e.expr)).toEqual([
      "sum by (job) (up)",
      "sum by (job) (rate(foo_total[2m]))",
    ]);
    expect(pickExamples([])).toEqual([]);
    expect(pickExamples(["<img>_total"])).toEqual([]);
  });
  it("guesses a first query by type", () => {
    expect(firstQuery("a_total", "counter").expr).toBe("sum by (job) (rate(a_total[5m]))");
    expect(firstQuery("a_bucket", "histogram").expr).toContain("histogram_quantile(0.95, sum by (le)");
    expect(firstQuery("temp", "gauge").expr).toBe("temp");
  });
  it("searches names literally", () => {
    expect(nameMatcher("a.b c")).toBe('{__name__=~"(?i).*a\\\\.b.*c.*"}');
  });
  it("knows which flags were changed", () => {
    expect(changedFlag("query.timeout", "2m")).toBe(false);
    expect(changedFlag("query.timeout", "1m")).toBe(true);
    expect(changedFlag("new.flag", "x")).toBeNull();
  });
});

describe("borders", () => {
  it("reads own metrics, label values with braces and spaces included", () => {
    const text = '# HELP a x\na 1\na{l="} 5 {"} 2\nb{x="y"} 3 1700000000\nab 9\n';
    expect([...readExposition(text, new Set(["a", "b"]))]).toEqual([
      ["a", 3],
      ["b", 3],
    ]);
  });
  it("finds the place of a parse error", () => {
    const e = new ApiError("bad_data", 'invalid parameter "query": 2:5: parse error: unexpected end', 400);
    expect(e.place).toEqual({ line: 2, column: 5 });
    expect(new ApiError("execution", "too many samples", 422).place).toBeUndefined();
  });
  it("escapes label names for paths", () => {
    expect(escapeName("job")).toBe("job");
    expect(escapeName("a.b_c")).toBe("U__a_2e_b__c");
  });
});
