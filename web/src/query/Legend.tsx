// The legend: what all series share once, then a row for each with its figures.

import type { Line } from "../chart/frame";
import type { Ink } from "../chart/palette";
import { delta } from "../chart/TimeChart";
import { full, short } from "../lib/format";
import type { Labels } from "../lib/types";
import { type Column, DataTable } from "../ui/DataTable";
import { LabelText } from "../ui/labels";

interface Entry {
  line: Line;
  i: number;
}

export function Legend(props: {
  lines: Line[];
  ghost: (Line | undefined)[] | undefined;
  inks: Ink[];
  hidden: ReadonlySet<number>;
  common: Labels;
  onToggle: (index: number, alone: boolean) => void;
}) {
  const { lines, ghost, inks, hidden, common } = props;
  const figure = (title: string, key: "last" | "min" | "max" | "avg", optional = false): Column<Entry> => ({
    key,
    title,
    width: 88,
    align: "right",
    optional,
    sort: (e) => e.line.stats[key] ?? Number.NaN,
    render: (e) => {
      const v = e.line.stats[key];
      return (
        <span class="num" title={v === null ? "" : full(v)}>
          {v === null ? "–" : short(v, 4)}
        </span>
      );
    },
  });
  const columns: Column<Entry>[] = [
    {
      key: "series",
      title: "Series",
      render: ({ line, i }) => (
        <button
          type="button"
          class="plain legend-name"
          aria-pressed={!hidden.has(i)}
          title="Click: this series alone. Ctrl-click: hide or show it."
          onClick={(e) => props.onToggle(i, !(e.ctrlKey || e.metaKey))}
        >
          <Swatch ink={inks[i]!} />
          <LabelText labels={line.labels} skip={common} />
        </button>
      ),
    },
    figure("Last", "last"),
    figure("Min", "min", true),
    figure("Max", "max", true),
    figure("Avg", "avg", true),
  ];
  if (ghost)
    columns.push({
      key: "delta",
      title: "Change",
      width: 92,
      align: "right",
      render: ({ line, i }) => {
        const before = ghost[i]?.stats.last;
        const now = line.stats.last;
        return <span class="num">{before == null || now === null ? "–" : delta(now, before)}</span>;
      },
    });
  const shared = Object.keys(common).length > 0;
  return (
    <div class="legend">
      {shared && (
        <p class="common">
          <span class="muted">All: </span>
          <LabelText labels={common} wrap />
        </p>
      )}
      <DataTable<Entry>
        label="Legend"
        columns={columns}
        rows={lines.map((line, i) => ({ line, i }))}
        rowKey={(e) => String(e.i)}
        rowHeight={26}
        maxHeight="300px"
        initialSort={{ key: "max", down: true }}
        rowClass={(e) => (hidden.has(e.i) ? "dim" : "")}
      />
    </div>
  );
}

function Swatch({ ink }: { ink: Ink }) {
  return (
    <svg class="dash" width="18" height="8" viewBox="0 0 18 8" aria-hidden="true" focusable="false">
      <line
        x1="0"
        y1="4"
        x2="18"
        y2="4"
        stroke={ink.colour}
        stroke-width="3"
        stroke-dasharray={ink.dash.join(" ")}
      />
    </svg>
  );
}
