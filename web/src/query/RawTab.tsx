// Samples as they are stored: their times, the gaps between them, what was scraped twice or not at all.
import { useMemo, useState } from "preact/hooks";
import { toFrameAt } from "../chart/frame";
import { TimeChart } from "../chart/TimeChart";
import { type Answer, call } from "../lib/api";
import { commonLabels, full, num, selector } from "../lib/format";
import { isDark, zone } from "../lib/prefs";
import { formatDuration, formatTime, humanDuration } from "../lib/time";
import type { MatrixItem, QueryData } from "../lib/types";
import { DataTable, useNarrow } from "../ui/DataTable";
import { LabelText } from "../ui/labels";
import { download, Menu } from "../ui/parts";
import { flatten, type Node, type SelectorNode, selectorText } from "./ast";
import { Busy } from "./Busy";
import { vectorToCsv } from "./export";
import { Empty, Hint } from "./late";
import { Notes } from "./Notes";
import type { TabProps } from "./PanelView";
import { gaps, type Spacing, spacing } from "./raw";
import { TimeControls } from "./TimeControls";
import { useQuery } from "./useQuery";

const MOST_SERIES = 200;

interface Raw {
  selectors: string[];
  used: string;
  from: number;
  end: number;
  answer: Answer<QueryData>;
  series: { item: MatrixItem; times: number[]; spacing: Spacing }[];
}

export function RawTab(props: TabProps) {
  const { panel, onChange } = props;
  const [chosen, setChosen] = useState("");
  const [open, setOpen] = useState("");
  const key = panel.expr ? JSON.stringify([panel.expr, panel.range, panel.end, chosen, props.turn]) : "";
  const run = useQuery<Raw>(
    key,
    panel.end === null ? props.refresh : 0,
    async (signal) => {
      const tree = (await call<Node>("parse_query", { query: panel.expr }, signal)).data;
      const selectors = [
        ...new Set(
          flatten(tree)
            .map((f) => f.node)
            .filter((n): n is SelectorNode => n.type === "vectorSelector" || n.type === "matrixSelector")
            .map((n) => selectorText(n, n.matchers, true)),
        ),
      ];
      const used = selectors.includes(chosen) ? chosen : (selectors[0] ?? "");
      const end = panel.end ?? Date.now();
      const answer = await call<QueryData>(
        "query",
        used
          ? { query: `${used}[${formatDuration(panel.range)}]`, time: end / 1000, limit: MOST_SERIES }
          : { query: "vector(0) > 1", time: end / 1000 },
        signal,
      );
      const items = answer.data.resultType === "matrix" ? answer.data.result : [];
      return {
        selectors,
        used,
        from: end - panel.range,
        end,
        answer,
        series: items.map((item) => {
          const times = [...(item.values ?? []), ...(item.histograms ?? [])].map((p) => p[0] * 1000);
          return { item, times, spacing: spacing(times) };
        }),
      };
    },
    props.onFail,
  );
  const r = run.value;
  const now = r?.series.find((s) => selector(s.item.metric) === open) ?? r?.series[0];
  const common = useMemo(() => commonLabels((r?.series ?? []).map((s) => s.item.metric)), [r]);
  if (!panel.expr) return <Hint onTry={(expr) => onChange({ expr })} />;
  return (
    <div class="tab">
      <div class="controls">
        <TimeControls panel={panel} step={0} plain onChange={onChange} />
        {r && r.selectors.length > 1 && (
          <label class="select">
            <span class="sr">Selector</span>
            <select value={r.used} onChange={(e) => setChosen(e.currentTarget.value)}>
              {r.selectors.map((s) => (
                <option key={s} value={s}>
                  {s}
                </option>
              ))}
            </select>
          </label>
        )}
        <Menu
          label="Export"
          text="Export"
          items={[
            [
              "CSV",
              () =>
                r &&
                download(
                  "samples.csv",
                  vectorToCsv(
                    r.series.flatMap((s) =>
                      (s.item.values ?? []).map((value) => ({ metric: s.item.metric, value })),
                    ),
                  ),
                  "text/csv",
                ),
            ],
            [
              "JSON",
              () => r && download("samples.json", JSON.stringify(r.answer.data, null, 1), "application/json"),
            ],
          ]}
        />
      </div>
      <Busy run={run} />
      {r && <Notes answer={r.answer} />}
      {r && now ? (
        <>
          {Object.keys(common).length > 0 && (
            <p class="common">
              <span class="muted">All: </span>
              <LabelText labels={common} wrap />
            </p>
          )}
          <DataTable<Raw["series"][number]>
            label="Series"
            rows={r.series}
            rowKey={(s) => selector(s.item.metric)}
            rowHeight={28}
            maxHeight="220px"
            rowClass={(s) => (s === now ? "strong" : "")}
            onRow={(s) => setOpen(selector(s.item.metric))}
            columns={[
              {
                key: "series",
                title: "Series",
                sort: (s) => selector(s.item.metric),
                render: (s) => (
                  <button
                    type="button"
                    class="plain cell"
                    aria-pressed={s === now}
                    onClick={() => setOpen(selector(s.item.metric))}
                  >
                    <LabelText labels={s.item.metric} skip={common} />
                  </button>
                ),
              },
              {
                key: "count",
                title: "Samples",
                width: 84,
                align: "right",
                sort: (s) => s.times.length,
                render: (s) => <span class="num">{full(s.times.length)}</span>,
              },
              {
                key: "every",
                title: "Every",
                width: 84,
                align: "right",
                optional: true,
                sort: (s) => s.spacing.median,
                render: (s) => <span class="num">{humanDuration(s.spacing.median / 1000)}</span>,
              },
              {
                key: "spread",
                title: "Shortest to longest",
                width: 150,
                align: "right",
                optional: true,
                sort: (s) => s.spacing.max,
                render: (s) => <span class="num">{spread(s.spacing)}</span>,
              },
              {
                key: "gaps",
                title: "Gaps",
                width: 64,
                align: "right",
                sort: (s) => s.spacing.gaps,
                render: (s) => (
                  <span class={`num${s.spacing.gaps ? " warn-text" : ""}`}>{s.spacing.gaps || ""}</span>
                ),
              },
            ]}
          />
          <div class="below">
            <One raw={r} one={now} />
          </div>
        </>
      ) : r ? (
        r.used ? (
          <Empty expr={r.used} at={r.end} onTry={(expr) => onChange({ expr })} />
        ) : (
          <div class="empty">This expression reads no series.</div>
        )
      ) : (
        !props.failed && <div class="placeholder" />
      )}
    </div>
  );
}

