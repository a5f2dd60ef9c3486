// Cardinality: where the series are, and what any selector is made of.
import { useEffect, useState } from "preact/hooks";
import { call, explainError, isAbort } from "../lib/api";
import { urlOf } from "../lib/base";
import { bytes, full, labelName, percent, quote, selector, short, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { formatTime } from "../lib/time";
import type { NameValue, QueryData, TsdbStatus } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { PageHead, Pending, StaleNote } from "../ui/parts";

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
            <Figure name="Oldest sample" value={time(d.headStats.minTime)} />
            <Figure name="Newest sample" value={time(d.headStats.maxTime)} />
          </ul>
          <Focus />
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

function time(ms: number): string {
  return Math.abs(ms) > 8e15 || ms <= 0 ? "–" : formatTime(ms, zone.value);
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
                <bdi>{visible(r.name)}</bdi>
              </button>
            ),
          },
          {
            key: "bar",
            title: props.whole ? "Share" : "Relative",
            width: 120,
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
            width: 96,
            align: "right",
            sort: (r) => r.value,
            render: (r) => <span class="num">{props.format ? props.format(r.value) : full(r.value)}</span>,
          },
        ]}
      />
    </section>
  );
}

interface Part {
  label: string;
  values: number;
}
// A query a label: enough for real series, bounded for hostile ones.
const MOST_LABELS = 40;

/** Any selector taken apart: how many series, and how many values each label has among them. */
function Focus() {
  const focus = param("focus");
  const [text, setText] = useState(focus);
  const [parts, setParts] = useState<Part[]>();
  const [total, setTotal] = useState<number>();
  const [error, setError] = useState("");
  useEffect(() => {
    setText(focus);
    setParts(undefined);
    setTotal(undefined);
    setError("");
    if (!focus) return;
    const stop = new AbortController();
    const count = async (query: string) => {
      const { data } = await call<QueryData>("query", { query }, stop.signal);
      return data.resultType === "vector" ? Number(data.result[0]?.value?.[1] ?? 0) : 0;
    };
    (async () => {
      setTotal(await count(`count(${focus})`));
      const start = Math.floor(Date.now() / 1000) - 300;
      const { data } = await call<string[]>("labels", { "match[]": focus, start, limit: 200 }, stop.signal);
      const names = (data ?? []).slice(0, MOST_LABELS);
      const done: Part[] = [];
      // Three at a time: a look inside must not crowd out dashboards.
      const queue = [...names];
      await Promise.all(
        [0, 1, 2].map(async () => {
          for (let label = queue.shift(); label !== undefined; label = queue.shift())
            done.push({ label, values: await count(`count(count by (${labelName(label)}) (${focus}))`) });
        }),
      );
      setParts(done.sort((a, b) => b.values - a.values));
    })().catch((e: unknown) => {
      if (!isAbort(e)) setError(explainError(e));
    });
    return () => stop.abort();
  }, [focus]);
  return (
    <section class="card focus-card" aria-labelledby="focus-title">
      <h2 id="focus-title">Look inside a selector</h2>
      <form
        class="row"
        onSubmit={(e) => {
          e.preventDefault();
          setParams({ focus: text.trim() });
        }}
      >
        <input
          id="focus"
          class="field mono wide-field"
          aria-label="Selector"
          placeholder='{job="node"}'
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={(e) => setText(e.currentTarget.value)}
        />
        <button type="submit" class="btn primary">
          Count
        </button>
        {total !== undefined && (
          <span class="num">
            <b>{full(total)}</b> series now
          </span>
        )}
        {focus && (
          <a class="btn small" href={urlOf(queryLink(focus, { tab: "table" }))}>
            Open in Query
          </a>
        )}
      </form>
      {error && (
        <div class="notice bad" role="alert">
          {error}
        </div>
      )}
      {parts && parts.length > 0 && (
        <ul class="parts">
          {parts.map((p) => (
            <li key={p.label}>
              <a
                href={urlOf(
                  queryLink(`sort_desc(count by (${labelName(p.label)}) (${focus}))`, { tab: "table" }),
                )}
                title="Series by value of this label"
              >
                <bdi class="mono">{visible(p.label)}</bdi>
              </a>
              <span class="num muted">
                {short(p.values)} {p.values === 1 ? "value" : "values"}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
