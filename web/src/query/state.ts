// A query panel's shareable state, and the g0.* parameters of the address that carry it. The parameters are those of
// Prometheus, so that links from Alertmanager, runbooks and chats keep working; `compare` and
// `draw_all` are our own additions.
import { formatDuration, formatTime, parseDuration, parseTime } from "../lib/time";

export type Tab = "graph" | "table" | "explain" | "raw" | "stats";
/** `auto` draws histograms as a heat map and everything else as lines. */
export type Display = "auto" | "lines" | "stacked" | "heatmap";
export type Density = "low" | "medium" | "high";
export type Resolution =
  | { type: "auto"; density: Density }
  | { type: "fixed"; step: number }
  | { type: "custom"; step: number };

export interface Panel {
  expr: string;
  tab: Tab;
  /** Milliseconds shown by the graph. */
  range: number;
  /** Right edge of the graph in milliseconds; null means now. */
  end: number | null;
  /** Moment of the table in milliseconds; null means now. */
  moment: number | null;
  resolution: Resolution;
  display: Display;
  /** Where the vertical axis begins; null leaves it to the data. */
  yMin: number | null;
  exemplars: boolean;
  /** Draws every series, not only the highest. */
  all: boolean;
  tree: boolean;
  /** Milliseconds into the past to compare the graph with; 0 is off. */
  compare: number;
}

export const DEFAULTS: Panel = {
  expr: "",
  tab: "graph",
  range: 3_600_000,
  end: null,
  moment: null,
  resolution: { type: "auto", density: "medium" },
  display: "auto",
  yMin: null,
  exemplars: false,
  all: false,
  tree: false,
  compare: 0,
};

const TABS: Record<string, Tab> = {
  "0": "graph",
  "1": "table",
  "2": "explain",
  graph: "graph",
  table: "table",
  explain: "explain",
  raw: "raw",
  stats: "stats",
};
const MOST_PANELS = 50;

function time(text: string | null): number | null {
  return text ? parseTime(text, "utc") : null;
}

/** Reads the panels of an address; always at least one. */
export function decodePanels(search: string): Panel[] {
  const all = new URLSearchParams(search);
  const indices = new Set<number>();
  for (const key of all.keys()) {
    const m = /^g(\d{1,3})\./.exec(key);
    if (m) indices.add(Number(m[1]));
  }
  const panels = [...indices]
    .sort((a, b) => a - b)
    .slice(0, MOST_PANELS)
    .map((i) => decodePanel((name) => all.get(`g${i}.${name}`)));
  return panels.length ? panels : [{ ...DEFAULTS, expr: all.get("expr") ?? "" }];
}

function decodePanel(get: (name: string) => string | null): Panel {
  // Panels of Prometheus open on the table when the address does not say; a bare expression is better seen drawn.
  const p: Panel = { ...DEFAULTS, expr: get("expr") ?? "", tab: TABS[get("tab") ?? ""] ?? DEFAULTS.tab };
  const range = parseDuration(get("range_input") ?? "");
  if (range !== null && range > 0) p.range = range;
  p.end = time(get("end_input"));
  p.moment = time(get("moment_input"));
  p.resolution = decodeResolution(get);
  const mode = get("display_mode");
  if (mode === "lines" || mode === "stacked" || mode === "heatmap") p.display = mode;
  else if (get("stacked") === "1") p.display = "stacked";
  const yMin = get("y_axis_min") ?? "";
  if (yMin !== "" && Number.isFinite(Number(yMin))) p.yMin = Number(yMin);
  p.exemplars = get("show_exemplars") === "1";
  p.all = get("draw_all") === "1";
  p.tree = get("show_tree") === "1";
  const compare = parseDuration(get("compare") ?? "");
  if (compare !== null) p.compare = compare;
  return p;
}

function decodeResolution(get: (name: string) => string | null): Resolution {
  const step = Number(get("res_step") ?? get("step_input") ?? "");
  const type = get("res_type");
  const usable = Number.isFinite(step) && step > 0;
  if (type === "fixed" && usable) return { type: "fixed", step: step * 1000 };
  if ((type === "custom" || (type === null && get("step_input"))) && usable)
    return { type: "custom", step: step * 1000 };
  const density = get("res_density");
  return {
    type: "auto",
    density: density === "low" || density === "high" ? density : "medium",
  };
}

/** The address's query string for these panels; what has its default value is left out, except the expression. */
export function encodePanels(panels: Panel[]): string {
  const out = new URLSearchParams();
  panels.forEach((p, i) => {
    const set = (name: string, value: string) => out.set(`g${i}.${name}`, value);
    set("expr", p.expr);
    set("tab", p.tab);
    if (p.range !== DEFAULTS.range) set("range_input", formatDuration(p.range));
    if (p.end !== null) set("end_input", formatTime(p.end, "utc"));
    if (p.moment !== null) set("moment_input", formatTime(p.moment, "utc"));
    if (p.resolution.type === "auto") {
      if (p.resolution.density !== "medium") {
        set("res_type", "auto");
        set("res_density", p.resolution.density);
      }
    } else {
      set("res_type", p.resolution.type);
      set("res_step", String(p.resolution.step / 1000));
    }
    if (p.display !== "auto") set("display_mode", p.display);
    if (p.yMin !== null) set("y_axis_min", String(p.yMin));
    if (p.exemplars) set("show_exemplars", "1");
    if (p.all) set("draw_all", "1");
    if (p.tree) set("show_tree", "1");
    if (p.compare) set("compare", formatDuration(p.compare));
  });
  return out.toString();
}

/** Address of the query page showing one expression. */
export function queryLink(expr: string, change: Partial<Panel> = {}): string {
  return `query?${encodePanels([{ ...DEFAULTS, expr, ...change }])}`;
}

// Steps a person finds on a clock, in seconds.
const NICE = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 14_400,
  21_600, 43_200, 86_400, 172_800, 604_800,
];
const PIXELS_PER_POINT: Record<Density, number> = { low: 12, medium: 3, high: 1 };
const MOST_POINTS = 11_000;

/** Step in milliseconds for a graph `width` pixels wide. */
export function stepOf(resolution: Resolution, range: number, width: number): number {
  if (resolution.type !== "auto") return Math.max(resolution.step, Math.ceil(range / MOST_POINTS), 1);
  const points = Math.max(20, Math.min(MOST_POINTS, width / PIXELS_PER_POINT[resolution.density]));
  const ideal = range / 1000 / points;
  const step = NICE.find((n) => n >= ideal) ?? Math.ceil(ideal / 86_400) * 86_400;
  return Math.max(range < 60_000 ? 100 : 1000, step * 1000);
}
