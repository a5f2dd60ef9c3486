// Rules: what is evaluated, failing and slow ones first, and which rules read what others write.
import { useMemo, useState } from "preact/hooks";
import { urlOf } from "../lib/base";
import { percent, visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { type Links, linksOf } from "../lib/ruledeps";
import { useLabelled } from "../lib/selfmetrics";
import { apiTime, formatDuration, humanDuration } from "../lib/time";
import type { RuleGroup, RulesData } from "../lib/types";
import { queryLink } from "../query/state";
import { DataTable } from "../ui/DataTable";
import { CutText, LabelChips } from "../ui/labels";
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
import "../styles/pages.css";

const PATH = "rules";
const PARAMS = { exclude_alerts: "true" };
const RANK: Record<string, number> = { err: 0, unknown: 1, ok: 2 };
const TONES: Record<string, Tone> = { ok: "good", err: "bad", unknown: "quiet" };
type View = "rules" | "slow" | "links" | "groups";
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
  const links = useMemo(() => linksOf(all), [res.data]);
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
            ["slow", "Slowest"],
            ["links", "Dependencies"],
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
      ) : view === "slow" ? (
        <Slowest rows={rows} all={all} onOpen={setOpen} />
      ) : view === "links" ? (
        <Dependencies rows={rows} links={links} onOpen={setOpen} />
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
              width: 280,
              sort: (r) => r.rule.name,
              render: (r) => (
                <b>
                  <CutText text={r.rule.name} />
                </b>
              ),
            },
            {
              key: "kind",
              title: "Kind",
              width: 74,
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
              width: 110,
              optional: true,
              sort: (r) => r.group,
              render: (r) => <bdi class="muted">{visible(r.group)}</bdi>,
            },
          ]}
        />
      )}
      {detail && (
        <RuleDrawer row={detail} links={links.get(detail.key)} onOpen={setOpen} onClose={() => setOpen("")} />
      )}
    </>
  );
}

// A group that needs most of its interval will soon miss evaluations.
const BUSY = 0.8;

/** Rules by the time they take, against their interval and against all other rules. */
function Slowest(props: { rows: RuleRow[]; all: RuleRow[]; onOpen: (key: string) => void }) {
  const busy = (r: RuleRow) => r.rule.evaluationTime / r.interval;
  const sum = props.all.reduce((n, r) => n + busy(r), 0);
  return (
    <>
      <p class="muted">
        All rules together keep {(100 * sum).toFixed(sum < 0.1 ? 2 : 0)} % of one processor busy. Times are
        those of the last evaluation.
      </p>
      <DataTable<RuleRow>
        label="Rules by time"
        rows={props.rows}
        rowKey={(r) => r.key}
        rowHeight={32}
        initialSort={{ key: "busy", down: true }}
        onRow={(r) => props.onOpen(r.key)}
        empty="No rule matches these filters."
        columns={[
          {
            key: "name",
            title: "Rule",
            sort: (r) => r.rule.name,
            render: (r) => (
              <button
                type="button"
                class="plain cell"
                aria-haspopup="dialog"
                onClick={() => props.onOpen(r.key)}
              >
                <b>
                  <CutText text={r.rule.name} />
                </b>
              </button>
            ),
          },
          {
            key: "took",
            title: "Took",
            optional: true,
            width: 90,
            align: "right",
            sort: (r) => r.rule.evaluationTime,
            render: (r) => <span class="num">{humanDuration(r.rule.evaluationTime)}</span>,
          },
          {
            key: "busy",
            title: "Part of the interval",
            width: 170,
            sort: busy,
            render: (r) => (
              <span class="meter-cell">
                <span class="meter" aria-hidden="true">
                  <span
                    class={busy(r) > BUSY ? "over" : ""}
                    style={{ width: `${Math.min(100, 100 * busy(r))}%` }}
                  />
                </span>
                <span class="num">{percent(busy(r), 1)}</span>
              </span>
            ),
          },
          {
            key: "share",
            title: "Of all rules",
            width: 100,
            align: "right",
            optional: true,
            sort: busy,
            render: (r) => <span class="num">{percent(busy(r), sum)}</span>,
          },
          {
            key: "group",
            title: "Group",
            width: 150,
            optional: true,
            sort: (r) => r.group,
            render: (r) => <bdi class="muted">{visible(r.group)}</bdi>,
          },
          {
            key: "why",
            title: "Cost",
            width: 160,
            optional: true,
            render: (r) => <a href={urlOf(queryLink(r.rule.query, { tab: "stats" }))}>where the time goes</a>,
          },
        ]}
      />
    </>
  );
}

