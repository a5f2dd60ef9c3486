import { describe, expect, it } from "vitest";
import {
  ago,
  apiTime,
  formatDuration,
  formatTime,
  humanDuration,
  parseDuration,
  parseTime,
} from "../src/lib/time";

describe("durations", () => {
  it.each([
    ["1h30m", 5_400_000],
    ["15s", 15_000],
    ["500ms", 500],
    ["1w2d", 777_600_000],
    ["90", 90_000],
    ["1m 30s", 90_000],
  ])("reads %s", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });
  it.each(["", "abc", "5x", "1m1h", "-5m"])("refuses %j", (text) => {
    expect(parseDuration(text)).toBeNull();
  });
  it("writes what it reads", () => {
    for (const text of ["1h30m", "15s", "500ms", "1w", "2d", "1y"])
      expect(formatDuration(parseDuration(text)!)).toBe(text);
    expect(formatDuration(0)).toBe("0s");
    expect(formatDuration(10 * 86_400_000)).toBe("10d");
  });
  it("reads well", () => {
    expect(humanDuration(0.00085)).toBe("850 µs");
    expect(humanDuration(0.0123)).toBe("12 ms");
    expect(humanDuration(3700)).toBe("1 h 1 min");
    expect(humanDuration(Number.NaN)).toBe("–");
  });
});

describe("points in time", () => {
  const at = Date.UTC(2026, 10, 21, 9, 5, 7, 120);
  it("writes and reads in UTC", () => {
    expect(formatTime(at, "utc")).toBe("2026-11-21 09:05:07");
    expect(formatTime(at, "utc", true)).toBe("2026-11-21 09:05:07.120");
    expect(parseTime("2026-11-21 09:05:07", "utc")).toBe(at - 120);
    expect(parseTime("2026-11-21 09:05", "utc")).toBe(Date.UTC(2026, 10, 21, 9, 5));
    expect(parseTime("2026-11-21", "utc")).toBe(Date.UTC(2026, 10, 21));
  });
  it("goes round in local time", () => {
    expect(parseTime(formatTime(at, "local"), "local")).toBe(at - 120);
  });
  it("reads RFC 3339 and Unix seconds", () => {
    expect(parseTime("2026-11-21T10:05:07+01:00", "local")).toBe(at - 120);
    expect(parseTime("1795000000.5", "utc")).toBe(1_795_000_000_500);
    expect(parseTime("yesterday", "utc")).toBeNull();
  });
  it("tells the distance from now", () => {
    expect(ago(at - 4000, at)).toBe("4 s ago");
    expect(ago(0, at)).toBe("never");
    expect(apiTime("0001-01-01T00:00:00Z")).toBe(0);
  });
});
