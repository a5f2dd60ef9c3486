// The expression of an alert over time, beside its limit; and when the rule would have fired.
import { useEffect, useMemo, useState } from "preact/hooks";
import { biggest, type Frame, toFrame } from "../chart/frame";
import { type Span, TimeChart } from "../chart/TimeChart";
import { ApiError, call, explainError, isAbort } from "../lib/api";
import { commonLabels, quote, short } from "../lib/format";
import { isDark, zone } from "../lib/prefs";
import { formatDuration, humanDuration, parseDuration } from "../lib/time";
import { type Run, runsOf, summary } from "../lib/timeline";
import type { Labels, QueryData, Rule } from "../lib/types";
import type { Node } from "../query/ast";
import { type Threshold, threshold } from "../query/threshold";
import { LabelText } from "../ui/labels";
import { Segments } from "../ui/parts";
import { Strip } from "../ui/Strip";

const RANGES: [string, string][] = [
  ["1h", "1 h"],
  ["6h", "6 h"],
  ["1d", "1 day"],
  ["1w", "1 week"],
];
const MOST_LINES = 20;
const POINTS = 240;

export function AlertGraph({ rule }: { rule: Rule }) {
  const [range, setRange] = useState("1h");
  const [state, setState] = useState<{ limit: Threshold; frame: Frame; more: number; runs: Run[] }>();
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    setError("");
    (async () => {
      const tree = (await call<Node>("parse_query", { query: rule.query }, stop.signal)).data;
      const limit = threshold(tree);
      const length = parseDuration(range)!;
      const step = Math.max(1000, Math.round(length / POINTS / 1000) * 1000);
      const end = Math.floor(Date.now() / step) * step;
      const ask = async (query: string) => {
        const over = { start: (end - length) / 1000, end: end / 1000, step: step / 1000, limit: 500 };
        const { data } = await call<QueryData>("query_range", { query, ...over }, stop.signal);
        return data.resultType === "matrix" ? data.result : [];
      };
      const [values, states] = await Promise.all([
        ask(limit.expr),
        ask(`max_over_time(ALERTS{alertname=${quote(rule.name)}}[${step}ms])`),
      ]);
      const all = toFrame(values, end - length, end, step);
      const lines = biggest(all.lines, MOST_LINES);
      setState({
        limit,
        frame: { times: all.times, lines },
        more: all.lines.length - lines.length,
        runs: runsOf(states, step / 1000),
      });
    })().catch((e: unknown) => {
      if (!isAbort(e)) setError(explainError(e));
    });
    return () => stop.abort();
  }, [rule.query, range]);
  const spans = useMemo(
    () =>
      (state?.runs ?? []).map(
        (r): Span => ({ from: r.from, to: r.to, tone: r.state === "firing" ? "bad" : "warn" }),
      ),
    [state],
  );
  const levels = useMemo(
    () => (state && state.limit.level !== null ? [state.limit.level] : []),
    [state?.limit.level],
  );
  const common = useMemo(() => commonLabels((state?.frame.lines ?? []).map((l) => l.labels)), [state]);
  return (
    <section aria-label="Value over time">
      <div class="row spread">
        <h3>
          Value
          {state &&
            state.limit.level !== null &&
            ` and limit (${state.limit.op} ${short(state.limit.level)})`}
        </h3>
        <Segments label="Range" value={range} options={RANGES} onChange={setRange} />
      </div>
      {error ? (
        <p class="bad-text">{error}</p>
      ) : !state ? (
        <div style={{ height: "180px" }} />
      ) : state.frame.lines.length ? (
        <TimeChart
          frame={state.frame}
          mode="lines"
          height={180}
          zone={zone.value}
          dark={isDark()}
          common={common}
          levels={levels}
          spans={spans}
          label={`Value of ${state.limit.expr}`}
        />
      ) : (
        <p class="muted">The expression has no value in this range.</p>
      )}
      {state && state.more > 0 && <p class="muted">The {MOST_LINES} highest are drawn.</p>}
    </section>
  );
}

