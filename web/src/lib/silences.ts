// Silences of Alertmanagers, and which alerts they cover.
import type { Labels } from "./types";

export interface SilenceMatcher {
  name: string;
  value: string;
  isRegex: boolean;
  /** Missing in answers of old Alertmanagers, where it means true. */
  isEqual?: boolean;
}
export interface Silence {
  id: string;
  matchers: SilenceMatcher[];
  startsAt: string;
  endsAt: string;
  createdBy: string;
  comment: string;
  status?: { state?: "active" | "pending" | "expired" };
}
export interface SilencesData {
  /** Whether this server lets silences be changed. */
  writable: boolean;
  alertmanagers: { url: string; error?: string; silences?: Silence[] }[];
}
/** A silence with the Alertmanager that keeps it. */
export interface Kept extends Silence {
  alertmanager: string;
}

export type Operator = "=" | "!=" | "=~" | "!~";

export function operatorOf(m: SilenceMatcher): Operator {
  const equal = m.isEqual !== false;
  return m.isRegex ? (equal ? "=~" : "!~") : equal ? "=" : "!=";
}

export function matcherOf(name: string, operator: Operator, value: string): SilenceMatcher {
  return { name, value, isRegex: operator.includes("~"), isEqual: operator.startsWith("=") };
}

function fits(m: SilenceMatcher, labels: Labels): boolean {
  const value = labels[m.name] ?? "";
  let hit = value === m.value;
  if (m.isRegex)
    try {
      hit = new RegExp(`^(?:${m.value})$`, "s").test(value);
    } catch {
      // The Alertmanager's dialect may know what this browser's does not: then nothing is claimed.
      return false;
    }
  return hit === (m.isEqual !== false);
}

export function covers(s: Pick<Silence, "matchers">, labels: Labels): boolean {
  return s.matchers.length > 0 && s.matchers.every((m) => fits(m, labels));
}

export function keptOf(data: SilencesData | undefined): Kept[] {
  return (data?.alertmanagers ?? []).flatMap((a) =>
    (a.silences ?? []).map((s): Kept => ({ ...s, alertmanager: a.url })),
  );
}

/** The active silences that cover an alert as Alertmanagers see it, with the external labels. */
export function silencing(all: Kept[], labels: Labels, external: Labels): Kept[] {
  const seen = { ...external, ...labels };
  return all.filter((s) => s.status?.state === "active" && covers(s, seen));
}

/** `global.external_labels` of the configuration as the server prints it. */
export function externalLabels(yaml: string): Labels {
  const block =
    /^global:\n(?:(?: .*)?\n)*? {2}external_labels:\n((?: {4}.*\n)*)/m.exec(`${yaml}\n`)?.[1] ?? "";
  const out: Labels = {};
  for (const line of block.split("\n")) {
    const m = /^ {4}("(?:[^"\\]|\\.)*"|[^\s:]+): (.*)$/.exec(line);
    if (m) out[unquote(m[1]!)] = unquote(m[2]!);
  }
  return out;
}

function unquote(text: string): string {
  if (text.startsWith('"'))
    try {
      return JSON.parse(text) as string;
    } catch {
      return text.slice(1, -1);
    }
  return text.startsWith("'") ? text.slice(1, -1).replace(/''/g, "'") : text;
}

/** The page of an Alertmanager itself that creates a silence for these labels. */
export function silencePage(alertmanager: string, labels: Labels): string {
  const base = alertmanager.replace(/\/api\/v[12]\/alerts$/, "");
  if (!/^https?:\/\//.test(base)) return "";
  const filter = `{${Object.entries(labels)
    .map(([k, v]) => `${k}=${JSON.stringify(v)}`)
    .join(",")}}`;
  return `${base}/#/silences/new?filter=${encodeURIComponent(filter)}`;
}
