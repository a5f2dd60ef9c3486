import { describe, expect, it } from "vitest";
import {
  bytes,
  commonLabels,
  full,
  labelName,
  neat,
  num,
  percent,
  quote,
  selector,
  short,
  visible,
} from "../src/lib/format";

describe("numbers", () => {
  it.each([
    [0, "0"],
    [1, "1"],
    [999.96, "1k"],
    [12_345, "12.3k"],
    [-2_500_000, "-2.5M"],
    [0.00001234, "1.23e-5"],
    [Number.POSITIVE_INFINITY, "+Inf"],
    [Number.NaN, "NaN"],
  ])("short(%d) is %s", (n, text) => {
    expect(short(n)).toBe(text);
  });
  it("groups digits and keeps the fraction", () => {
    expect(full(1234567.25)).toBe("1\u202f234\u202f567.25");
    expect(full(-1000)).toBe("-1\u202f000");
    expect(full(12)).toBe("12");
  });
  it("writes sizes and parts", () => {
    expect(bytes(1536)).toBe("1.5 KiB");
    expect(percent(1, 3)).toBe("33.3 %");
    expect(percent(1, 0)).toBe("–");
    // One digit behind the point, so that a column of them is even.
    expect(percent(3, 100)).toBe("3.0 %");
    expect(percent(1, 1)).toBe("100 %");
    expect(percent(1, 5000)).toBe("<0.1 %");
  });
  it("shortens fractions, not whole numbers", () => {
    expect(neat(16.004166666666666)).toBe("16.00417");
    expect(neat(15981273088)).toBe("15\u202f981\u202f273\u202f088");
    expect(neat(1795293885.123456)).toBe("1\u202f795\u202f293\u202f885.1");
    expect(neat(Number.NaN)).toBe("NaN");
  });
  it("reads sample values", () => {
    expect(num("+Inf")).toBe(Number.POSITIVE_INFINITY);
    expect(num("1e-3")).toBe(0.001);
    expect(num("NaN")).toBeNaN();
    expect(num(undefined)).toBeNaN();
  });
});

describe("selectors", () => {
  it("prints classic names bare and others quoted", () => {
    expect(selector({ __name__: "up", job: "a" })).toBe('up{job="a"}');
    expect(selector({ __name__: "up" })).toBe("up");
    expect(selector({ __name__: "http.requests", "a.b": "c" })).toBe('{"http.requests", "a.b"="c"}');
    expect(selector({})).toBe("{}");
    expect(labelName("le")).toBe("le");
  });
  it("escapes values so that they cannot end the literal", () => {
    expect(quote('a"} or vector(1) or x{b="')).toBe('"a\\"} or vector(1) or x{b=\\""');
    expect(quote("a\\\nb")).toBe('"a\\\\\\nb"');
  });
  it("lifts out labels that all series share", () => {
    expect(
      commonLabels([
        { a: "1", b: "2" },
        { a: "1", b: "3" },
      ]),
    ).toEqual({ a: "1" });
    expect(commonLabels([{ a: "1" }])).toEqual({});
  });
});

describe("scraped text", () => {
  it("spells out what is invisible or reorders text", () => {
    expect(visible("a\nb\tc")).toBe("a\\nb\\tc");
    expect(visible("\u202egnp.exe")).toBe("\\u202egnp.exe");
    expect(visible("zero\u200bwidth\u0000")).toBe("zero\\u200bwidth\\u0000");
  });
  it("leaves letters of every script alone", () => {
    for (const text of ["größe", "温度", "שלום", "emoji 🦦"]) expect(visible(text)).toBe(text);
  });
});
