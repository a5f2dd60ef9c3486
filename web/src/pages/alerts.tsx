// Alerts: one dense line a rule, what fires first.
import { useState } from "preact/hooks";
import { urlOf } from "../lib/base";
import { visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { apiTime, formatDuration, formatTime } from "../lib/time";
import type { Rule, RulesData } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { LabelChips } from "../ui/labels";
import {
  Ago,
  Badge,
  Drawer,
  FilterBox,
  PageHead,
  Pending,
  Segments,
  StaleNote,
  type Tone,
} from "../ui/parts";
import { Annotations, ExprBlock, type RuleRow, rulesOf } from "./ruleparts";

const PATH = "rules";
const PARAMS = { type: "alert" };
const RANK: Record<string, number> = { firing: 0, pending: 1, unknown: 2, inactive: 3 };
export const STATE_TONE: Record<string, Tone> = {
  firing: "bad",
  pending: "warn",
  unknown: "quiet",
  inactive: "good",
};
type Filter = "all" | "firing" | "pending" | "inactive";

export function AlertsPage() {
  const res = useResource<RulesData>(PATH, PARAMS, 5);
  const [open, setOpen] = useState("");
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
  return (
    <>
      <PageHead title="Alerts" source={{ path: PATH, params: PARAMS, resource: res }}>
        <FilterBox
          value={search}
          label="Filter by name or label"
          onChange={(v) => setParams({ search: v })}
        />
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
      </PageHead>
      <StaleNote resource={res} />
      {!res.data ? (
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
              width: 240,
              sort: (r) => r.rule.name,
              render: (r) => (
                <bdi>
                  <b>{visible(r.rule.name)}</b>
                </bdi>
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
              key: "labels",
              title: "Labels",
              optional: true,
              render: (r) => <LabelChips labels={r.rule.labels ?? {}} />,
            },
            {
              key: "since",
              title: "Since",
              width: 120,
              align: "right",
              optional: true,
              sort: (r) => oldest(r.rule),
              render: (r) => (oldest(r.rule) ? <Ago at={oldest(r.rule)} /> : null),
            },
            {
              key: "group",
              title: "Group",
              width: 170,
              optional: true,
              sort: (r) => r.group,
              render: (r) => <bdi class="muted">{visible(r.group)}</bdi>,
            },
          ]}
        />
      )}
      {detail && <AlertDrawer row={detail} onClose={() => setOpen("")} />}
    </>
  );
}

function oldest(rule: Rule): number {
  const times = (rule.alerts ?? []).map((a) => apiTime(a.activeAt)).filter((t) => t > 0);
  return times.length ? Math.min(...times) : 0;
}

const MOST_SHOWN = 100;

function AlertDrawer({ row, onClose }: { row: RuleRow; onClose: () => void }) {
  const { rule } = row;
  const alerts = rule.alerts ?? [];
  return (
    <Drawer title={<bdi>{visible(rule.name)}</bdi>} onClose={onClose}>
      <p>
        <Badge tone={STATE_TONE[rule.state ?? "unknown"] ?? "quiet"}>{rule.state}</Badge>
      </p>
      {rule.lastError && (
        <div class="notice bad">
          <bdi>{visible(rule.lastError)}</bdi>
        </div>
      )}
      <ExprBlock expr={rule.query} />
      <dl class="facts">
        <dt>Group</dt>
        <dd>
          <a href={urlOf(`rules?search=${encodeURIComponent(row.group)}`)}>
            <bdi>{visible(row.group)}</bdi>
          </a>{" "}
          <span class="muted">
            <bdi>{visible(row.file)}</bdi>
          </span>
        </dd>
        <dt>For</dt>
        <dd>{formatDuration((rule.duration ?? 0) * 1000)}</dd>
        {(rule.keepFiringFor ?? 0) > 0 && (
          <>
            <dt>Keep firing for</dt>
            <dd>{formatDuration(rule.keepFiringFor! * 1000)}</dd>
          </>
        )}
        <dt>Last evaluated</dt>
        <dd>
          <Ago at={apiTime(rule.lastEvaluation)} />
        </dd>
      </dl>
      <p class="row">
        <a class="btn small" href={urlOf(queryLink(rule.query))}>
          Open in Query
        </a>
        <a
          class="btn small"
          href={urlOf(queryLink(`ALERTS{alertname=${JSON.stringify(rule.name)}}`, { range: 86_400_000 }))}
        >
          Last 24 hours
        </a>
      </p>
      <h3>
        {alerts.length ? `${alerts.length} active` : "Nothing active"}
        {alerts.length > MOST_SHOWN && `, the first ${MOST_SHOWN} shown`}
      </h3>
      {alerts.slice(0, MOST_SHOWN).map((a) => (
        <div class="instance" key={JSON.stringify(a.labels)}>
          <p class="row">
            <Badge tone={STATE_TONE[a.state] ?? "quiet"}>{a.state}</Badge>
            <span class="num">
              value {Number(a.value) || a.value === "0e+00" ? String(Number(a.value)) : a.value}
            </span>
            <span class="muted num">
              since {formatTime(apiTime(a.activeAt), zone.value)} (<Ago at={apiTime(a.activeAt)} />)
            </span>
          </p>
          <span class="wrap-chips">
            <LabelChips labels={a.labels} />
          </span>
          <Annotations annotations={a.annotations} />
        </div>
      ))}
    </Drawer>
  );
}
