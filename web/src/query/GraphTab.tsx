// The graph of a panel: time controls, the range query, the chart, its legend, and what can be taken away from it.
import { useMemo, useRef, useState } from "preact/hooks";
import { biggest, type Frame, toFrame } from "../chart/frame";
import { heatKind, toHeat } from "../chart/heat";
import { type Ink, ink } from "../chart/palette";
import { TimeChart } from "../chart/TimeChart";
import { type Answer, call, callUrl } from "../lib/api";
import { commonLabels, full, selector } from "../lib/format";
import { isDark, zone } from "../lib/prefs";
import { formatDuration, humanDuration } from "../lib/time";
import type { MatrixItem, QueryData } from "../lib/types";
import { useNarrow } from "../ui/DataTable";
import { lazy } from "../ui/lazy";
import { copyText, download, Menu, Segments } from "../ui/parts";
import { Busy } from "./Busy";
import { askExemplars, type Exemplar, marksOf, thin } from "./exemplars";
import { Legend } from "./Legend";
import { Empty, Hint } from "./late";
import { zoomed } from "./move";
import { Notes } from "./Notes";
import type { TabProps } from "./PanelView";
import { type Display, stepOf } from "./state";
import { TextField, TimeControls } from "./TimeControls";
import { useQuery } from "./useQuery";

const HeatChart = lazy(() => import("../chart/HeatChart").then((m) => m.HeatChart));
const Exemplars = lazy(() => import("./Exemplars").then((m) => m.Exemplars));
/** What exports needs is fetched with the first one. */
function exporting(work: (module: typeof import("./export")) => void): void {
  import("./export").then(work, () => {
    // A new version of the server has other files: nothing is exported until the page is loaded again.
  });
}

const MOST_DRAWN = 50;
// More series than this would be too many for eyes and browser; the answer then says that it was cut.
const MOST_ASKED = 10_000;

interface Graph {
  start: number;
  end: number;
  step: number;
  answer: Answer<QueryData>;
  items: MatrixItem[];
  past: MatrixItem[] | undefined;
  exemplars: Exemplar[];
}

