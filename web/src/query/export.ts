// Results as CSV (RFC 4180).
import type { Frame } from "../chart/frame";
import { selector } from "../lib/format";
import type { VectorItem } from "../lib/types";

/** One field. A leading =, +, - or @ of a text would run as a formula in spreadsheets: it gets an apostrophe. */
export function csvField(value: string | number | null): string {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

function row(fields: (string | number | null)[]): string {
  return `${fields.map(csvField).join(",")}\r\n`;
}

/** A column of times and one for each series. */
export function frameToCsv(frame: Frame): string {
  let out = row(["time", ...frame.lines.map((l) => selector(l.labels))]);
  frame.times.forEach((t, i) => {
    out += row([new Date(t * 1000).toISOString(), ...frame.lines.map((l) => l.values[i] ?? null)]);
  });
  return out;
}

/** A column for each label, then time and value. */
export function vectorToCsv(items: VectorItem[]): string {
  const names = [...new Set(items.flatMap((i) => Object.keys(i.metric)))].sort();
  let out = row([...names, "time", "value"]);
  for (const item of items) {
    const [t, v] = item.value ?? [item.histogram?.[0] ?? 0, JSON.stringify(item.histogram?.[1] ?? null)];
    out += row([...names.map((n) => item.metric[n] ?? ""), new Date(t * 1000).toISOString(), v]);
  }
  return out;
}
