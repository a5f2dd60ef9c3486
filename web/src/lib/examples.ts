// Queries worth showing to a newcomer, chosen by the metrics that exist.
import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import type { QueryData } from "./types";

export interface Example {
  title: string;
  expr: string;
  /** How its values are written. */
  unit?: "ratio" | "bytes" | "seconds" | undefined;
}

// The most telling first. `needs` is the metric that must exist.
const KNOWN: (Example & { needs: string })[] = [
  {
    needs: "node_cpu_seconds_total",
    title: "Processor use by machine",
    expr: '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[1m]))',
    unit: "ratio",
  },
  {
    needs: "node_memory_MemAvailable_bytes",
    title: "Memory in use by machine",
    expr: "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
    unit: "ratio",
  },
  {
    needs: "container_cpu_usage_seconds_total",
    title: "Processor use by container",
    expr: "topk(10, sum by (namespace, pod) (rate(container_cpu_usage_seconds_total[2m])))",
  },
  {
    needs: "node_network_receive_bytes_total",
    title: "Network in, per second",
    expr: "sum by (instance) (rate(node_network_receive_bytes_total[1m]))",
    unit: "bytes",
  },
  {
    needs: "http_requests_total",
    title: "HTTP requests per second",
    expr: "sum by (job) (rate(http_requests_total[1m]))",
  },
  {
    needs: "prometheus_http_requests_total",
    title: "Requests to this server per second",
    expr: "sum by (handler) (rate(prometheus_http_requests_total[1m])) > 0",
  },
  { needs: "up", title: "Targets that answer", expr: "sum by (job) (up)" },
  {
    needs: "scrape_duration_seconds",
    title: "Slowest scrapes",
    expr: "topk(5, scrape_duration_seconds)",
    unit: "seconds",
  },
  {
    needs: "prometheus_tsdb_head_samples_appended_total",
    title: "Samples stored per second",
    expr: "sum(rate(prometheus_tsdb_head_samples_appended_total[1m]))",
  },
  {
    needs: "process_resident_memory_bytes",
    title: "Memory by process",
    expr: "process_resident_memory_bytes",
    unit: "bytes",
  },
  { needs: "scrape_samples_scraped", title: "Samples by target", expr: "topk(5, scrape_samples_scraped)" },
];

const WANTED = 6;
// Seconds: a metric that has ended is no good example.
const RECENT = 300;

/** Up to six examples; filled up with plain rates of counters that nobody has thought of here. */
export function pickExamples(names: string[]): Example[] {
  const have = new Set(names);
  const out: Example[] = KNOWN.filter((k) => have.has(k.needs)).map(({ needs: _needs, ...e }) => e);
  for (const name of names) {
    if (out.length >= WANTED) break;
    if (!/^[a-zA-Z_:][a-zA-Z0-9_:]*_total$/.test(name) || out.some((e) => e.expr.includes(name))) continue;
    out.push({ title: name, expr: `sum by (job) (rate(${name}[2m]))` });
  }
  return out.slice(0, WANTED);
}

/** Without the metrics of examples that have ended: names are found by block, which may be hours long. */
export async function withSamples(names: string[], signal: AbortSignal): Promise<string[]> {
  const have = new Set(names);
  const asked = new Set(KNOWN.map((k) => k.needs).filter((n) => have.has(n)));
  if (!asked.size) return names;
  const query = `group by (__name__) ({__name__=~"${[...asked].join("|")}"})`;
  const { data } = await call<QueryData>("query", { query }, signal);
  const now = new Set(data.resultType === "vector" ? data.result.map((r) => r.metric.__name__) : []);
  return names.filter((n) => now.has(n) || !asked.has(n));
}

/** Examples for this server; undefined until it has answered, looked for again while it has no samples yet. */
export function useExamples(): Example[] | undefined {
  const [found, setFound] = useState<Example[]>();
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const look = () =>
      call<string[]>(
        "label/__name__/values",
        { start: Math.floor(Date.now() / 1000) - RECENT, limit: 20_000 },
        stop.signal,
      )
        .then(({ data }) => withSamples(data ?? [], stop.signal))
        .then((names) => {
          const picked = pickExamples(names);
          setFound(picked);
          if (!picked.length) timer = window.setTimeout(look, 2000);
        })
        .catch(() => setFound((old) => old ?? []));
    look();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, []);
  return found;
}