export function GraphTab(props: TabProps) {
  const { panel, onChange } = props;
  const narrow = useNarrow();
  const width = Math.max(300, Math.min(innerWidth - (narrow ? 40 : 260), 1800));
  const step = stepOf(panel.resolution, panel.range, Math.round(width / 200) * 200);
  const { all } = panel;
  const [off, setOff] = useState<ReadonlySet<string>>(new Set());
  const canvas = useRef<HTMLCanvasElement | null>(null);

  const key = panel.expr
    ? JSON.stringify([panel.expr, panel.range, panel.end, step, panel.compare, panel.exemplars, props.turn])
    : "";
  const run = useQuery<Graph>(
    key,
    panel.end === null ? props.refresh : 0,
    async (signal) => {
      // Both edges lie on multiples of the step: points do not wobble from one refresh to the next.
      const now = Date.now();
      let end = Math.floor((panel.end ?? now) / step) * step;
      let start = Math.ceil((end - panel.range) / step) * step;
      const ask = (shift: number) =>
        call<QueryData>(
          "query_range",
          {
            query: panel.expr,
            start: (start - shift) / 1000,
            end: (end - shift) / 1000,
            step: step / 1000,
            limit: MOST_ASKED,
          },
          signal,
        );
      let [answer, past, exemplars] = await Promise.all([
        ask(0),
        panel.compare ? ask(panel.compare) : undefined,
        panel.exemplars ? askExemplars(panel.expr, start, end, signal) : [],
      ]);
      if (panel.end === null && end < now && !matrix(answer.data).length) {
        // All samples may be younger than the last multiple of the step, as on a server that has just begun.
        start += now - end;
        end = now;
        answer = await ask(0);
      }
      return {
        start,
        end,
        step,
        answer,
        items: matrix(answer.data),
        past: past && matrix(past.data),
        exemplars,
      };
    },
    props.onFail,
  );

  const g = run.value;
  const frame = useMemo(() => g && toFrame(g.items, g.start, g.end, g.step), [g]);
  const lines = useMemo(
    () => (frame ? (all ? frame.lines : biggest(frame.lines, MOST_DRAWN)) : []),
    [frame, all],
  );
  const drawn: Frame | undefined = useMemo(() => frame && { times: frame.times, lines }, [frame, lines]);
  const ghost = useMemo(() => {
    if (!g?.past) return undefined;
    const before = toFrame(g.past, g.start, g.end, g.step, panel.compare);
    const byName = new Map(before.lines.map((l) => [selector(l.labels), l]));
    return lines.map((l) => byName.get(selector(l.labels)));
  }, [g, lines]);
  const common = useMemo(() => commonLabels(lines.map((l) => l.labels)), [lines]);
  const dark = isDark();
  const inks: Ink[] = useMemo(() => lines.map((_, i) => ink(i, dark)), [lines, dark]);
  const hidden = useMemo(() => {
    const h = new Set<number>();
    lines.forEach((l, i) => {
      if (off.has(selector(l.labels))) h.add(i);
    });
    return h;
  }, [lines, off]);

  const kind = useMemo(() => heatKind(g?.items ?? []), [g]);
  // Native histograms have no lines to draw: they are heat maps whatever was chosen.
  const asHeat =
    kind !== null &&
    (panel.display === "heatmap" || panel.display === "auto" || (kind === "native" && !frame?.lines.length));
  const heat = useMemo(
    () => (g && asHeat ? toHeat(g.items, g.start, g.end, g.step) : undefined),
    [g, asHeat],
  );
  const shownExemplars = useMemo(() => (g ? thin(g.exemplars, g.start, g.end) : []), [g]);
  const marks = useMemo(() => marksOf(shownExemplars), [shownExemplars]);
  const [picked, setPicked] = useState<Exemplar>();
  const pan = (seconds: number) => {
    const end = (panel.end ?? g?.end ?? Date.now()) - seconds * 1000;
    onChange({ end: end >= Date.now() ? null : Math.round(end) });
  };
  const zoom = (from: number, to: number) =>
    onChange({ end: Math.round(to * 1000), range: Math.max(1000, Math.round((to - from) * 1000)) });

  const toggle = (i: number, alone: boolean) => {
    const names = lines.map((l) => selector(l.labels));
    const mine = names[i]!;
    if (alone) {
      const isAlone = names.every((n, k) => k === i || off.has(n)) && !off.has(mine);
      setOff(isAlone ? new Set() : new Set(names.filter((n) => n !== mine)));
    } else {
      const next = new Set(off);
      if (!next.delete(mine)) next.add(mine);
      setOff(next);
    }
  };

  const asked = g && {
    query: panel.expr,
    start: g.start / 1000,
    end: g.end / 1000,
    step: g.step / 1000,
  };
  return (
    <div class="tab">
      <div class="controls">
        <TimeControls panel={panel} step={step} onChange={onChange} />
        <Segments<Display>
          label="Draw as"
          value={panel.display === "auto" ? (asHeat ? "heatmap" : "lines") : panel.display}
          options={[
            ["lines", "Lines"],
            ["stacked", "Stacked"],
            ...(kind || panel.display === "heatmap" ? [["heatmap", "Heatmap"] as [Display, string]] : []),
          ]}
          onChange={(display) => onChange({ display })}
        />
        {!asHeat && (
          <>
            <label class="select">
              <span class="sr">Compare with the past</span>
              <select
                value={String(panel.compare)}
                onChange={(e) => onChange({ compare: Number(e.currentTarget.value) })}
              >
                <option value="0">Compare: off</option>
                {COMPARE.map(([text, ms]) => (
                  <option key={ms} value={String(ms)}>
                    {text}
                  </option>
                ))}
                {panel.compare > 0 && !COMPARE.some(([, ms]) => ms === panel.compare) && (
                  <option value={String(panel.compare)}>{formatDuration(panel.compare)} earlier</option>
                )}
              </select>
            </label>
            <TextField
              label="Lowest value of the vertical axis"
              value={panel.yMin === null ? "" : String(panel.yMin)}
              placeholder="Y: auto"
              look="roomy"
              size={6}
              parse={(t) => {
                if (t.trim() === "" || t.trim() === "auto") return Number.NaN;
                const n = Number(t);
                return Number.isFinite(n) ? n : null;
              }}
              onSet={(n) => onChange({ yMin: Number.isNaN(n) ? null : n })}
            />
            <label class="tick">
              <input
                type="checkbox"
                checked={panel.exemplars}
                onChange={(e) => onChange({ exemplars: e.currentTarget.checked })}
              />
              Exemplars
            </label>
          </>
        )}
        <Menu
          label="Export"
          text="Export"
          items={[
            ["CSV", () => drawn && exporting((m) => download("query.csv", m.frameToCsv(drawn), "text/csv"))],
            [
              "JSON",
              () => g && download("query.json", JSON.stringify(g.answer.data, null, 1), "application/json"),
            ],
            ["PNG", () => canvas.current && savePng(canvas.current)],
            ["Copy as curl", () => asked && copyText(`curl -sG ${shell(callUrl("query_range", asked))}`)],
            [
              "Copy as Grafana panel",
              () => exporting((m) => copyText(m.grafanaPanel(panel.expr, panel.display, asHeat))),
            ],
            ["Copy as alert rule", () => exporting((m) => copyText(m.alertRule(panel.expr)))],
            ["Copy address", () => copyText(location.href)],
          ]}
        />
      </div>
      <Busy run={run} />
      {g && <Notes answer={g.answer} />}
      {heat ? (
        <>
          <HeatChart
            map={heat}
            height={narrow ? 240 : 340}
            zone={zone.value}
            dark={dark}
            label={`Heat map of ${panel.expr}`}
            onZoom={zoom}
            onReady={(c) => {
              canvas.current = c;
            }}
          />
          <p class="stats">
            <span>{g!.items.length} series</span>
            <span>{heat.bounds.length} bucket bounds</span>
            <span>{humanDuration(g!.answer.took / 1000)}</span>
            <span>step {formatDuration(g!.step)}</span>
          </p>
        </>
      ) : drawn && drawn.lines.length > 0 ? (
        <>
          <TimeChart
            frame={drawn}
            ghost={ghost}
            mode={panel.display === "stacked" ? "stacked" : "lines"}
            height={narrow ? 240 : 340}
            zone={zone.value}
            dark={dark}
            yMin={panel.yMin}
            marks={panel.exemplars ? marks : undefined}
            onMark={(i) => setPicked(shownExemplars[i])}
            hidden={hidden}
            common={common}
            label={`Graph of ${panel.expr}`}
            inks={inks}
            sync="query"
            onReady={(c) => {
              canvas.current = c;
            }}
            onZoom={zoom}
            onPan={pan}
            onZoomOut={() => onChange(zoomed(panel, 2))}
          />
          <p class="stats">
            <span>
              {full(frame!.lines.length)} series
              {frame!.lines.length > MOST_DRAWN && (
                <>
                  , {all ? "all" : `the ${MOST_DRAWN} highest`} drawn{" "}
                  <button type="button" class="link" onClick={() => onChange({ all: !all })}>
                    draw {all ? "fewer" : "all"}
                  </button>
                </>
              )}
            </span>
            <span>{humanDuration(g!.answer.took / 1000)}</span>
            <span>step {formatDuration(g!.step)}</span>
          </p>
          {panel.exemplars && <Exemplars all={g!.exemplars} picked={picked} />}
          <Legend lines={lines} ghost={ghost} inks={inks} hidden={hidden} common={common} onToggle={toggle} />
        </>
      ) : g ? (
        <Empty expr={panel.expr} at={g.end} onTry={(expr) => onChange({ expr })} />
      ) : props.failed ? null : panel.expr ? (
        <div class="placeholder chart-size" />
      ) : (
        <Hint onTry={(expr) => onChange({ expr })} />
      )}
    </div>
  );
}

const COMPARE: [string, number][] = [
  ["1 hour earlier", 3_600_000],
  ["1 day earlier", 86_400_000],
  ["1 week earlier", 7 * 86_400_000],
];

function matrix(data: QueryData): MatrixItem[] {
  return data.resultType === "matrix" ? data.result : [];
}

function shell(text: string): string {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

/** Saves the chart on the page's background: a transparent picture would be unreadable where it is pasted. */
function savePng(source: HTMLCanvasElement): void {
  const copy = document.createElement("canvas");
  copy.width = source.width;
  copy.height = source.height;
  const ctx = copy.getContext("2d");
  if (!ctx) return;
  ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--surface");
  ctx.fillRect(0, 0, copy.width, copy.height);
  ctx.drawImage(source, 0, 0);
  copy.toBlob((blob) => blob && download("graph.png", blob));
}
