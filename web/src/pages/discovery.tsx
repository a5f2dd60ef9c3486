// Service discovery: what was found, what became a target, what was dropped, and by which rule.
import { useMemo, useState } from "preact/hooks";
import { visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import type { Labels, TargetsData } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { LabelChips, LabelRows } from "../ui/labels";
import { Badge, Drawer, FilterBox, PageHead, Pending, Segments, StaleNote } from "../ui/parts";
import { ScrapeErrorBox } from "../ui/ScrapeErrorBox";
import { RelabelSteps } from "./relabel";
import "../styles/pages.css";
import "../styles/scraping.css";

const PATH = "targets";
const PARAMS = { state: "any" };

interface Found {
  key: string;
  pool: string;
  kept: boolean;
  discovered: Labels;
  labels: Labels;
  error: string;
}
type Filter = "all" | "kept" | "failing" | "dropped";

export function DiscoveryPage() {
  const res = useResource<TargetsData>(PATH, PARAMS, 10);
  const [open, setOpen] = useState("");
  const state = (param("state") || "all") as Filter;
  const search = param("search");
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = useMemo(() => found(res.data), [res.data]);
  const fits = (f: Found, s: Filter) =>
    s === "all" || (s === "dropped" ? !f.kept : s === "failing" ? f.error !== "" : f.kept);
  const rows = all.filter((f) => {
    if (!fits(f, state)) return false;
    return words.every((w) => textOf(f).includes(w));
  });
  const count = (s: Filter) => all.reduce((n, f) => n + Number(fits(f, s)), 0);
  const total = Object.values(res.data?.droppedTargetCounts ?? {}).reduce((a, b) => a + b, 0);
  const dropped = Math.max(total, count("dropped"));
  const detail = all.find((f) => f.key === open);
  return (
    <>
      <PageHead title="Service discovery" source={{ path: PATH, params: PARAMS, resource: res }}>
        <FilterBox value={search} label="Filter by any label" onChange={(v) => setParams({ search: v })} />
        <Segments<Filter>
          label="Outcome"
          value={state}
          options={[
            ["all", `All ${all.length}`],
            ["failing", `Failing ${count("failing")}`],
            ["kept", `Kept ${count("kept")}`],
            ["dropped", `Dropped ${dropped}`],
          ]}
          onChange={(s) => setParams({ state: s === "all" ? "" : s })}
        />
      </PageHead>
      <StaleNote resource={res} />
      {total > count("dropped") && (
        <p class="muted">
          {total} targets were dropped; the server keeps the labels of {count("dropped")} of them.
        </p>
      )}
      {!res.data ? (
        <Pending resource={res} />
      ) : (
        <DataTable<Found>
          label="Discovered targets"
          rows={rows}
          rowKey={(f) => f.key}
          rowHeight={32}
          onRow={(f) => setOpen(f.key)}
          empty={all.length ? "Nothing matches these filters." : "Nothing was discovered."}
          columns={[
            {
              key: "outcome",
              title: "Outcome",
              width: 116,
              sort: (f) => (f.error ? 0 : f.kept ? 1 : 2),
              render: (f) => (
                <button type="button" class="plain" aria-haspopup="dialog" onClick={() => setOpen(f.key)}>
                  {f.error ? (
                    <Badge tone="bad">failing</Badge>
                  ) : f.kept ? (
                    <Badge tone="good">kept</Badge>
                  ) : (
                    <Badge tone="quiet">dropped</Badge>
                  )}
                </button>
              ),
            },
            {
              key: "address",
              title: "Address",
              width: 220,
              sort: (f) => f.discovered.__address__ ?? "",
              render: (f) => <bdi class="mono">{visible(f.discovered.__address__ ?? "–")}</bdi>,
            },
            {
              key: "pool",
              title: "Scrape pool",
              width: 150,
              optional: true,
              sort: (f) => f.pool,
              render: (f) => <bdi>{visible(f.pool)}</bdi>,
            },
            {
              key: "labels",
              title: "Target labels, or those discovered",
              optional: true,
              render: (f) =>
                f.error ? (
                  <bdi class="bad-text">{visible(f.error)}</bdi>
                ) : (
                  <LabelChips labels={f.kept ? f.labels : f.discovered} />
                ),
            },
          ]}
        />
      )}
      {detail && <FoundDrawer found={detail} onClose={() => setOpen("")} />}
    </>
  );
}

function found(data: TargetsData | undefined): Found[] {
  if (!data) return [];
  const kept = data.activeTargets.map(
    (t, i): Found => ({
      key: `a${i}${t.scrapeUrl}`,
      pool: t.scrapePool,
      kept: true,
      discovered: t.discoveredLabels,
      labels: t.labels,
      error: t.lastError,
    }),
  );
  const dropped = (data.droppedTargets ?? []).map(
    (t, i): Found => ({
      key: `d${i}`,
      pool: t.scrapePool ?? t.discoveredLabels.job ?? "",
      kept: false,
      discovered: t.discoveredLabels,
      labels: {},
      error: "",
    }),
  );
  // Failing first.
  return [...kept.filter((f) => f.error), ...kept.filter((f) => !f.error), ...dropped];
}

const TEXTS = new WeakMap<Found, string>();

/** What the filter looks through. */
function textOf(f: Found): string {
  const known = TEXTS.get(f);
  if (known !== undefined) return known;
  const text = [f.pool, f.error, ...pairs(f.discovered), ...pairs(f.labels)].join(" ").toLowerCase();
  TEXTS.set(f, text);
  return text;
}

function pairs(labels: Labels): string[] {
  return Object.entries(labels).map(([k, v]) => `${k}=${v}`);
}

function FoundDrawer({ found: f, onClose }: { found: Found; onClose: () => void }) {
  return (
    <Drawer title={<bdi>{visible(f.discovered.__address__ ?? f.pool)}</bdi>} onClose={onClose}>
      <p>
        {f.kept ? <Badge tone="good">kept</Badge> : <Badge tone="quiet">dropped by relabeling</Badge>} in pool{" "}
        <bdi>
          <b>{visible(f.pool)}</b>
        </bdi>
      </p>
      {f.error && <ScrapeErrorBox text={f.error} />}
      <h3>Relabeling, step by step</h3>
      <RelabelSteps pool={f.pool} labels={f.discovered} />
      {f.kept && (
        <>
          <h3>Target labels</h3>
          <LabelRows labels={f.labels} />
        </>
      )}
      <h3>Discovered labels</h3>
      <LabelRows labels={f.discovered} />
    </Drawer>
  );
}
