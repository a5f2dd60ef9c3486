// The exemplars of a graph as a table: the twin of the dots for keyboards and screen readers, and the way to traces.
import { useState } from "preact/hooks";
import { full } from "../lib/format";
import { traceLink, zone } from "../lib/prefs";
import { formatTime } from "../lib/time";
import { DataTable } from "../ui/DataTable";
import { LabelChips, LabelText } from "../ui/labels";
import { type Exemplar, traceUrl } from "./exemplars";

export function Exemplars(props: { all: Exemplar[]; picked: Exemplar | undefined }) {
  const { all, picked } = props;
  const [editing, setEditing] = useState(false);
  if (!all.length) return <p class="muted">No exemplars in this range.</p>;
  const linked = all.some((e) => traceUrl(traceLink.value, e.labels));
  // Newest first; the one that was clicked above all.
  const newest = [...all].reverse();
  const rows = picked ? [picked, ...newest.filter((e) => e !== picked)] : newest;
  return (
    <div class="exemplars">
      <p class="row">
        <b>{all.length} exemplars</b>
        <button type="button" class="link" aria-expanded={editing} onClick={() => setEditing(!editing)}>
          {linked ? "Change the trace link" : "Set a trace link"}
        </button>
      </p>
      {editing && (
        <p class="row">
          <input
            class="field mono wide-field"
            aria-label="Address of a trace"
            placeholder="https://tempo.example/trace/{trace_id}"
            spellcheck={false}
            value={traceLink.value}
            onInput={(e) => {
              traceLink.value = e.currentTarget.value.trim();
            }}
          />
          <span class="muted">{"{label}"} stands for a label of the exemplar. Kept in this browser.</span>
        </p>
      )}
      <DataTable<Exemplar>
        label="Exemplars"
        rows={rows}
        rowKey={(e, i) => `${i} ${e.time} ${e.value}`}
        rowHeight={28}
        maxHeight="240px"
        rowClass={(e) => (e === picked ? "strong" : "")}
        columns={[
          {
            key: "time",
            title: "Time",
            width: 190,
            sort: (e) => e.time,
            render: (e) => <span class="num">{formatTime(e.time * 1000, zone.value, true)}</span>,
          },
          {
            key: "value",
            title: "Value",
            width: 110,
            align: "right",
            sort: (e) => e.value,
            render: (e) => <span class="num">{full(e.value)}</span>,
          },
          {
            key: "trace",
            title: "Trace",
            width: 400,
            render: (e) => {
              const url = traceUrl(traceLink.value, e.labels);
              return (
                <span class="row tight">
                  {url && (
                    <a href={url} target="_blank" rel="noreferrer noopener">
                      Open
                    </a>
                  )}
                  <LabelChips labels={e.labels} />
                </span>
              );
            },
          },
          {
            key: "series",
            title: "Series",
            optional: true,
            render: (e) => <LabelText labels={e.series} />,
          },
        ]}
      />
    </div>
  );
}
