// Delivery: what was sent to Alertmanagers and to other servers, what waits, what was lost.
import { full, short, visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { type Labelled, useLabelled } from "../lib/selfmetrics";
import { humanDuration } from "../lib/time";
import type { Labels } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { Badge } from "../ui/parts";

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

/** Sums by a label, a row for each of its values. */
export function rowsBy(all: Labelled[], key: (labels: Labels) => string | undefined): Row[] {
  const rows = new Map<string, Row>();
  for (const m of all) {
    const name = key(m.labels);
    if (name === undefined) continue;
    const row = rows.get(name) ?? { name, values: new Map<string, number>() };
    const metric = m.labels.quantile ? `${m.name} ${m.labels.quantile}` : m.name;
    row.values.set(metric, (row.values.get(metric) ?? 0) + m.value);
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
  const lag = (row: Row) => {
    const at = n(row, "prometheus_remote_storage_queue_highest_sent_timestamp_seconds");
    return at && newest ? Math.max(0, newest - at) : Number.NaN;
  };
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
            render: (r) => <bdi class="mono">{visible(r.name)}</bdi>,
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
            width: 110,
            render: (r) =>
              lag(r) > 60 ? (
                <Badge tone="bad">behind</Badge>
              ) : n(r, "prometheus_remote_storage_samples_failed_total") ||
                n(r, "prometheus_remote_storage_samples_dropped_total") ? (
                <Badge tone="warn">with losses</Badge>
              ) : (
                <Badge tone="good">good</Badge>
              ),
          },
          {
            key: "url",
            title: "To",
            sort: (r) => r.name,
            render: (r) => <bdi class="mono">{visible(r.name)}</bdi>,
          },
          {
            key: "lag",
            title: "Behind",
            width: 90,
            align: "right",
            sort: lag,
            render: (r) => <span class="num">{humanDuration(lag(r))}</span>,
          },
          {
            key: "sent",
            title: "Sent",
            width: 90,
            align: "right",
            render: (r) => count(r, "prometheus_remote_storage_samples_total"),
          },
          {
            key: "failed",
            title: "Failed",
            width: 80,
            align: "right",
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
            key: "dropped",
            title: "Dropped",
            width: 80,
            align: "right",
            optional: true,
            render: (r) => count(r, "prometheus_remote_storage_samples_dropped_total"),
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
            width: 90,
            align: "right",
            optional: true,
            render: (r) => (
              <span class="num">
                {n(r, "prometheus_remote_storage_shards") ?? "–"} of{" "}
                {Number((n(r, "prometheus_remote_storage_shards_desired") ?? 0).toPrecision(3))}
              </span>
            ),
          },
        ]}
      />
    </>
  );
}
