// The table of a panel: an instant query, one column a label.
import { useMemo, useState } from "preact/hooks";
import { type Answer, call, callUrl } from "../lib/api";
import { commonLabels, full, neat, num, selector, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { formatTime, humanDuration } from "../lib/time";
import type { HistogramValue, Labels, QueryData, VectorItem } from "../lib/types";
import { type Column, DataTable } from "../ui/DataTable";
import { LabelText } from "../ui/labels";
import { copyText, download, Menu } from "../ui/parts";
import { Busy } from "./Busy";
import { vectorToCsv } from "./export";
import { Empty, Hint } from "./late";
import { Notes } from "./Notes";
import type { TabProps } from "./PanelView";
import { EndField } from "./TimeControls";
import { useQuery } from "./useQuery";

interface Row {
  labels: Labels;
  text: string;
  /** The value as the server wrote it, where `text` is shorter. */
  exact?: string | undefined;
  value: number;
}
interface Table {
  at: number;
  answer: Answer<QueryData>;
}

const MOST_ASKED = 10_000;
const MOST_COLUMNS = 12;

export function TableTab(props: TabProps) {
  const { panel, onChange } = props;
  const [pick, setPick] = useState<[string, string][]>([]);
  const key = panel.expr ? JSON.stringify([panel.expr, panel.moment, props.turn]) : "";
  const run = useQuery<Table>(
    key,
    panel.moment === null ? props.refresh : 0,
    async (signal) => {
      const at = panel.moment ?? Date.now();
      const answer = await call<QueryData>(
        "query",
        { query: panel.expr, time: at / 1000, limit: MOST_ASKED },
        signal,
      );
      return { at, answer };
    },
    props.onFail,
  );
  const t = run.value;
  const rows = useMemo(() => (t ? toRows(t.answer.data, zone.value) : []), [t, zone.value]);
  const shown = rows.filter((r) => pick.every(([k, v]) => (r.labels[k] ?? "") === v));
  const common = useMemo(() => commonLabels(rows.map((r) => r.labels)), [rows]);
  const asked = t && { query: panel.expr, time: t.at / 1000 };
  const scalar = t && (t.answer.data.resultType === "scalar" || t.answer.data.resultType === "string");

  return (
    <div class="tab">
      <div class="controls">
        <EndField
          label="Evaluation time"
          value={panel.moment}
          onSet={(moment) => onChange({ moment })}
          onShift={(part) => {
            const to = (panel.moment ?? Date.now()) + part * panel.range;
            onChange({ moment: to >= Date.now() ? null : Math.round(to) });
          }}
        />
        <Menu
          label="Export"
          text="Export"
          items={[
            ["CSV", () => t && download("query.csv", csvOf(t.answer.data), "text/csv")],
            [
              "JSON",
              () => t && download("query.json", JSON.stringify(t.answer.data, null, 1), "application/json"),
            ],
            [
              "Copy as curl",
              () => asked && copyText(`curl -sG '${callUrl("query", asked).replace(/'/g, "'\\''")}'`),
            ],
            ["Copy address", () => copyText(location.href)],
          ]}
        />
        {pick.map(([k, v]) => (
          <button
            type="button"
            class="chip on"
            key={k}
            aria-label={`Remove the filter ${k}=${v}`}
            onClick={() => setPick(pick.filter(([x]) => x !== k))}
          >
            <bdi>{visible(`${k}=${v}`)}</bdi> ×
          </button>
        ))}
      </div>
      <Busy run={run} />
      {t && <Notes answer={t.answer} />}
      {scalar ? (
        <p class="scalar num">{rows[0]?.text}</p>
      ) : rows.length > 0 ? (
        <>
          {Object.keys(common).length > 0 && (
            <p class="common">
              <span class="muted">All: </span>
              <LabelText labels={common} wrap />
            </p>
          )}
          <DataTable<Row>
            label="Result"
            columns={columnsOf(rows, common, (k, v) => setPick([...pick.filter(([x]) => x !== k), [k, v]]))}
            rows={shown}
            rowKey={(r) => selector(r.labels)}
            rowHeight={28}
            maxHeight="min(70dvh, 640px)"
          />
          <p class="stats">
            <span>
              {shown.length === rows.length ? `${rows.length}` : `${shown.length} of ${rows.length}`} series
            </span>
            <span>{humanDuration(t!.answer.took / 1000)}</span>
            <span>at {formatTime(t!.at, zone.value)}</span>
          </p>
        </>
      ) : t ? (
        <Empty expr={panel.expr} at={t.at} onTry={(expr) => onChange({ expr })} />
      ) : props.failed ? null : panel.expr ? (
        <div class="placeholder chart-size" />
      ) : (
        <Hint onTry={(expr) => onChange({ expr })} />
      )}
    </div>
  );
}

function toRows(data: QueryData, z: "local" | "utc"): Row[] {
  if (data.resultType === "vector")
    return data.result.map((item) => ({
      labels: item.metric,
      text: item.value ? valueText(item.value[1]) : histogramText(item.histogram?.[1]),
      exact: item.value?.[1],
      value: item.value ? num(item.value[1]) : num(item.histogram?.[1].count),
    }));
  if (data.resultType === "matrix")
    return data.result.map((item) => {
      const values = item.values ?? [];
      const last = values.at(-1);
      const shown = values.slice(-200).map(([t, v]) => `${v} @${formatTime(t * 1000, z, true)}`);
      return {
        labels: item.metric,
        text: values.length
          ? `${values.length} samples: ${shown.reverse().join("  ")}`
          : `${item.histograms?.length ?? 0} histograms`,
        value: last ? num(last[1]) : Number.NaN,
      };
    });
  return [
    { labels: {}, text: data.resultType === "scalar" ? valueText(data.result[1]) : data.result[1], value: 0 },
  ];
}

function valueText(text: string): string {
  const n = num(text);
  return Number.isFinite(n) ? neat(n) : text;
}

function histogramText(h: HistogramValue | undefined): string {
  if (!h) return "–";
  const count = num(h.count);
  return `count ${full(count)}, sum ${full(num(h.sum))}, avg ${full(Number((num(h.sum) / count).toPrecision(6)))}`;
}

function csvOf(data: QueryData): string {
  if (data.resultType === "vector") return vectorToCsv(data.result);
  if (data.resultType === "matrix") {
    const flat: VectorItem[] = data.result.flatMap((item) =>
      (item.values ?? []).map((value) => ({ metric: item.metric, value })),
    );
    return vectorToCsv(flat);
  }
  return vectorToCsv([{ metric: {}, value: data.result }]);
}

function columnsOf(rows: Row[], common: Labels, onPick: (k: string, v: string) => void): Column<Row>[] {
  const longest = new Map<string, number>();
  for (const r of rows.slice(0, 500))
    for (const [k, v] of Object.entries(r.labels))
      if (!(k in common)) longest.set(k, Math.max(longest.get(k) ?? k.length + 2, v.length));
  const names = [...longest.keys()].sort((a, b) =>
    a === "__name__" ? -1 : b === "__name__" ? 1 : a < b ? -1 : 1,
  );
  const wide = rows.slice(0, 500).reduce((w, r) => Math.max(w, r.text.length), 5);
  const value: Column<Row> = {
    key: " value",
    title: "Value",
    align: "right",
    width: Math.min(760, Math.max(110, wide * 8.2 + 28)),
    sort: (r) => r.value,
    pin: wide < 20,
    render: (r) => (
      <span class="num" title={r.exact}>
        {r.text}
      </span>
    ),
  };
  if (names.length > MOST_COLUMNS || names.length === 0)
    return [
      {
        key: "series",
        title: "Series",
        width: 420,
        sort: (r) => selector(r.labels),
        render: (r) => <LabelText labels={r.labels} skip={common} />,
      },
      value,
    ];
  return [
    ...names.map((k, i): Column<Row> => {
      const width = Math.min(420, Math.max(70, longest.get(k)! * 7.2 + 26));
      return {
        key: k,
        title: k === "__name__" ? "metric" : visible(k),
        // The last label column takes what is left over.
        width: i === names.length - 1 && names.length < 5 ? undefined : width,
        sort: (r) => r.labels[k] ?? "",
        render: (r) =>
          r.labels[k] === undefined ? (
            <span class="muted">–</span>
          ) : (
            <button
              type="button"
              class="plain cell"
              title="Show only rows with this value"
              onClick={() => onPick(k, r.labels[k]!)}
            >
              <bdi>{visible(r.labels[k]!)}</bdi>
            </button>
          ),
      };
    }),
    value,
  ];
}
