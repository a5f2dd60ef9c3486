// A heat map of histograms, drawn on uPlot's axes: rows are buckets, lightness is how much falls into them.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { full, short } from "../lib/format";
import { formatTime, type Zone } from "../lib/time";
import type { Cell, HeatMap } from "./heat";
import { heat } from "./palette";
import { css, timeAxisSize, timeTicks, useWidth } from "./plot";

export function HeatChart(props: {
  map: HeatMap;
  height: number;
  zone: Zone;
  dark: boolean;
  label: string;
  onZoom: (from: number, to: number) => void;
  onReady: (canvas: HTMLCanvasElement) => void;
}) {
  const { map, height, zone, dark } = props;
  const host = useRef<HTMLDivElement>(null);
  const width = useWidth(host);
  const [tip, setTip] = useState<{ left: number; top: number; flip: boolean; cell: Cell }>();
  const latest = useRef(props);
  latest.current = props;

  useLayoutEffect(() => {
    const el = host.current;
    if (!el || width === 0) return;
    const axis = {
      stroke: css("--muted"),
      font: `11px ${getComputedStyle(document.body).fontFamily}`,
      grid: { show: false },
      ticks: { stroke: css("--grid"), width: 1, size: 4 },
    };
    const u = new uPlot(
      {
        width,
        height,
        padding: [12, 14, 0, 0],
        legend: { show: false },
        tzDate: (s) => (zone === "utc" ? uPlot.tzDate(new Date(s * 1000), "Etc/UTC") : new Date(s * 1000)),
        cursor: {
          drag: { x: true, y: false, setScale: false },
          points: { show: false },
          sync: { key: "query" },
        },
        scales: { x: { time: true }, y: { range: [0, Math.max(1, map.bounds.length - 1)] } },
        axes: [
          { ...axis, space: 70, size: timeAxisSize, values: timeTicks(zone) },
          {
            ...axis,
            size: 62,
            incrs: [1, 2, 5, 10, 20, 50, 100],
            values: (_u, ticks) =>
              ticks.map((i) => (Number.isInteger(i) ? short(map.bounds[i] ?? Number.NaN) : "")),
          },
        ],
        series: [{}, { paths: () => null, points: { show: false } }],
        hooks: {
          draw: [(plot) => paint(plot, map, dark)],
          setCursor: [(plot) => setTip(cellAt(plot, map))],
          setSelect: [
            (plot) => {
              if (plot.select.width < 6) return;
              const { left, width: w } = plot.select;
              latest.current.onZoom(plot.posToVal(left, "x"), plot.posToVal(left + w, "x"));
            },
          ],
        },
      },
      [map.times, map.times.map(() => 0)],
      el,
    );
    props.onReady(u.ctx.canvas);
    return () => {
      u.destroy();
      setTip(undefined);
    };
  }, [map, dark, zone, height, width]);

  return (
    <div class="chart">
      <div
        ref={host}
        class="chart-host"
        style={{ height: `${height}px` }}
        role="img"
        aria-label={props.label}
      />
      {tip && (
        <div
          class={`tip${tip.flip ? " flip" : ""}`}
          style={{ left: `${tip.left}px`, top: `${tip.top}px` }}
          role="status"
        >
          <div class="tip-time">{formatTime(map.times[tip.cell.t]! * 1000, zone)}</div>
          <b class="num">{full(Number(tip.cell.count.toPrecision(5)))}</b> between{" "}
          {short(map.bounds[tip.cell.from]!)} and {short(map.bounds[tip.cell.to]!)}
        </div>
      )}
    </div>
  );
}

function paint(u: uPlot, map: HeatMap, dark: boolean): void {
  const { ctx } = u;
  const half = map.times.length > 1 ? (map.times[1]! - map.times[0]!) / 2 : 0.5;
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  ctx.clip();
  for (const c of map.cells) {
    const t = map.times[c.t]!;
    const x0 = Math.floor(u.valToPos(t - half, "x", true));
    const x1 = Math.ceil(u.valToPos(t + half, "x", true));
    const y0 = Math.floor(u.valToPos(c.to, "y", true));
    const y1 = Math.ceil(u.valToPos(c.from, "y", true));
    // A root keeps sparse buckets visible beside full ones.
    ctx.fillStyle = heat(Math.sqrt(c.count / Math.max(1, c.to - c.from) / map.most), dark);
    ctx.fillRect(x0, y0, Math.max(1, x1 - x0), Math.max(1, y1 - y0));
  }
  ctx.restore();
}

function cellAt(u: uPlot, map: HeatMap) {
  const { left, top, idx } = u.cursor;
  if (left == null || top == null || left < 0 || idx == null) return undefined;
  const y = u.posToVal(top, "y");
  const cell = map.cells.find((c) => c.t === idx && c.from <= y && y < c.to);
  if (!cell) return undefined;
  return {
    left: left + u.over.offsetLeft,
    top: top + u.over.offsetTop,
    flip: left > u.over.clientWidth / 2,
    cell,
  };
}
