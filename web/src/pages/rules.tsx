// Rules: what is evaluated, failing and slow ones first.
import { useState } from "preact/hooks";
import { urlOf } from "../lib/base";
import { visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { apiTime, formatDuration, humanDuration } from "../lib/time";
import type { RuleGroup, RulesData } from "../lib/types";
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
const PARAMS = { exclude_alerts: "true" };
const RANK: Record<string, number> = { err: 0, unknown: 1, ok: 2 };
const TONES: Record<string, Tone> = { ok: "good", err: "bad", unknown: "quiet" };
type View = "rules" | "groups";
type Health = "all" | "err" | "unknown" | "ok";

export function RulesPage() {
  const res = useResource<RulesData>(PATH, PARAMS, 10);
  const [open, setOpen] = useState("");
  const view = (param("view") || "rules") as View;
  const health = (param("health") || "all") as Health;
  const search = param("search");
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = rulesOf(res.data);
  const hit = (text: string) => words.every((w) => text.toLowerCase().includes(w));
  const rows = all
    .filter((r) => health === "all" || r.rule.health === health)
    .filter((r) => hit(`${r.rule.name} ${r.group} ${r.file} ${r.rule.query} ${r.rule.lastError ?? ""}`))
    .sort((a, b) => (RANK[a.rule.health] ?? 9) - (RANK[b.rule.health] ?? 9));
  const groups = (res.data?.groups ?? []).filter((g) => hit(`${g.name} ${g.file}`));
  const count = (h: string) => all.filter((r) => r.rule.health === h).length;
  const detail = all.find((r) => r.key === open);
  return (
    <>
      <PageHead title="Rules" source={{ path: PATH, params: PARAMS, resource: res }}>
        <FilterBox
          value={search}
          label="Filter by name, group or expression"
          onChange={(v) => setParams({ search: v })}
        />
        <Segments<View>
          label="View"
          value={view}
          options={[
            ["rules", "Rules"],
            ["groups", "Groups"],
          ]}
          onChange={(v) => setParams({ view: v === "rules" ? "" : v })}
        />
        {view === "rules" && (
          <Segments<Health>
            label="Health"
            value={health}
            options={[
              ["all", `All ${all.length}`],
              ["err", `Failing ${count("err")}`],
              ["unknown", `Not run ${count("unknown")}`],
              ["ok", `Good ${count("ok")}`],
            ]}
            onChange={(h) => setParams({ health: h === "all" ? "" : h })}
          />
        )}
      </PageHead>
      <StaleNote resource={res} />
      {!res.data ? (
        <Pending resource={res} />
      ) : view === "groups" ? (
        <Groups groups={groups} />
      ) : (
        <DataTable<RuleRow>
          label="Rules"
          rows={rows}
          rowKey={(r) => r.key}
          rowHeight={32}
          onRow={(r) => setOpen(r.key)}
          empty={
            all.length
              ? "No rule matches these filters."
              : "No rules are loaded. Name rule files under rule_files."
          }
          columns={[
            {
              key: "health",
              title: "Health",
              width: 92,
              sort: (r) => RANK[r.rule.health] ?? 9,
              render: (r) => (
                <button type="button" class="plain" aria-haspopup="dialog" onClick={() => setOpen(r.key)}>
                  <Badge tone={TONES[r.rule.health] ?? "quiet"}>{r.rule.health}</Badge>
                </button>
              ),
            },
            {
              key: "name",
              title: "Rule",
              width: 240,
              sort: (r) => r.rule.name,
              render: (r) => (
                <bdi>
                  <b>{visible(r.rule.name)}</b>
                </bdi>
              ),
            },
            {
              key: "kind",
              title: "Kind",
              width: 84,
              optional: true,
              sort: (r) => r.rule.type,
              render: (r) => (r.rule.type === "alerting" ? "alert" : "record"),
            },
            {
              key: "expr",
              title: "Expression or error",
              optional: true,
              render: (r) =>
                r.rule.lastError ? (
                  <bdi class="bad-text">{visible(r.rule.lastError)}</bdi>
                ) : (
                  <bdi class="mono">{visible(r.rule.query)}</bdi>
                ),
            },
            {
              key: "took",
              title: "Took",
              width: 84,
              align: "right",
              sort: (r) => r.rule.evaluationTime,
              render: (r) => <span class="num">{humanDuration(r.rule.evaluationTime)}</span>,
            },
            {
              key: "last",
              title: "Last run",
              width: 100,
              align: "right",
              optional: true,
              sort: (r) => apiTime(r.rule.lastEvaluation),
              render: (r) => <Ago at={apiTime(r.rule.lastEvaluation)} />,
            },
            {
              key: "group",
              title: "Group",
              width: 150,
              optional: true,
              sort: (r) => r.group,
              render: (r) => <bdi class="muted">{visible(r.group)}</bdi>,
            },
          ]}
        />
      )}
      {detail && <RuleDrawer row={detail} onClose={() => setOpen("")} />}
    </>
  );
}

// A group that needs most of its interval will soon miss evaluations.
const BUSY = 0.8;

function Groups({ groups }: { groups: RuleGroup[] }) {
  const load = (g: RuleGroup) => g.evaluationTime / g.interval;
  return (
    <DataTable<RuleGroup>
      label="Rule groups"
      rows={groups}
      rowKey={(g) => `${g.file}\u0000${g.name}`}
      initialSort={{ key: "load", down: true }}
      empty="No groups."
      columns={[
        {
          key: "name",
          title: "Group",
          width: 220,
          sort: (g) => g.name,
          render: (g) => (
            <a href={urlOf(`rules?search=${encodeURIComponent(g.name)}`)}>
              <bdi>{visible(g.name)}</bdi>
            </a>
          ),
        },
        {
          key: "rules",
          title: "Rules",
          width: 70,
          align: "right",
          sort: (g) => g.rules.length,
          render: (g) => g.rules.length,
        },
        {
          key: "load",
          title: "Part of the interval",
          width: 170,
          sort: load,
          render: (g) => (
            <span class="meter-cell">
              <span class="meter" aria-hidden="true">
                <span
                  class={load(g) > BUSY ? "over" : ""}
                  style={{ width: `${Math.min(100, 100 * load(g))}%` }}
                />
              </span>
              <span class="num">{(100 * load(g)).toFixed(1)} %</span>
            </span>
          ),
        },
        {
          key: "took",
          title: "Took",
          width: 90,
          align: "right",
          sort: (g) => g.evaluationTime,
          render: (g) => <span class="num">{humanDuration(g.evaluationTime)}</span>,
        },
        {
          key: "interval",
          title: "Interval",
          width: 80,
          align: "right",
          optional: true,
          sort: (g) => g.interval,
          render: (g) => <span class="num">{formatDuration(g.interval * 1000)}</span>,
        },
        {
          key: "last",
          title: "Last run",
          width: 100,
          align: "right",
          optional: true,
          render: (g) => <Ago at={apiTime(g.lastEvaluation)} />,
        },
        {
          key: "file",
          title: "File",
          optional: true,
          sort: (g) => g.file,
          render: (g) => <bdi class="muted">{visible(g.file)}</bdi>,
        },
      ]}
    />
  );
}

function RuleDrawer({ row, onClose }: { row: RuleRow; onClose: () => void }) {
  const { rule } = row;
  return (
    <Drawer title={<bdi>{visible(rule.name)}</bdi>} onClose={onClose}>
      <p>
        <Badge tone={TONES[rule.health] ?? "quiet"}>{rule.health}</Badge>
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
          <bdi>{visible(row.group)}</bdi>{" "}
          <span class="muted">
            <bdi>{visible(row.file)}</bdi>
          </span>
        </dd>
        <dt>Interval</dt>
        <dd>{formatDuration(row.interval * 1000)}</dd>
        <dt>Last run</dt>
        <dd>
          <Ago at={apiTime(rule.lastEvaluation)} />, took {humanDuration(rule.evaluationTime)}
        </dd>
        {rule.type === "alerting" && (
          <>
            <dt>For</dt>
            <dd>{formatDuration((rule.duration ?? 0) * 1000)}</dd>
          </>
        )}
      </dl>
      <p class="row">
        <a class="btn small" href={urlOf(queryLink(rule.query))}>
          Open the expression in Query
        </a>
        {rule.type === "recording" && (
          <a class="btn small" href={urlOf(queryLink(rule.name))}>
            Open what it recorded
          </a>
        )}
      </p>
      {Object.keys(rule.labels ?? {}).length > 0 && (
        <>
          <h3>Labels</h3>
          <span class="wrap-chips">
            <LabelChips labels={rule.labels ?? {}} />
          </span>
        </>
      )}
      <Annotations annotations={rule.annotations ?? {}} />
    </Drawer>
  );
}
