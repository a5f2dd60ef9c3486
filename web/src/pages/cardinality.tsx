// Cardinality: where the series are; any selector is taken apart in breakdown.tsx.
import { bytes, full, labelName, percent, quote, selector } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { humanDuration } from "../lib/time";
import type { NameValue, TsdbStatus } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { CutText } from "../ui/labels";
import { PageHead, Pending, StaleNote } from "../ui/parts";
import { Breakdown } from "./breakdown";
import "../styles/pages.css";

const PATH = "status/tsdb";

export function CardinalityPage() {
  const limit = param("limit") || "20";
  const res = useResource<TsdbStatus>(PATH, { limit });
  const d = res.data;
  return (
    <>
      <PageHead title="Cardinality" source={{ path: PATH, params: { limit }, resource: res }}>
        <label class="select">
          <span class="sr">Rows</span>
          <select value={limit} onChange={(e) => setParams({ limit: e.currentTarget.value })}>
            {["10", "20", "50", "200", "1000"].map((n) => (
              <option key={n} value={n}>
                Top {n}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="btn" onClick={res.reload}>
          Refresh
        </button>
      </PageHead>
      <StaleNote resource={res} />
      {!d ? (
        <Pending resource={res} />
      ) : (
        <>
          <ul class="tiles small">
            <Figure name="Series in memory" value={full(d.headStats.numSeries)} />
            <Figure name="Label pairs" value={full(d.headStats.numLabelPairs)} />
            <Figure name="Chunks" value={full(d.headStats.chunkCount)} />
            <Figure name="Time in memory" value={span(d.headStats.minTime, d.headStats.maxTime)} />
          </ul>
          <Breakdown />
          <div class="two">
            <Top
              title="Series by metric"
              rows={d.seriesCountByMetricName}
              whole={d.headStats.numSeries}
              pick={(name) => selector({ __name__: name })}
            />
            <Top
              title="Series by label pair"
              rows={d.seriesCountByLabelValuePair}
              whole={d.headStats.numSeries}
              pick={(pair) => {
                const at = pair.indexOf("=");
                return `{${labelName(pair.slice(0, at))}=${quote(pair.slice(at + 1))}}`;
              }}
            />
            <Top
              title="Values by label"
              rows={d.labelValueCountByLabelName}
              pick={(name) => `{${labelName(name)}!=""}`}
            />
            <Top
              title="Memory by label"
              rows={d.memoryInBytesByLabelName}
              format={bytes}
              pick={(name) => `{${labelName(name)}!=""}`}
            />
          </div>
        </>
      )}
    </>
  );
}

function span(from: number, to: number): string {
  return from > 0 && to >= from && to < 8e15 ? humanDuration((to - from) / 1000) : "–";
}

export function Figure({ name, value }: { name: string; value: string }) {
  return (
    <li>
      <div class="tile">
        <span class="tile-name">{name}</span>
        <span class="tile-value num">{value}</span>
      </div>
    </li>
  );
}

function Top(props: {
  title: string;
  rows: NameValue[] | null;
  whole?: number;
  format?: (n: number) => string;
  pick: (name: string) => string;
}) {
  const rows = props.rows ?? [];
  const most = Math.max(1, ...rows.map((r) => r.value));
  return (
    <section>
      <h2>{props.title}</h2>
      <DataTable<NameValue>
        label={props.title}
        rows={rows}
        rowKey={(r) => r.name}
        rowHeight={28}
        maxHeight="420px"
        empty="Nothing yet."
        columns={[
          {
            key: "name",
            title: "Name",
            sort: (r) => r.name,
            render: (r) => (
              <button
                type="button"
                class="plain cell mono"
                title="Look inside"
                onClick={() => {
                  setParams({ focus: props.pick(r.name) });
                  document.getElementById("focus")?.focus();
                }}
              >
                <CutText text={r.name} />
              </button>
            ),
          },
          {
            key: "bar",
            title: props.whole ? "Share" : "Relative",
            width: 130,
            optional: true,
            render: (r) => (
              <span class="meter-cell">
                <span class="meter" aria-hidden="true">
                  <span style={{ width: `${(100 * r.value) / (props.whole ?? most)}%` }} />
                </span>
                {props.whole && <span class="num">{percent(r.value, props.whole)}</span>}
              </span>
            ),
          },
          {
            key: "value",
            title: "Count",
            width: 84,
            align: "right",
            sort: (r) => r.value,
            render: (r) => <span class="num">{props.format ? props.format(r.value) : full(r.value)}</span>,
          },
        ]}
      />
    </section>
  );
}
