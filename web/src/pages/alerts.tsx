// Alerts: one dense line a rule, what fires first, the last day of each; and the silences that keep some of them quiet.
import { useMemo, useState } from "preact/hooks";
import { visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { externalLabels, type Kept, keptOf, type SilencesData, silencing } from "../lib/silences";
import { apiTime } from "../lib/time";
import { byLabels, runsOf } from "../lib/timeline";
import type { AlertItem, Labels, QueryData, Rule, RulesData } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { CutText, LabelChips } from "../ui/labels";
import { Ago, Badge, FilterBox, PageHead, Pending, Segments, StaleNote } from "../ui/parts";
import { Strip } from "../ui/Strip";
import { AlertDrawer } from "./alertdrawer";
import { type RuleRow, rulesOf, STATE_TONE } from "./ruleparts";
import { SilenceForm, SilencesView } from "./silences";
import "../styles/pages.css";

const PATH = "rules";
const PARAMS = { type: "alert" };
const RANK: Record<string, number> = { firing: 0, pending: 1, unknown: 2, inactive: 3 };
type Filter = "all" | "firing" | "pending" | "inactive";
type View = "alerts" | "silences";

const DAY = 86_400;
// Each sample looks back over its step, so that a short alert is not stepped over.
const STEP = 900;
const HISTORY = `max by (alertname, alertstate) (max_over_time(ALERTS[${STEP}s]))`;

/** The newest edge of the day that is shown; moves in whole steps. */
function edge(): number {
  return Math.ceil(Date.now() / 1000 / STEP) * STEP;
}

export function AlertsPage() {
  const res = useResource<RulesData>(PATH, PARAMS, 5);
  const [open, setOpen] = useState("");
  const view = (param("view") || "alerts") as View;
  const to = edge();
  const past = useResource<QueryData>(
    "query_range",
    { query: HISTORY, start: to - DAY, end: to, step: STEP, limit: 5000 },
    60,
  );
  const silences = useResource<SilencesData>("alertmanagers/silences", {}, 15);
  const config = useResource<{ yaml: string }>("status/config", {}, 300);
  const external = useMemo(() => externalLabels(config.data?.yaml ?? ""), [config.data]);
  const [form, setForm] = useState<{ labels: Labels; from?: Kept | undefined }>();
  const state = (param("state") || "all") as Filter;
  const search = param("search");
  const all = rulesOf(res.data).filter((r) => r.rule.type === "alerting");
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = all
    .filter((r) => state === "all" || r.rule.state === state)
    .filter((r) => {
      const text = JSON.stringify([
        r.rule.name,
        r.group,
        r.rule.labels,
        r.rule.alerts?.map((a) => a.labels),
      ]).toLowerCase();
      return words.every((w) => text.includes(w.replace(/"/g, "")));
    })
    .sort((a, b) => (RANK[a.rule.state ?? ""] ?? 9) - (RANK[b.rule.state ?? ""] ?? 9));
  const count = (s: string) => all.filter((r) => r.rule.state === s).length;
  const detail = all.find((r) => r.key === open);
  const kept = useMemo(() => keptOf(silences.data), [silences.data]);
  const active = useMemo(() => all.flatMap((r) => r.rule.alerts ?? []), [res.data]);
  const history = useMemo(() => {
    const items = past.data?.resultType === "matrix" ? past.data.result : [];
    const groups = byLabels(items, (labels) => labels.alertname ?? "");
    return new Map([...groups].map(([name, found]) => [name, runsOf(found, STEP)]));
  }, [past.data]);
  const quiet = (rule: Rule) =>
    (rule.alerts ?? []).filter((a) => silencing(kept, a.labels, external).length > 0).length;
  const current = kept.filter((s) => s.status?.state === "active").length;
  const onNew = (labels: Labels, from?: Kept) => setForm({ labels, from });
  return (
    <>
      <PageHead title="Alerts" source={{ path: PATH, params: PARAMS, resource: res }}>
        <FilterBox
          value={search}
          label="Filter by name or label"
          onChange={(v) => setParams({ search: v })}
        />
        <Segments<View>
          label="View"
          value={view}
          options={[
            ["alerts", "Alerts"],
            ["silences", silences.data ? `Silences ${current}` : "Silences"],
          ]}
          onChange={(v) => setParams({ view: v === "alerts" ? "" : v })}
        />
        {view === "alerts" && (
          <Segments<Filter>
            label="State"
            value={state}
            options={[
              ["all", `All ${all.length}`],
              ["firing", `Firing ${count("firing")}`],
              ["pending", `Pending ${count("pending")}`],
              ["inactive", `Inactive ${count("inactive")}`],
            ]}
            onChange={(s) => setParams({ state: s === "all" ? "" : s })}
          />
        )}
      </PageHead>
      <StaleNote resource={res} />
      {view === "silences" ? (
        <SilencesView res={silences} alerts={active} external={external} search={search} onNew={onNew} />
      ) : !res.data ? (
        <Pending resource={res} />
      ) : (
        <DataTable<RuleRow>
          label="Alerting rules"
          rows={rows}
          rowKey={(r) => r.key}
          rowHeight={32}
          onRow={(r) => setOpen(r.key)}
          empty={all.length ? "No alert matches these filters." : "No alerting rules are loaded."}
          columns={[
            {
              key: "state",
              title: "State",
              width: 104,
              sort: (r) => RANK[r.rule.state ?? ""] ?? 9,
              render: (r) => (
                <button type="button" class="plain" aria-haspopup="dialog" onClick={() => setOpen(r.key)}>
                  <Badge tone={STATE_TONE[r.rule.state ?? "unknown"] ?? "quiet"}>{r.rule.state}</Badge>
                </button>
              ),
            },
            {
              key: "name",
              title: "Alert",
              sort: (r) => r.rule.name,
              render: (r) => (
                <b>
                  <CutText text={r.rule.name} />
                </b>
              ),
            },
            {
              key: "count",
              title: "Active",
              width: 70,
              align: "right",
              sort: (r) => r.rule.alerts?.length ?? 0,
              render: (r) => <span class="num">{r.rule.alerts?.length || ""}</span>,
            },
            {
              key: "silenced",
              title: "Silenced",
              width: 84,
              align: "right",
              optional: true,
              sort: (r) => quiet(r.rule),
              render: (r) => (quiet(r.rule) ? <span class="num muted">{quiet(r.rule)}</span> : null),
            },
            {
              key: "day",
              title: "Last day",
              width: 130,
              optional: true,
              render: (r) => <Strip runs={history.get(r.rule.name) ?? []} from={to - DAY} to={to} />,
            },
            {
              key: "labels",
              title: "Labels",
              optional: true,
              render: (r) => <LabelChips labels={r.rule.labels ?? {}} />,
            },
            {
              key: "since",
              title: "Since",
              width: 132,
              align: "right",
              optional: true,
              sort: (r) => oldest(r.rule),
              render: (r) => (oldest(r.rule) ? <Ago at={oldest(r.rule)} /> : null),
            },
            {
              key: "group",
              title: "Group",
              width: 110,
              optional: true,
              sort: (r) => r.group,
              render: (r) => <bdi class="muted">{visible(r.group)}</bdi>,
            },
          ]}
        />
      )}
      {detail && !form && (
        <AlertDrawer
          row={detail}
          silences={silences.data}
          silencedBy={(a: AlertItem) => silencing(kept, a.labels, external)}
          onNew={onNew}
          onClose={() => setOpen("")}
        />
      )}
      {form && silences.data && (
        <SilenceForm
          data={silences.data}
          labels={form.labels}
          from={form.from}
          alerts={active}
          external={external}
          onClose={() => setForm(undefined)}
          onDone={() => {
            setForm(undefined);
            silences.reload();
          }}
        />
      )}
    </>
  );
}

function oldest(rule: Rule): number {
  const times = (rule.alerts ?? []).map((a) => apiTime(a.activeAt)).filter((t) => t > 0);
  return times.length ? Math.min(...times) : 0;
}
