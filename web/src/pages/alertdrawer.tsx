// One alerting rule: its value beside the limit, its history, its instances and what silences them.
import { useMemo, useState } from "preact/hooks";
import { urlOf } from "../lib/base";
import { neat, quote, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import type { Kept, SilencesData } from "../lib/silences";
import { apiTime, formatDuration, formatTime, humanDuration } from "../lib/time";
import { byLabels, runsOf, summary } from "../lib/timeline";
import type { AlertItem, Labels, QueryData } from "../lib/types";
import { queryLink } from "../query/state";
import { LabelChips, LabelText } from "../ui/labels";
import { Ago, Badge, Drawer, Segments } from "../ui/parts";
import { Strip } from "../ui/Strip";
import { AlertGraph, Backtest } from "./alertgraph";
import { Annotations, ExprBlock, type RuleRow, STATE_TONE } from "./ruleparts";
import { SilenceButton } from "./silences";

const MOST_SHOWN = 100;
const MOST_STRIPS = 20;
const SPANS = { day: { seconds: 86_400, step: 300 }, week: { seconds: 604_800, step: 1800 } };
type SpanName = keyof typeof SPANS;

export function AlertDrawer(props: {
  row: RuleRow;
  silences: SilencesData | undefined;
  silencedBy: (alert: AlertItem) => Kept[];
  onNew: (labels: Labels) => void;
  onClose: () => void;
}) {
  const { row } = props;
  const { rule } = row;
  const alerts = rule.alerts ?? [];
  const [span, setSpan] = useState<SpanName>("day");
  const { seconds, step } = SPANS[span];
  const to = Math.ceil(Date.now() / 1000 / step) * step;
  const past = useResource<QueryData>(
    "query_range",
    {
      query: `max_over_time(ALERTS{alertname=${quote(rule.name)}}[${step}s])`,
      start: to - seconds,
      end: to,
      step,
      limit: 1000,
    },
    60,
  );
  const items = past.data?.resultType === "matrix" ? past.data.result : [];
  const runs = useMemo(() => runsOf(items, step), [past.data, step]);
  const each = useMemo(() => {
    const groups = byLabels(items, (labels) => {
      const { alertstate: _state, __name__: _name, alertname: _alert, ...rest } = labels;
      return JSON.stringify(Object.entries(rest).sort());
    });
    return [...groups].map(([key, found]) => ({
      key,
      labels: Object.fromEntries(JSON.parse(key) as [string, string][]),
      runs: runsOf(found, step),
    }));
  }, [past.data, step]);
  const s = summary(runs);
  return (
    <Drawer title={<bdi>{visible(rule.name)}</bdi>} onClose={props.onClose}>
      <p>
        <Badge tone={STATE_TONE[rule.state ?? "unknown"] ?? "quiet"}>{rule.state}</Badge>
      </p>
      {rule.lastError && (
        <div class="notice bad">
          <bdi>{visible(rule.lastError)}</bdi>
        </div>
      )}
      <ExprBlock expr={rule.query} />
      <AlertGraph rule={rule} />
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
        <dt>Evaluated</dt>
        <dd>
          <Ago at={apiTime(rule.lastEvaluation)} />, every {formatDuration(row.interval * 1000)}
        </dd>
      </dl>
      <p class="row">
        <a class="btn small" href={urlOf(queryLink(rule.query))}>
          Open in Query
        </a>
        <SilenceButton data={props.silences} labels={{ alertname: rule.name }} onNew={props.onNew} />
      </p>
      <div class="row spread">
        <h3>History</h3>
        <Segments<SpanName>
          label="Time shown"
          value={span}
          options={[
            ["day", "1 day"],
            ["week", "1 week"],
          ]}
          onChange={setSpan}
        />
      </div>
      <Strip runs={runs} from={to - seconds} to={to} tall />
      <p class="stats ends">
        <span>{formatTime((to - seconds) * 1000, zone.value).slice(0, 16)}</span>
        <span>
          {s.times
            ? `fired ${s.times === 1 ? "once" : `${s.times} times`}, ${humanDuration(s.seconds)} in all`
            : "never fired"}
        </span>
        <span>now</span>
      </p>
      {each.length > 1 && (
        <ul class="strips">
          {each.slice(0, MOST_STRIPS).map((e) => (
            <li key={e.key}>
              <LabelText labels={e.labels} wrap />
              <Strip runs={e.runs} from={to - seconds} to={to} />
            </li>
          ))}
        </ul>
      )}
      <p>
        <Backtest rule={rule} interval={row.interval} />
      </p>
      <h3>
        {alerts.length ? `${alerts.length} active` : "Nothing active"}
        {alerts.length > MOST_SHOWN && `, the first ${MOST_SHOWN} shown`}
      </h3>
      {alerts.slice(0, MOST_SHOWN).map((a) => (
        <Instance key={JSON.stringify(a.labels)} alert={a} {...props} />
      ))}
    </Drawer>
  );
}

function Instance(props: {
  alert: AlertItem;
  silences: SilencesData | undefined;
  silencedBy: (alert: AlertItem) => Kept[];
  onNew: (labels: Labels) => void;
}) {
  const { alert: a } = props;
  const quiet = props.silencedBy(a);
  return (
    <div class="instance">
      <p class="row">
        <Badge tone={STATE_TONE[a.state] ?? "quiet"}>{a.state}</Badge>
        {quiet.length > 0 && <Badge tone="quiet">silenced</Badge>}
        <span class="num" title={a.value}>
          value {Number.isNaN(Number(a.value)) ? a.value : neat(Number(a.value))}
        </span>
        <span class="muted num">
          since {formatTime(apiTime(a.activeAt), zone.value)} (<Ago at={apiTime(a.activeAt)} />)
        </span>
        <span class="grow" />
        <SilenceButton data={props.silences} labels={a.labels} onNew={props.onNew} />
      </p>
      <span class="wrap-chips">
        <LabelChips labels={a.labels} />
      </span>
      <Annotations annotations={a.annotations} />
      {quiet.map((s) => (
        <p class="muted" key={s.id}>
          Silenced until {formatTime(apiTime(s.endsAt), zone.value)} by <bdi>{visible(s.createdBy)}</bdi>:{" "}
          <bdi>{visible(s.comment)}</bdi>
        </p>
      ))}
    </div>
  );
}
