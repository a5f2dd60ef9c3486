// What stands where a result would be when there is none: the doctor's findings.
import { useEffect, useState } from "preact/hooks";
import { call, explainError, isAbort } from "../lib/api";
import { visible } from "../lib/format";
import { escapeName } from "../lib/names";
import type { QueryData } from "../lib/types";
import type { Node } from "./ast";
import { diagnose, type Finding, type Patient } from "./doctor";
import "../styles/pages.css";

export function Empty(props: { expr: string; at: number; onTry: (expr: string) => void }) {
  const [findings, setFindings] = useState<Finding[]>();
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    setFindings(undefined);
    setError("");
    diagnose(props.expr, patientAt(props.at, stop.signal)).then(
      (f) => !stop.signal.aborted && setFindings(f),
      (e: unknown) => {
        if (!isAbort(e) && !stop.signal.aborted) setError(explainError(e));
      },
    );
    return () => stop.abort();
  }, [props.expr]);
  return (
    <div class="doctor">
      <h2>No data</h2>
      <p>The query is valid, but it has no result here.</p>
      {!findings && !error && <p class="muted">Looking for the reason…</p>}
      {findings && (
        <ul>
          {findings.map((f) => (
            <li key={f.text}>
              <bdi>{visible(f.text)}</bdi>{" "}
              {f.tries.map((t) => (
                <button
                  type="button"
                  class="btn small mono"
                  key={t.label}
                  title={`Run ${t.expr}`}
                  onClick={() => props.onTry(t.expr)}
                >
                  <bdi>{visible(t.label)}</bdi>
                </button>
              ))}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function patientAt(at: number, signal: AbortSignal): Patient {
  const time = at / 1000;
  const vector = async (query: string) => {
    const { data } = await call<QueryData>("query", { query, time }, signal);
    return data.resultType === "vector" ? data.result : [];
  };
  const start = Math.floor(time) - 86_400;
  const end = Math.ceil(time);
  return {
    parse: async (query) => (await call<Node>("parse_query", { query }, signal)).data,
    count: async (expr) => Number((await vector(`count(${expr})`))[0]?.value?.[1] ?? 0),
    labelNames: async (expr) => {
      const some = await vector(`topk(50, ${expr})`);
      return [...new Set(some.flatMap((s) => Object.keys(s.metric)))].sort();
    },
    metricsLike: async (part) => {
      const regex = part.replace(/[^a-zA-Z0-9_:]/g, ".");
      const { data } = await call<string[]>(
        "label/__name__/values",
        { "match[]": `{__name__=~"(?i).*${regex}.*"}`, start, end, limit: 300 },
        signal,
      );
      return data ?? [];
    },
    values: async (label, selector) => {
      const path = `label/${encodeURIComponent(escapeName(label))}/values`;
      const { data } = await call<string[]>(path, { "match[]": selector, start, end, limit: 1000 }, signal);
      return data ?? [];
    },
  };
}
