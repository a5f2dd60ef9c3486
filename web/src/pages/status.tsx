// Status: how this server was started, what it was told, and what it is.
import { urlOf } from "../lib/base";
import { visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { apiTime, formatTime } from "../lib/time";
import type { RuntimeInfo } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { Badge, CopyButton, download, FilterBox, PageHead, Pending, Segments } from "../ui/parts";
import { changedFlag } from "./flags";

type View = "server" | "flags" | "config" | "alertmanagers";

export function StatusPage() {
  const view = (param("view") || fromOldPath()) as View;
  return (
    <>
      <PageHead title="Status">
        <Segments<View>
          label="View"
          value={view}
          options={[
            ["server", "Server"],
            ["flags", "Flags"],
            ["config", "Configuration"],
            ["alertmanagers", "Alertmanagers"],
          ]}
          onChange={(v) => setParams({ view: v, search: "" })}
        />
      </PageHead>
      {view === "flags" ? (
        <Flags />
      ) : view === "config" ? (
        <Config />
      ) : view === "alertmanagers" ? (
        <Alertmanagers />
      ) : (
        <Server />
      )}
    </>
  );
}

function fromOldPath(): View {
  const last = location.pathname.split("/").pop();
  if (last === "flags" || last === "config") return last;
  return last === "alertmanager-discovery" ? "alertmanagers" : "server";
}

function Server() {
  const runtime = useResource<RuntimeInfo>("status/runtimeinfo", {}, 15);
  const build = useResource<Record<string, string>>("status/buildinfo");
  const r = runtime.data;
  if (!r) return <Pending resource={runtime} />;
  const known = new Set(["reloadConfigSuccess", "startTime", "serverTime", "lastConfigTime"]);
  const skew = (apiTime(r.serverTime) - runtime.at) / 1000;
  return (
    <div class="two">
      <section class="card">
        <h2>Runtime</h2>
        <dl class="facts">
          <dt>Configuration</dt>
          <dd>
            {r.reloadConfigSuccess ? (
              <Badge tone="good">loaded</Badge>
            ) : (
              <Badge tone="bad">last reload failed</Badge>
            )}{" "}
            <span class="num">{formatTime(apiTime(r.lastConfigTime), zone.value)}</span>
          </dd>
          <dt>Started</dt>
          <dd class="num">{formatTime(apiTime(r.startTime), zone.value)}</dd>
          <dt>Server clock</dt>
          <dd class="num">
            {formatTime(apiTime(r.serverTime), zone.value)}
            {Math.abs(skew) > 30 && (
              <span class="warn-text"> ({Math.round(skew)} s from this computer's clock)</span>
            )}
          </dd>
          {Object.entries(r)
            .filter(([k]) => !known.has(k))
            .map(([k, v]) => [
              <dt key={`${k} name`}>{k}</dt>,
              <dd key={k} class="num">
                <bdi>{v === "" ? "–" : visible(String(v))}</bdi>
              </dd>,
            ])}
        </dl>
      </section>
      <section class="card">
        <h2>Build</h2>
        {build.data ? (
          <dl class="facts">
            {Object.entries(build.data).map(([k, v]) => [
              <dt key={`${k} name`}>{k}</dt>,
              <dd key={k}>
                <bdi>{visible(String(v)) || "–"}</bdi>
              </dd>,
            ])}
          </dl>
        ) : (
          <Pending resource={build} />
        )}
        <p class="row">
          <a class="btn small" href={urlOf("metrics")} target="_blank" rel="noreferrer">
            Own metrics
          </a>
          <a class="btn small" href={urlOf("api/v1/status/buildinfo")} target="_blank" rel="noreferrer">
            JSON
          </a>
          <a
            class="btn small"
            href={new URL(/* @vite-ignore */ "./licenses.txt", import.meta.url).href}
            target="_blank"
            rel="noreferrer"
          >
            Licenses of the interface
          </a>
        </p>
      </section>
    </div>
  );
}

interface Flag {
  name: string;
  value: string;
  changed: boolean | null;
}

function Flags() {
  const res = useResource<Record<string, string>>("status/flags");
  const search = param("search");
  if (!res.data) return <Pending resource={res} />;
  const all = Object.entries(res.data)
    .map(([name, value]): Flag => ({ name, value, changed: changedFlag(name, value) }))
    .sort((a, b) => Number(b.changed === true) - Number(a.changed === true) || a.name.localeCompare(b.name));
  const rows = all.filter((f) => `${f.name} ${f.value}`.toLowerCase().includes(search.toLowerCase()));
  return (
    <>
      <div class="controls">
        <FilterBox value={search} label="Filter flags" onChange={(v) => setParams({ search: v })} />
        <span class="muted">
          {all.filter((f) => f.changed).length} differ from their default and stand first
        </span>
      </div>
      <DataTable<Flag>
        label="Flags"
        rows={rows}
        rowKey={(f) => f.name}
        empty="No flag matches."
        rowClass={(f) => (f.changed ? "strong" : "")}
        columns={[
          {
            key: "name",
            title: "Flag",
            width: 400,
            sort: (f) => f.name,
            render: (f) => <span class="mono">--{visible(f.name)}</span>,
          },
          {
            key: "value",
            title: "Value",
            render: (f) => <bdi class="mono">{f.value === "" ? "–" : visible(f.value)}</bdi>,
          },
          {
            key: "changed",
            title: "Origin",
            width: 100,
            optional: true,
            render: (f) => (f.changed ? <Badge tone="info">changed</Badge> : null),
          },
        ]}
      />
    </>
  );
}

function Config() {
  const res = useResource<{ yaml: string }>("status/config");
  if (!res.data) return <Pending resource={res} />;
  const yaml = res.data.yaml;
  return (
    <>
      <div class="controls">
        <CopyButton text={yaml} />
        <button type="button" class="btn small" onClick={() => download("prometheus.yml", yaml, "text/yaml")}>
          Download
        </button>
        <span class="muted">As loaded: defaults filled in, secrets hidden.</span>
      </div>
      <pre class="code-block tall" tabIndex={0}>
        {yaml.split("\n").map(visible).join("\n")}
      </pre>
    </>
  );
}

interface Managers {
  activeAlertmanagers: { url: string }[] | null;
  droppedAlertmanagers: { url: string }[] | null;
}

function Alertmanagers() {
  const res = useResource<Managers>("alertmanagers", {}, 15);
  if (!res.data) return <Pending resource={res} />;
  const list = (title: string, all: { url: string }[] | null) => (
    <section class="card">
      <h2>{title}</h2>
      {all?.length ? (
        <ul>
          {all.map((m) => (
            <li key={m.url}>
              <bdi class="mono">{visible(m.url)}</bdi>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">None.</p>
      )}
    </section>
  );
  return (
    <div class="two">
      {list("Alerts are sent to", res.data.activeAlertmanagers)}
      {list("Dropped by relabeling", res.data.droppedAlertmanagers)}
    </div>
  );
}
