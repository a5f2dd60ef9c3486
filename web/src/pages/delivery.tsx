// Delivery: what was sent to Alertmanagers and to other servers, what waits, what was lost.
import { full, short, visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { type Labelled, useLabelled } from "../lib/selfmetrics";
import { humanDuration } from "../lib/time";
import type { Labels } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { CutText } from "../ui/labels";
import { Badge, type Tone } from "../ui/parts";

const NOTIFICATIONS = [
  "prometheus_notifications_sent_total",
  "prometheus_notifications_errors_total",
  "prometheus_notifications_dropped_total",
  "prometheus_notifications_queue_length",
  "prometheus_notifications_queue_capacity",
  "prometheus_notifications_latency_seconds",
] as const;
const REMOTE = [
  "prometheus_remote_storage_samples_total",
  "prometheus_remote_storage_samples_failed_total",
  "prometheus_remote_storage_samples_retried_total",
  "prometheus_remote_storage_samples_dropped_total",
  "prometheus_remote_storage_samples_pending",
  "prometheus_remote_storage_shards",
  "prometheus_remote_storage_shards_desired",
  "prometheus_remote_storage_bytes_total",
  "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
  "prometheus_remote_storage_highest_timestamp_in_seconds",
] as const;

interface Managers {
  activeAlertmanagers: { url: string }[] | null;
  droppedAlertmanagers: { url: string }[] | null;
}
interface Row {
  name: string;
  values: Map<string, number>;
}

/** How many more shards a queue would like to have. */
function wanted(values: Map<string, number>): string {
  const desired = Math.ceil(values.get("prometheus_remote_storage_shards_desired") ?? 0);
  return desired > (values.get("prometheus_remote_storage_shards") ?? 0) ? `, wants ${desired}` : "";
}

const LEFT_OUT = "dropped_series";

/** How a queue of remote write is: by what it sent, what it lost, and what others have sent meanwhile. */
export function queueState(values: Map<string, number>, newest: number | undefined) {
  const n = (name: string) => values.get(`prometheus_remote_storage_${name}`) ?? 0;
  const sent = n("queue_highest_sent_timestamp_seconds");
  const lag = sent && newest ? Math.max(0, newest - sent) : Number.NaN;
  const lost =
    n("samples_failed_total") + n("samples_dropped_total") - n(`samples_dropped_total ${LEFT_OUT}`);
  const stuck = n("samples_retried_total") > 0 || n("samples_failed_total") > 0;
  const state: [Tone, string] =
    lag > 60
      ? ["bad", "behind"]
      : !sent && stuck
        ? ["bad", "stuck"]
        : lost
          ? ["warn", "with losses"]
          : !sent
            ? ["quiet", "nothing to send"]
            : ["good", "good"];
  return { lag, lost, state };
}

/** Sums by a label, a row for each of its values. */
export function rowsBy(all: Labelled[], key: (labels: Labels) => string | undefined): Row[] {
  const rows = new Map<string, Row>();
  for (const m of all) {
    const name = key(m.labels);
    if (name === undefined) continue;
    const row = rows.get(name) ?? { name, values: new Map<string, number>() };
    const metric = m.labels.quantile ? `${m.name} ${m.labels.quantile}` : m.name;
    row.values.set(metric, (row.values.get(metric) ?? 0) + m.value);
    if (m.labels.reason === LEFT_OUT) {
      const part = `${metric} ${LEFT_OUT}`;
      row.values.set(part, (row.values.get(part) ?? 0) + m.value);
    }
    rows.set(name, row);
  }
  return [...rows.values()].sort((a, b) => a.name.localeCompare(b.name));
}

export function Delivery() {
  const res = useResource<Managers>("alertmanagers", {}, 15);
  const sent = useLabelled(NOTIFICATIONS, 5);
  const remote = useLabelled(REMOTE, 5);
  const known = rowsBy(sent ?? [], (l) => l.alertmanager);
  const active = (res.data?.activeAlertmanagers ?? []).map(
    (m): Row => known.find((k) => k.name === m.url) ?? { name: m.url, values: new Map() },
  );
  const dropped = res.data?.droppedAlertmanagers ?? [];
  const queues = rowsBy(remote ?? [], (l) => l.url ?? l.remote_name);
  const newest = (remote ?? []).find((m) => m.name.endsWith("highest_timestamp_in_seconds"))?.value;
  const n = (row: Row, name: string) => row.values.get(name);
  const count = (row: Row, name: string, bad = false) => {
    const value = n(row, name);
    return (
      <span class={`num${bad && value ? " bad-text" : ""}`}>
        {value === undefined ? "–" : value < 1e6 ? full(value) : short(value)}
      </span>
    );
  };
  const lag = (row: Row) => queueState(row.values, newest).lag;
  return (
    <>
      <h2 class="first">Alerts</h2>
      <DataTable<Row>
        label="Alertmanagers"
        rows={active}
        rowKey={(r) => r.name}
        rowHeight={34}
        empty={
          res.data
            ? "No Alertmanager is configured: alerts are evaluated and shown, but nobody is told."
            : "…"
        }
        columns={[
          {
            key: "state",
            title: "State",
            width: 110,
            render: (r) =>
              n(r, "prometheus_notifications_errors_total") ||
              n(r, "prometheus_notifications_dropped_total") ? (
                <Badge tone="warn">with losses</Badge>
              ) : (
                <Badge tone="good">good</Badge>
              ),
          },
          {
            key: "url",
            title: "Alertmanager",
            sort: (r) => r.name,
            render: (r) => (
              <span class="mono" title={visible(r.name)}>
                <CutText text={r.name.replace(/^https?:\/\//, "")} />
              </span>
            ),
          },
          {
            key: "sent",
            title: "Sent",
            width: 90,
            align: "right",
            render: (r) => count(r, "prometheus_notifications_sent_total"),
          },
          {
            key: "errors",
            title: "Failed",
            width: 80,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_notifications_errors_total", true),
          },
          {
            key: "dropped",
            title: "Dropped",
            width: 80,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_notifications_dropped_total", true),
          },
          {
            key: "queue",
            title: "Waiting",
            width: 110,
            align: "right",
            optional: true,
            render: (r) => (
              <span class="num">
                {n(r, "prometheus_notifications_queue_length") ?? "–"} of{" "}
                {short(n(r, "prometheus_notifications_queue_capacity") ?? 0)}
              </span>
            ),
          },
          {
            key: "latency",
            title: "99 % within",
            width: 100,
            align: "right",
            optional: true,
            render: (r) => (
              <span class="num">
                {humanDuration(n(r, "prometheus_notifications_latency_seconds 0.99") ?? Number.NaN)}
              </span>
            ),
          },
        ]}
      />
      {dropped.length > 0 && (
        <p class="muted">
          Dropped by relabeling: <bdi>{dropped.map((d) => visible(d.url)).join(", ")}</bdi>
        </p>
      )}
      <h2 class="next">Remote write</h2>
      <DataTable<Row>
        label="Remote write"
        rows={queues}
        rowKey={(r) => r.name}
        rowHeight={34}
        empty="No remote_write section is configured."
        columns={[
          {
            key: "state",
            title: "State",
            width: 120,
            render: (r) => {
              const [tone, text] = queueState(r.values, newest).state;
              return <Badge tone={tone}>{text}</Badge>;
            },
          },
          {
            key: "url",
            title: "To",
            sort: (r) => r.name,
            render: (r) => (
              <span class="mono" title={visible(r.name)}>
                <CutText text={r.name.replace(/^https?:\/\//, "")} />
              </span>
            ),
          },
          {
            key: "lag",
            title: "Behind",
            width: 80,
            align: "right",
            sort: lag,
            render: (r) => <span class="num">{humanDuration(lag(r))}</span>,
          },
          {
            key: "sent",
            title: "Sent",
            width: 80,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_remote_storage_samples_total"),
          },
          {
            key: "failed",
            title: "Failed",
            width: 70,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_remote_storage_samples_failed_total", true),
          },
          {
            key: "retried",
            title: "Retried",
            width: 80,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_remote_storage_samples_retried_total"),
          },
          {
            key: "lost",
            title: "Lost",
            width: 64,
            align: "right",
            optional: true,
            render: (r) => {
              const { lost } = queueState(r.values, newest);
              return (
                <span class={`num${lost ? " bad-text" : ""}`}>{lost < 1e6 ? full(lost) : short(lost)}</span>
              );
            },
          },
          {
            key: "left-out",
            title: "Left out",
            width: 90,
            align: "right",
            optional: true,
            render: (r) => count(r, `prometheus_remote_storage_samples_dropped_total ${LEFT_OUT}`),
          },
          {
            key: "pending",
            title: "Waiting",
            width: 90,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_remote_storage_samples_pending"),
          },
          {
            key: "shards",
            title: "Shards",
            width: 76,
            align: "right",
            optional: true,
            render: (r) => (
              <span class="num">
                {n(r, "prometheus_remote_storage_shards") ?? "–"}
                {wanted(r.values)}
              </span>
            ),
          },
        ]}
      />
    </>
  );
}
