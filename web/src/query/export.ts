// Results as CSV (RFC 4180).
import type { Frame } from "../chart/frame";
import { selector } from "../lib/format";
import type { VectorItem } from "../lib/types";
import type { Display } from "./state";

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

// Grafana asks for the data source when it reads this.
const DATA_SOURCE = `\${DS_PROMETHEUS}`;

/** A Grafana panel as JSON, for a dashboard's "Import" or its JSON model. */
export function grafanaPanel(expr: string, display: Display, heat: boolean): string {
  const stacked = display === "stacked";
  const panel = {
    type: heat ? "heatmap" : "timeseries",
    title: expr.length > 80 ? `${expr.slice(0, 79)}…` : expr,
    datasource: { type: "prometheus", uid: DATA_SOURCE },
    gridPos: { h: 8, w: 12, x: 0, y: 0 },
    targets: [
      {
        refId: "A",
        datasource: { type: "prometheus", uid: DATA_SOURCE },
        expr,
        editorMode: "code",
        range: true,
        legendFormat: heat ? "{{le}}" : "__auto",
        ...(heat ? { format: "heatmap" } : {}),
      },
    ],
    fieldConfig: {
      defaults: {
        custom: stacked
          ? { fillOpacity: 30, stacking: { mode: "normal", group: "A" } }
          : { fillOpacity: 0, stacking: { mode: "none", group: "A" } },
      },
      overrides: [],
    },
    options: {
      legend: { displayMode: "table", placement: "bottom", calcs: ["lastNotNull", "min", "max", "mean"] },
      tooltip: { mode: "multi", sort: "desc" },
    },
  };
  return JSON.stringify(panel, null, 2);
}

/** A rule file with one alert that fires while the expression has a result. */
export function alertRule(expr: string): string {
  const body = expr
    .split("\n")
    .map((line) => `          ${line}`)
    .join("\n");
  return `groups:
  - name: from-query
    rules:
      - alert: NewAlert
        expr: |-
${body}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "{{ $labels.instance }}: {{ $value }}"
`;
}
