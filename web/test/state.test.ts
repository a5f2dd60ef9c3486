import { describe, expect, it } from "vitest";
import { shifted, zoomed } from "../src/query/move";
import { DEFAULTS, decodePanels, encodePanels, type Panel, queryLink, stepOf } from "../src/query/state";

describe("addresses of Prometheus", () => {
  it("reads every parameter of version 3", () => {
    const [p] = decodePanels(
      "?g0.expr=up&g0.show_tree=1&g0.tab=table&g0.range_input=2h&g0.end_input=2026-11-21+10%3A00%3A00" +
        "&g0.moment_input=2026-11-21+09%3A00%3A00&g0.res_type=fixed&g0.res_step=30&g0.display_mode=stacked" +
        "&g0.y_axis_min=0&g0.show_exemplars=1",
    );
    expect(p).toEqual({
      expr: "up",
      tab: "table",
      range: 7_200_000,
      end: Date.UTC(2026, 10, 21, 10),
      moment: Date.UTC(2026, 10, 21, 9),
      resolution: { type: "fixed", step: 30_000 },
      display: "stacked",
      yMin: 0,
      exemplars: true,
      all: false,
      tree: true,
      compare: 0,
    } satisfies Panel);
  });
  it("reads the numbers and names of version 2", () => {
    const panels = decodePanels("?g0.expr=a&g0.tab=0&g0.stacked=1&g0.step_input=15&g1.expr=b&g1.tab=1");
    expect(panels.map((p) => [p.expr, p.tab, p.display])).toEqual([
      ["a", "graph", "stacked"],
      ["b", "table", "auto"],
    ]);
    expect(panels[0]!.resolution).toEqual({ type: "custom", step: 15_000 });
  });
  it("orders panels by number and survives nonsense", () => {
    expect(decodePanels("?g7.expr=z&g2.expr=y").map((p) => p.expr)).toEqual(["y", "z"]);
    expect(decodePanels("")).toEqual([DEFAULTS]);
    expect(decodePanels("?g0.range_input=abc&g0.end_input=x&g0.res_type=fixed&g0.res_step=-1")).toEqual([
      DEFAULTS,
    ]);
  });
  it("goes round", () => {
    const panels: Panel[] = [
      {
        ...DEFAULTS,
        expr: 'sum by (a) (b{c="d&e=#"})',
        tab: "explain",
        compare: 86_400_000,
        yMin: -2.5,
        all: true,
      },
      {
        ...DEFAULTS,
        expr: "x",
        end: Date.UTC(2026, 0, 2, 3, 4, 5),
        resolution: { type: "auto", density: "high" },
      },
    ];
    expect(decodePanels(`?${encodePanels(panels)}`)).toEqual(panels);
    expect(queryLink("up")).toBe("query?g0.expr=up&g0.tab=graph");
  });
});

describe("steps", () => {
  it("suit the width", () => {
    expect(stepOf({ type: "auto", density: "medium" }, 3_600_000, 1000)).toBe(15_000);
    expect(stepOf({ type: "auto", density: "high" }, 3_600_000, 1000)).toBe(5000);
    expect(stepOf({ type: "auto", density: "low" }, 3_600_000, 1000)).toBe(60_000);
  });
  it("never ask for more points than the server allows", () => {
    const year = 365 * 86_400_000;
    expect(year / stepOf({ type: "custom", step: 1000 }, year, 1000)).toBeLessThanOrEqual(11_000);
    expect(year / stepOf({ type: "auto", density: "high" }, year, 5000)).toBeLessThanOrEqual(11_000);
  });
});

describe("moving in time", () => {
  const now = Date.UTC(2026, 10, 21);
  it("shifts back and forth, never past now", () => {
    const back = shifted({ ...DEFAULTS }, -0.5, now);
    expect(back.end).toBe(now - 1_800_000);
    expect(shifted(back, 0.5, now).end).toBeNull();
  });
  it("zooms around the middle", () => {
    const p = { ...DEFAULTS, end: now };
    expect(zoomed(p, 2)).toMatchObject({ range: 7_200_000, end: now + 1_800_000 });
    expect(zoomed({ ...DEFAULTS }, 0.5)).toMatchObject({ range: 1_800_000, end: null });
  });
});
