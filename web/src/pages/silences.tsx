// Silences: what is kept quiet, until when and why; creating and ending them.
import { useState } from "preact/hooks";
import { explainError, post } from "../lib/api";
import { visible } from "../lib/format";
import { author, zone } from "../lib/prefs";
import type { Resource } from "../lib/resource";
import {
  covers,
  type Kept,
  keptOf,
  matcherOf,
  type Operator,
  operatorOf,
  type SilencesData,
  silencePage,
} from "../lib/silences";
import { apiTime, formatTime, humanDuration, parseDuration } from "../lib/time";
import type { AlertItem, Labels } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { Icon } from "../ui/icons";
import { Badge, Drawer, Pending, Segments, type Tone } from "../ui/parts";

type Filter = "current" | "all";
const TONES: Record<string, Tone> = { active: "info", pending: "warn", expired: "quiet" };
const RANK: Record<string, number> = { active: 0, pending: 1, expired: 2 };

export function SilencesView(props: {
  res: Resource<SilencesData>;
  alerts: AlertItem[];
  external: Labels;
  search: string;
  onNew: (labels: Labels, from?: Kept) => void;
}) {
  const { res, alerts, external } = props;
  const [filter, setFilter] = useState<Filter>("current");
  const [busy, setBusy] = useState("");
  const [error, setError] = useState("");
  if (!res.data) return <Pending resource={res} />;
  const data = res.data;
  const all = keptOf(data);
  const words = props.search.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = all
    .filter((s) => filter === "all" || s.status?.state !== "expired")
    .filter((s) => words.every((w) => `${textOf(s)} ${s.comment} ${s.createdBy}`.toLowerCase().includes(w)))
    .sort(
      (a, b) =>
        (RANK[a.status?.state ?? ""] ?? 9) - (RANK[b.status?.state ?? ""] ?? 9) ||
        apiTime(a.endsAt) - apiTime(b.endsAt),
    );
  const covered = (s: Kept) =>
    s.status?.state === "expired" ? 0 : alerts.filter((a) => covers(s, { ...external, ...a.labels })).length;

  async function expire(s: Kept) {
    setBusy(s.id);
    setError("");
    try {
      await post("alertmanagers/silences/expire", {}, { alertmanager: s.alertmanager, id: s.id });
      res.reload();
    } catch (e) {
      setError(explainError(e));
    } finally {
      setBusy("");
    }
  }

  if (!data.alertmanagers.length)
    return (
      <div class="empty">
        No Alertmanager is configured. Name one under <code>alerting.alertmanagers</code> to see its silences.
      </div>
    );
  return (
    <>
      <div class="controls">
        <Segments<Filter>
          label="Which silences"
          value={filter}
          options={[
            ["current", `Current ${all.filter((s) => s.status?.state !== "expired").length}`],
            ["all", `With expired ${all.length}`],
          ]}
          onChange={setFilter}
        />
        {data.writable ? (
          <button type="button" class="btn primary" onClick={() => props.onNew({})}>
            New silence
          </button>
        ) : (
          <span class="muted">
            To change silences here, start the server with <code>--web.enable-admin-api</code>.
          </span>
        )}
      </div>
      {data.alertmanagers
        .filter((a) => a.error)
        .map((a) => (
          <div class="notice bad" role="alert" key={a.url}>
            <Icon name="warn" />
            <span>
              <bdi class="mono">{visible(a.url)}</bdi>: <bdi>{visible(a.error!)}</bdi>
            </span>
          </div>
        ))}
      {error && (
        <div class="notice bad" role="alert">
          <Icon name="warn" />
          <bdi>{visible(error)}</bdi>
        </div>
      )}
      <DataTable<Kept>
        label="Silences"
        rows={rows}
        rowKey={(s) => `${s.alertmanager} ${s.id}`}
        rowHeight={36}
        empty={all.length ? "No silence matches these filters." : "Nothing is silenced."}
        columns={[
          {
            key: "state",
            title: "State",
            width: 96,
            sort: (s) => RANK[s.status?.state ?? ""] ?? 9,
            render: (s) => (
              <Badge tone={TONES[s.status?.state ?? ""] ?? "quiet"}>{s.status?.state ?? "unknown"}</Badge>
            ),
          },
          {
            key: "matchers",
            title: "Matches",
            sort: textOf,
            render: (s) => (
              <span class="chips">
                {s.matchers.map((m) => (
                  <span class="chip" key={`${m.name}${m.value}`}>
                    <bdi class="l-key">{visible(m.name)}</bdi>
                    <span class="l-punct">{operatorOf(m)}</span>
                    <bdi>{visible(m.value)}</bdi>
                  </span>
                ))}
              </span>
            ),
          },
          {
            key: "alerts",
            title: "Alerts",
            optional: true,
            width: 70,
            align: "right",
            sort: covered,
            render: (s) => <span class="num">{covered(s) || ""}</span>,
          },
          {
            key: "ends",
            title: "Ends",
            width: 160,
            optional: true,
            sort: (s) => apiTime(s.endsAt),
            render: (s) => <span class="num">{formatTime(apiTime(s.endsAt), zone.value)}</span>,
          },
          {
            key: "by",
            title: "By",
            width: 110,
            optional: true,
            sort: (s) => s.createdBy,
            render: (s) => <bdi>{visible(s.createdBy)}</bdi>,
          },
          {
            key: "comment",
            title: "Comment",
            width: 220,
            optional: true,
            render: (s) => (
              <bdi class="muted" title={visible(s.comment)}>
                {visible(s.comment)}
              </bdi>
            ),
          },
          ...(data.writable
            ? [
                {
                  key: "do",
                  title: "Actions",
                  width: 84,
                  render: (s: Kept) =>
                    s.status?.state === "expired" ? (
                      <button type="button" class="btn small" onClick={() => props.onNew({}, s)}>
                        Again
                      </button>
                    ) : (
                      <button
                        type="button"
                        class="btn small"
                        disabled={busy === s.id}
                        onClick={() => expire(s)}
                      >
                        Expire
                      </button>
                    ),
                },
              ]
            : []),
        ]}
      />
    </>
  );
}

