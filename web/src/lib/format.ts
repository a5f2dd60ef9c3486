// Numbers, sizes and scraped text made readable.
import type { Labels } from "./types";

const SI: [number, string][] = [
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Few digits with an SI suffix: 12345 becomes "12.3k". For axes, legends and counters. */
export function short(n: number, digits = 3): string {
  if (Number.isNaN(n)) return "NaN";
  if (!Number.isFinite(n)) return n > 0 ? "+Inf" : "-Inf";
  if (n === 0) return "0";
  const a = Math.abs(n);
  for (const [size, suffix] of SI) if (a >= size * 0.99995) return `${plain(n / size, digits)}${suffix}`;
  if (a < 1e-4) return n.toExponential(digits - 1).replace(/\.?0+e/, "e");
  return plain(n, a < 1000 ? Math.max(digits, 3) : digits);
}

function plain(n: number, digits: number): string {
  return String(Number(n.toPrecision(digits)));
}

/** All digits that matter, grouped: "1 234 567.25". */
export function full(n: number): string {
  if (!Number.isFinite(n)) return short(n);
  if (n !== 0 && (Math.abs(n) >= 1e15 || Math.abs(n) < 1e-6)) return String(n);
  const [whole, fraction] = String(n).split(".") as [string, string | undefined];
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  return fraction ? `${grouped}.${fraction}` : grouped;
}

/** Seven digits: what is read at a glance; whole numbers, and what stands before the point, stay as they are. */
export function neat(n: number): string {
  if (!Number.isFinite(n) || Number.isInteger(n)) return full(n);
  const a = Math.abs(n);
  return full(a >= 1e6 ? Math.round(n * 10) / 10 : Number(n.toPrecision(7)));
}

export function bytes(n: number): string {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  let v = n;
  while (Math.abs(v) >= 1024 && i < units.length - 1) {
    v /= 1024;
    i++;
  }
  return `${Number(v.toPrecision(v >= 100 ? 4 : 3))} ${units[i]}`;
}

export function percent(part: number, whole: number): string {
  if (!(whole > 0)) return "–";
  const p = (100 * part) / whole;
  return `${p > 0 && p < 0.1 ? "<0.1" : p.toFixed(p === 0 || p >= 99.95 ? 0 : 1)} %`;
}

/** Reads a sample value as the API writes it. */
export function num(text: string | undefined): number {
  if (text === undefined) return Number.NaN;
  if (text === "+Inf" || text === "Inf") return Number.POSITIVE_INFINITY;
  if (text === "-Inf") return Number.NEGATIVE_INFINITY;
  return text === "NaN" ? Number.NaN : Number(text);
}

// Characters that are invisible or reorder their neighbours: they would let a label value imitate another one.
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Scraped text with control, zero-width and direction characters spelled out. */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (c) => {
    if (c === "\n") return "\\n";
    if (c === "\t") return "\\t";
    return `\\u${c.codePointAt(0)!.toString(16).padStart(4, "0")}`;
  });
}

/** A PromQL string literal. */
export function quote(text: string): string {
  return `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;
}

const LEGACY_METRIC = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LEGACY_LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

export function labelName(name: string): string {
  return LEGACY_LABEL.test(name) ? name : quote(name);
}

/** The PromQL selector that names exactly this series (or set of matchers). */
export function selector(labels: Labels, skip: ReadonlySet<string> = new Set()): string {
  const name = labels.__name__;
  const bare = name !== undefined && LEGACY_METRIC.test(name) && !skip.has("__name__");
  const parts: string[] = [];
  if (name !== undefined && !bare && !skip.has("__name__")) parts.push(quote(name));
  for (const key of Object.keys(labels).sort()) {
    if (key === "__name__" || skip.has(key)) continue;
    parts.push(`${labelName(key)}=${quote(labels[key]!)}`);
  }
  if (bare) return parts.length ? `${name}{${parts.join(", ")}}` : name;
  return `{${parts.join(", ")}}`;
}

/** Labels that all the series share (more than one series needed), to be shown once. */
export function commonLabels(all: Labels[]): Labels {
  const first = all[0];
  if (!first || all.length < 2) return {};
  const out: Labels = {};
  for (const [key, value] of Object.entries(first)) if (all.every((l) => l[key] === value)) out[key] = value;
  return out;
}
