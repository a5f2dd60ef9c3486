import { describe, expect, it } from "vitest";
import { biggest, stack, summarise, toFrame } from "../src/chart/frame";
import { heatKind, toHeat } from "../src/chart/heat";
import { heat, ink } from "../src/chart/palette";
import { csvField, frameToCsv, vectorToCsv } from "../src/query/export";

const items = [
  {
    metric: { a: "1" },
    values: [
      [10, "1"],
      [20, "2"],
      [40, "NaN"],
    ] as [number, string][],
  },
  {
    metric: { a: "2" },
    values: [
      [20, "5"],
      [30, "+Inf"],
    ] as [number, string][],
  },
];

describe("frames", () => {
  const frame = toFrame(items, 10_000, 40_000, 10_000);
  it("puts samples on the grid and leaves gaps open", () => {
    expect(frame.times).toEqual([10, 20, 30, 40]);
    expect(frame.lines.map((l) => l.values)).toEqual([
      [1, 2, null, null],
      [null, 5, null, null],
    ]);
  });
  it("moves the past into the present", () => {
    expect(toFrame(items, 70_000, 100_000, 10_000, 60_000).lines[0]!.values).toEqual([1, 2, null, null]);
  });
  it("summarises and ranks", () => {
    expect(summarise([3, null, 1])).toEqual({ last: 1, min: 1, max: 3, avg: 2 });
    expect(summarise([])).toEqual({ last: null, min: null, max: null, avg: null });
    expect(biggest(frame.lines, 1)[0]!.labels).toEqual({ a: "2" });
  });
  it("stacks what is shown", () => {
    expect(stack(frame.lines, new Set())[1]).toEqual([1, 7, null, null]);
    expect(stack(frame.lines, new Set([0]))[1]).toEqual([null, 5, null, null]);
  });
});

describe("heat maps", () => {
  const bucket = (le: string, v: string) => ({
    metric: { le, job: "x" },
    values: [[10, v]] as [number, string][],
  });
  it("takes cumulative buckets apart", () => {
    const classic = [bucket("+Inf", "10"), bucket("1", "4"), bucket("2", "9")];
    expect(heatKind(classic)).toBe("classic");
    const map = toHeat(classic, 10_000, 10_000, 1000);
    expect(map.bounds).toEqual([0, 1, 2, Number.POSITIVE_INFINITY]);
    expect(map.cells.map((c) => c.count).sort()).toEqual([1, 4, 5]);
  });
  it("adds native histograms up", () => {
    const one = {
      metric: {},
      histograms: [[10, { count: "3", sum: "4", buckets: [[0, "1", "2", "3"]] }]] as never,
    };
    expect(heatKind([one])).toBe("native");
    expect(toHeat([one, one], 10_000, 10_000, 1000).cells).toEqual([{ t: 0, from: 0, to: 1, count: 6 }]);
  });
  it("is offered for nothing else", () => {
    expect(heatKind(items)).toBeNull();
  });
});

/** Contrast of two colours by WCAG 2. */
function contrast(a: string, b: string): number {
  const light = (hex: string) => {
    const [r, g, bl] = [1, 3, 5]
      .map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl;
  };
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p) as [number, number];
  return (x + 0.05) / (y + 0.05);
}

describe("palette", () => {
  it("has 3:1 contrast with both backgrounds", () => {
    for (let i = 0; i < 8; i++) {
      expect(contrast(ink(i, false).colour, "#ffffff")).toBeGreaterThan(3);
      expect(contrast(ink(i, true).colour, "#161b21")).toBeGreaterThan(3);
    }
  });
  it("never repeats colour and dash within 32 series", () => {
    const all = Array.from({ length: 32 }, (_, i) => JSON.stringify(ink(i, false)));
    expect(new Set(all).size).toBe(32);
  });
  it("clamps heat", () => {
    expect(heat(2, true)).toBe(heat(1, true));
  });
});

describe("exports", () => {
  it("quotes fields and disarms formulas", () => {
    expect(csvField('a"b,c')).toBe('"a""b,c"');
    expect(csvField("=1+1")).toBe("'=1+1");
    expect(csvField("-5")).toBe("-5");
  });
  it("writes a column for each series and each label", () => {
    expect(frameToCsv(toFrame(items, 10_000, 20_000, 10_000))).toBe(
      'time,"{a=""1""}","{a=""2""}"\r\n1970-01-01T00:00:10.000Z,1,\r\n1970-01-01T00:00:20.000Z,2,5\r\n',
    );
    expect(vectorToCsv([{ metric: { b: "x\ny" }, value: [1, "2"] }])).toBe(
      'b,time,value\r\n"x\ny",1970-01-01T00:00:01.000Z,2\r\n',
    );
  });
});