function spread(s: Spacing): string {
  const [min, max] = [humanDuration(s.min / 1000), humanDuration(s.max / 1000)];
  return min === max ? min : `${min} to ${max}`;
}

interface Sample {
  at: number;
  text: string;
  since: number | null;
  gap: boolean;
}

function One({ raw, one }: { raw: Raw; one: Raw["series"][number] }) {
  const frame = useMemo(() => toFrameAt(one.item), [one]);
  const samples = useMemo(() => {
    const points: [number, string][] = [
      ...(one.item.values ?? []),
      ...(one.item.histograms ?? []).map(([t, h]): [number, string] => [t, `count ${h.count}, sum ${h.sum}`]),
    ];
    const wide = new Set(gaps(one.times));
    return points
      .map(
        ([t, text], i): Sample => ({
          at: t * 1000,
          text,
          since: i ? t * 1000 - one.times[i - 1]! : null,
          gap: wide.has(i),
        }),
      )
      .reverse();
  }, [one]);
  const narrow = useNarrow();
  const spans = samples
    .filter((s) => s.gap && s.since !== null)
    .map((s) => ({ from: (s.at - s.since!) / 1000, to: s.at / 1000, tone: "warn" as const }));
  return (
    <>
      {frame.lines.length > 0 && (
        <TimeChart
          frame={frame}
          mode="lines"
          height={180}
          zone={zone.value}
          dark={isDark()}
          dots={one.times.length <= 400}
          spans={spans}
          label={`Samples of ${selector(one.item.metric)}`}
        />
      )}
      <p class="stats">
        <span>
          {formatTime(raw.from, zone.value)} to {formatTime(raw.end, zone.value)}
        </span>
        <span>half of the distances are {humanDuration(one.spacing.median / 1000)} or less</span>
        {one.spacing.gaps > 0 && (
          <span class="warn-text">
            {one.spacing.gaps === 1 ? "1 gap" : `${one.spacing.gaps} gaps`}, marked
          </span>
        )}
        {raw.series.length === MOST_SERIES && <span>the first {MOST_SERIES} series</span>}
      </p>
      <DataTable<Sample>
        label="Samples"
        rows={samples}
        rowKey={(s, i) => `${i} ${s.at}`}
        rowHeight={26}
        maxHeight="320px"
        columns={[
          {
            key: "at",
            title: "Time",
            width: 200,
            sort: (s) => s.at,
            render: (s) => <span class="num">{formatTime(s.at, zone.value, true)}</span>,
          },
          {
            key: "since",
            title: "After",
            optional: true,
            width: 84,
            align: "right",
            sort: (s) => s.since ?? Number.NaN,
            render: (s) => (
              <span class={`num${s.gap ? " warn-text" : ""}`}>
                {s.since === null ? "–" : humanDuration(s.since / 1000)}
              </span>
            ),
          },
          {
            key: "value",
            title: "Value",
            width: narrow ? 130 : undefined,
            align: "right",
            sort: (s) => num(s.text),
            render: (s) => <span class="mono">{s.text}</span>,
          },
        ]}
      />
    </>
  );
}