function Dependencies(props: { rows: RuleRow[]; links: Map<string, Links>; onOpen: (key: string) => void }) {
  const { links, onOpen } = props;
  const of = (r: RuleRow) => links.get(r.key) ?? { reads: [], readBy: [], late: "" };
  const linked = props.rows.filter((r) => of(r).reads.length || of(r).readBy.length);
  const list = (rows: RuleRow[]) => (
    <span class="chips">
      {rows.map((r) => (
        <button type="button" class="chip" key={r.key} onClick={() => onOpen(r.key)}>
          <bdi>{visible(r.rule.name)}</bdi>
        </button>
      ))}
    </span>
  );
  return (
    <>
      <p class="muted">
        {linked.length} of {props.rows.length} rules read the result of another one or are read by one.
      </p>
      <DataTable<RuleRow>
        label="Dependencies between rules"
        rows={linked}
        rowKey={(r) => r.key}
        rowHeight={32}
        onRow={(r) => onOpen(r.key)}
        initialSort={{ key: "readBy", down: true }}
        empty="No rule reads the result of another one."
        columns={[
          {
            key: "name",
            title: "Rule",
            width: 250,
            sort: (r) => r.rule.name,
            render: (r) => (
              <button type="button" class="plain cell" aria-haspopup="dialog" onClick={() => onOpen(r.key)}>
                <bdi>
                  <b>{visible(r.rule.name)}</b>
                </bdi>
              </button>
            ),
          },
          {
            key: "reads",
            title: "Reads",
            sort: (r) => of(r).reads.length,
            render: (r) => list(of(r).reads),
          },
          {
            key: "readBy",
            title: "Read by",
            sort: (r) => of(r).readBy.length,
            render: (r) => list(of(r).readBy),
          },
          {
            key: "late",
            title: "Order",
            width: 90,
            optional: true,
            sort: (r) => of(r).late,
            render: (r) =>
              of(r).late ? (
                <span title={visible(of(r).late)}>
                  <Badge tone="warn">late</Badge>
                </span>
              ) : null,
          },
        ]}
      />
    </>
  );
}

const MISSED = ["prometheus_rule_group_iterations_missed_total"] as const;

function Groups({ groups }: { groups: RuleGroup[] }) {
  const counts = useLabelled(MISSED, 15);
  const missed = (g: RuleGroup) =>
    counts?.find((c) => c.labels.rule_group === `${g.file};${g.name}`)?.value ?? 0;
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
              <span class="num">{percent(load(g), 1)}</span>
            </span>
          ),
        },
        {
          key: "took",
          title: "Took",
          width: 90,
          align: "right",
          optional: true,
          sort: (g) => g.evaluationTime,
          render: (g) => <span class="num">{humanDuration(g.evaluationTime)}</span>,
        },
        {
          key: "missed",
          title: "Missed",
          width: 80,
          align: "right",
          optional: true,
          sort: missed,
          render: (g) => <span class={`num${missed(g) ? " bad-text" : ""}`}>{missed(g) || ""}</span>,
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

function RuleDrawer(props: {
  row: RuleRow;
  links: Links | undefined;
  onOpen: (key: string) => void;
  onClose: () => void;
}) {
  const { row, links, onClose } = props;
  const { rule } = row;
  const list = (title: string, rows: RuleRow[] | undefined) =>
    rows &&
    rows.length > 0 && (
      <>
        <h3>{title}</h3>
        <ul class="rule-links">
          {rows.map((r) => (
            <li key={r.key}>
              <button type="button" class="link" onClick={() => props.onOpen(r.key)}>
                <bdi>{visible(r.rule.name)}</bdi>
              </button>{" "}
              <span class="muted">
                in <bdi>{visible(r.group)}</bdi>, every {formatDuration(r.interval * 1000)}
              </span>
            </li>
          ))}
        </ul>
      </>
    );
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
        <a class="btn small" href={urlOf(queryLink(rule.query, { tab: "stats" }))}>
          What it costs
        </a>
        {rule.type === "recording" && (
          <a class="btn small" href={urlOf(queryLink(rule.name))}>
            Open what it recorded
          </a>
        )}
      </p>
      {list("Reads the results of", links?.reads)}
      {links?.late && (
        <div class="notice warn">
          <bdi>{visible(links.late)}</bdi>
        </div>
      )}
      {list("Is read by", links?.readBy)}
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