interface Outcome {
  alerts: { labels: Labels; intervals: { state: "pending" | "firing"; start: number; end: number }[] }[];
}
const MOST_SHOWN = 30;
// Every alert of a backtest has this label, with the same value.
const NAMED: Labels = { alertname: "" };

/** Asks when a rule would have fired with this expression and these times. */
export function Backtest({ rule, interval }: { rule: Rule; interval: number }) {
  const [open, setOpen] = useState(false);
  const [expr, setExpr] = useState(rule.query);
  const [hold, setHold] = useState(formatDuration((rule.duration ?? 0) * 1000));
  const [keep, setKeep] = useState(formatDuration((rule.keepFiringFor ?? 0) * 1000));
  const [length, setLength] = useState("1d");
  const [asked, setAsked] = useState<{ from: number; to: number; outcome: Outcome }>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);

  async function run(e: Event) {
    e.preventDefault();
    const ms = parseDuration(length);
    if (!ms) {
      setError(`"${length}" is no length of time.`);
      return;
    }
    setBusy(true);
    setError("");
    const to = Math.floor(Date.now() / 1000);
    const from = to - ms / 1000;
    // At most some thousand evaluations: a long look back takes longer steps than the rule itself.
    const step = Math.max(interval, Math.ceil(ms / 1000 / 5000));
    try {
      const { data } = await call<Outcome>("rules/backtest", {
        expr,
        for: hold,
        keep_firing_for: keep,
        start: from,
        end: to,
        step,
      });
      setAsked({ from, to, outcome: data });
    } catch (error) {
      setError(
        error instanceof ApiError && error.status === 404
          ? "This server does not offer backtests."
          : explainError(error),
      );
    } finally {
      setBusy(false);
    }
  }

  if (!open)
    return (
      <button type="button" class="btn small" onClick={() => setOpen(true)}>
        Would it have fired?
      </button>
    );
  const alerts = asked?.outcome.alerts ?? [];
  const runsOfAlert = (a: Outcome["alerts"][number]): Run[] =>
    a.intervals.map((i) => ({ from: i.start, to: i.end, state: i.state }));
  const all = alerts.flatMap(runsOfAlert);
  const s = summary(all);
  return (
    <section class="backtest" aria-label="Backtest">
      <h3>Would it have fired?</h3>
      <form class="silence-form" onSubmit={run}>
        <textarea
          class="expr field"
          aria-label="Expression"
          rows={Math.min(6, expr.split("\n").length + Math.floor(expr.length / 70))}
          spellcheck={false}
          value={expr}
          onInput={(e) => setExpr(e.currentTarget.value)}
        />
        <div class="row">
          <Small name="for" value={hold} onChange={setHold} />
          <Small name="keep firing for" value={keep} onChange={setKeep} />
          <Small name="look back" value={length} onChange={setLength} />
          <button type="submit" class="btn primary" disabled={busy}>
            Try
          </button>
        </div>
      </form>
      {error && (
        <div class="notice bad" role="alert">
          {error}
        </div>
      )}
      {asked && (
        <>
          <p role="status">
            {s.times
              ? `It would have fired ${s.times === 1 ? "once" : `${s.times} times`}, ${humanDuration(s.seconds)} in all, at most ${humanDuration(s.longest)} in a row.`
              : all.length
                ? "It would have been pending, but never fired."
                : "It would never have been active."}
          </p>
          <ul class="strips">
            {alerts.slice(0, MOST_SHOWN).map((a) => (
              <li key={JSON.stringify(a.labels)}>
                <LabelText labels={a.labels} skip={NAMED} wrap />
                <Strip runs={runsOfAlert(a)} from={asked.from} to={asked.to} tall />
              </li>
            ))}
          </ul>
          {alerts.length > MOST_SHOWN && <p class="muted">{alerts.length - MOST_SHOWN} more.</p>}
        </>
      )}
    </section>
  );
}

function Small(props: { name: string; value: string; onChange: (v: string) => void }) {
  return (
    <label class="row">
      {props.name}
      <input
        class="field num"
        size={5}
        value={props.value}
        onInput={(e) => props.onChange(e.currentTarget.value)}
      />
    </label>
  );
}