function textOf(s: Kept): string {
  return s.matchers.map((m) => `${m.name}${operatorOf(m)}${m.value}`).join(" ");
}

interface Row {
  name: string;
  operator: Operator;
  value: string;
}
const OPERATORS: Operator[] = ["=", "!=", "=~", "!~"];
const LENGTHS = ["30m", "2h", "8h", "1d", "1w"];

export function SilenceForm(props: {
  data: SilencesData;
  labels: Labels;
  from?: Kept | undefined;
  alerts: AlertItem[];
  external: Labels;
  onClose: () => void;
  onDone: () => void;
}) {
  const [rows, setRows] = useState<Row[]>(() => {
    const start = props.from
      ? props.from.matchers.map((m): Row => ({ name: m.name, operator: operatorOf(m), value: m.value }))
      : Object.entries(props.labels).map(([name, value]): Row => ({ name, operator: "=", value }));
    return start.length ? start : [{ name: "alertname", operator: "=", value: "" }];
  });
  const [length, setLength] = useState("2h");
  const [comment, setComment] = useState(props.from?.comment ?? "");
  const [where, setWhere] = useState(props.from?.alertmanager ?? props.data.alertmanagers[0]?.url ?? "");
  const [error, setError] = useState("");
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const ms = parseDuration(length);
  const used = rows.filter((r) => r.name.trim() !== "");
  const matchers = used.map((r) => matcherOf(r.name.trim(), r.operator, r.value));
  const hit = props.alerts.filter((a) => covers({ matchers }, { ...props.external, ...a.labels }));
  const missing = !used.length
    ? "Name at least one label."
    : used.every((r) => r.value === "" && r.operator === "=")
      ? "At least one label needs a value: else everything would be silenced."
      : ms === null || ms <= 0
        ? `"${length}" is no length of time such as 2h or 1d12h.`
        : author.value.trim() === ""
          ? "Say who you are."
          : comment.trim() === ""
            ? "Say why."
            : "";

  const told = error || (tried ? missing : "");

  async function submit(e: Event) {
    e.preventDefault();
    setTried(true);
    if (missing || ms === null) return;
    setBusy(true);
    setError("");
    const now = Date.now();
    try {
      await post(
        "alertmanagers/silences",
        {},
        {
          alertmanager: where,
          silence: {
            matchers,
            startsAt: new Date(now).toISOString(),
            endsAt: new Date(now + ms).toISOString(),
            createdBy: author.value.trim(),
            comment: comment.trim(),
          },
        },
      );
      props.onDone();
    } catch (error) {
      setError(explainError(error));
      setBusy(false);
    }
  }

  const change = (i: number, part: Partial<Row>) =>
    setRows(rows.map((r, k) => (k === i ? { ...r, ...part } : r)));
  return (
    <Drawer title="Silence" onClose={props.onClose}>
      <form class="silence-form" onSubmit={submit}>
        <h3>Alerts whose labels satisfy all of</h3>
        {rows.map((r, i) => (
          <div class="matcher" key={i}>
            <input
              class="field mono"
              aria-label="Label"
              placeholder="label"
              value={r.name}
              spellcheck={false}
              autocomplete="off"
              onInput={(e) => change(i, { name: e.currentTarget.value })}
            />
            <label class="select">
              <span class="sr">Comparison</span>
              <select
                value={r.operator}
                onChange={(e) => change(i, { operator: e.currentTarget.value as Operator })}
              >
                {OPERATORS.map((o) => (
                  <option key={o} value={o}>
                    {o}
                  </option>
                ))}
              </select>
            </label>
            <input
              class="field mono"
              aria-label="Value"
              placeholder="value"
              value={r.value}
              spellcheck={false}
              autocomplete="off"
              onInput={(e) => change(i, { value: e.currentTarget.value })}
            />
            <button
              type="button"
              class="btn icon-only"
              aria-label={`Leave out ${r.name}`}
              onClick={() => setRows(rows.filter((_, k) => k !== i))}
            >
              <Icon name="close" size={14} />
            </button>
          </div>
        ))}
        <button
          type="button"
          class="btn small"
          onClick={() => setRows([...rows, { name: "", operator: "=", value: "" }])}
        >
          <Icon name="plus" size={12} /> Another label
        </button>
        <p class={hit.length ? "" : "muted"} role="status">
          {hit.length
            ? `Silences ${hit.length} of ${props.alerts.length} alerts that are active now.`
            : "Silences no alert that is active now."}
        </p>
        <h3>For</h3>
        <div class="row">
          <input
            class="field num"
            aria-label="Length of time"
            size={8}
            value={length}
            onInput={(e) => setLength(e.currentTarget.value)}
          />
          {LENGTHS.map((l) => (
            <button
              type="button"
              class="btn small"
              key={l}
              aria-pressed={l === length}
              onClick={() => setLength(l)}
            >
              {l}
            </button>
          ))}
          {ms !== null && ms > 0 && (
            <span class="muted num">
              {humanDuration(ms / 1000)}, until {formatTime(Date.now() + ms, zone.value)}
            </span>
          )}
        </div>
        <label class="stacked">
          Your name
          <input
            class="field"
            value={author.value}
            autocomplete="name"
            onInput={(e) => {
              author.value = e.currentTarget.value;
            }}
          />
        </label>
        <label class="stacked">
          Comment
          <input class="field" value={comment} onInput={(e) => setComment(e.currentTarget.value)} />
        </label>
        {props.data.alertmanagers.length > 1 && (
          <label class="stacked">
            Alertmanager
            <select class="field" value={where} onChange={(e) => setWhere(e.currentTarget.value)}>
              {props.data.alertmanagers.map((a) => (
                <option key={a.url} value={a.url}>
                  {a.url}
                </option>
              ))}
            </select>
          </label>
        )}
        {told && (
          <div class="notice bad" role="alert">
            <Icon name="warn" />
            <bdi>{visible(told)}</bdi>
          </div>
        )}
        <div class="row">
          <button type="submit" class="btn primary" disabled={busy}>
            Silence
          </button>
          <button type="button" class="btn" onClick={props.onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Drawer>
  );
}

/** Where an instance can be silenced: here, or on the Alertmanager's own page. */
export function SilenceButton(props: {
  data: SilencesData | undefined;
  labels: Labels;
  onNew: (labels: Labels) => void;
}) {
  const first = props.data?.alertmanagers[0];
  if (!first) return null;
  if (props.data?.writable)
    return (
      <button type="button" class="btn small" onClick={() => props.onNew(props.labels)}>
        Silence…
      </button>
    );
  const page = silencePage(first.url, props.labels);
  return page ? (
    <a class="btn small" href={page} target="_blank" rel="noreferrer noopener">
      Silence in Alertmanager <Icon name="external" size={12} />
    </a>
  ) : null;
}
