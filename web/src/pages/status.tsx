// Status: how this server was started, what it was told, and what it is.
import { urlOf } from "../lib/base";
import { bytes, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { apiTime, formatTime } from "../lib/time";
import type { RuntimeInfo } from "../lib/types";
import { DataTable } from "../ui/DataTable";
import { CutText } from "../ui/labels";
import { lazy } from "../ui/lazy";
import { Badge, FilterBox, PageHead, Pending, Segments } from "../ui/parts";
import { changedFlag } from "./flags";
import "../styles/pages.css";

type View = "server" | "flags" | "config" | "delivery" | "features" | "api";

const ConfigView = lazy(() => import("./configview").then((m) => m.ConfigView));
const Delivery = lazy(() => import("./delivery").then((m) => m.Delivery));
const ApiBrowser = lazy(() => import("./apibrowser").then((m) => m.ApiBrowser));

export function StatusPage() {
  const named = param("view") || fromOldPath();
  const view = (named === "alertmanagers" ? "delivery" : named) as View;
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
            ["delivery", "Delivery"],
            ["features", "Features"],
            ["api", "API"],
          ]}
          onChange={(v) => setParams({ view: v, search: "", part: "", call: "" })}
        />
      </PageHead>
      {view === "flags" ? (
        <Flags />
      ) : view === "config" ? (
        <ConfigView />
      ) : view === "delivery" ? (
        <Delivery />
      ) : view === "features" ? (
        <Features />
      ) : view === "api" ? (
        <ApiBrowser />
      ) : (
        <Server />
      )}
    </>
  );
}

function fromOldPath(): View {
  const last = location.pathname.split("/").pop();
  if (last === "flags" || last === "config") return last;
  return last === "alertmanager-discovery" ? "delivery" : "server";
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
            .filter(([k, v]) => !known.has(k) && v !== "")
            .map(([k, v]) => [
              <dt key={`${k} name`}>{NAMES[k] ?? k}</dt>,
              <dd key={k} class="num">
                <bdi>{factOf(k, v)}</bdi>
              </dd>,
            ])}
        </dl>
      </section>
      <section class="card">
        <h2>Build</h2>
        {build.data ? (
          <dl class="facts">
            {Object.entries(build.data).map(([k, v]) => [
              <dt key={`${k} name`}>{BUILD[k] ?? k}</dt>,
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

const NAMES: Record<string, string> = {
  CWD: "Working directory",
  hostname: "Host",
  corruptionCount: "Log corruptions",
  goroutineCount: "Tasks",
  GOMAXPROCS: "Processors",
  GOMEMLIMIT: "Memory limit",
  storageRetention: "Retention",
};
const BUILD: Record<string, string> = {
  version: "Compatible with Prometheus",
  revision: "Revision",
  branch: "Branch",
  buildUser: "Built by",
  buildDate: "Built on",
  goVersion: "Compiler",
};
// How the API says that there is no limit.
const UNLIMITED = 2 ** 63;

export function factOf(name: string, value: unknown): string {
  if (name === "GOMEMLIMIT" && typeof value === "number")
    return value >= UNLIMITED - 1024 ? "none" : bytes(value);
  return value === "" ? "–" : visible(String(value));
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
            render: (f) => (
              <span class="mono">
                <CutText text={`--${f.name}`} />
              </span>
            ),
          },
          {
            key: "value",
            title: "Value",
            render: (f) => <bdi class="mono">{f.value === "" ? "–" : visible(f.value)}</bdi>,
          },
          {
            key: "changed",
            title: "Origin",
            width: 118,
            optional: true,
            render: (f) => (f.changed ? <Badge tone="info">changed</Badge> : null),
          },
        ]}
      />
    </>
  );
}

interface Capability {
  category: string;
  name: string;
  on: boolean;
}

function Features() {
  const res = useResource<Record<string, Record<string, boolean>>>("features");
  const search = param("search").toLowerCase();
  if (!res.data) return <Pending resource={res} />;
  const rows = Object.entries(res.data)
    .flatMap(([category, all]) =>
      Object.entries(all).map(([name, on]): Capability => ({ category, name, on })),
    )
    .filter((c) => `${c.category} ${c.name}`.toLowerCase().includes(search));
  return (
    <>
      <div class="controls">
        <FilterBox
          value={param("search")}
          label="Filter features"
          onChange={(v) => setParams({ search: v })}
        />
        <span class="muted">
          {rows.filter((c) => c.on).length} of {rows.length} are on
        </span>
      </div>
      <DataTable<Capability>
        label="Features"
        rows={rows}
        rowKey={(c) => `${c.category} ${c.name}`}
        empty="No feature matches."
        columns={[
          {
            key: "category",
            title: "Part",
            width: 118,
            sort: (c) => c.category,
            render: (c) => <bdi>{visible(c.category)}</bdi>,
          },
          {
            key: "name",
            title: "Feature",
            sort: (c) => c.name,
            render: (c) => <bdi class="mono">{visible(c.name)}</bdi>,
          },
          {
            key: "on",
            title: "State",
            width: 90,
            sort: (c) => (c.on ? 0 : 1),
            render: (c) => <Badge tone={c.on ? "good" : "quiet"}>{c.on ? "on" : "off"}</Badge>,
          },
        ]}
      />
    </>
  );
}
