// Deleting series: first a dry run that counts, then a second confirmation. Only where the admin API is on.
import { useState } from "preact/hooks";
import { call, explainError, post } from "../lib/api";
import { full, visible } from "../lib/format";
import { zone } from "../lib/prefs";
import { formatDuration, formatTime, parseDuration, parseTime } from "../lib/time";
import type { Labels, QueryData } from "../lib/types";
import type { Node } from "../query/ast";
import { Icon } from "../ui/icons";
import { LabelText } from "../ui/labels";

interface Plan {
  selector: string;
  from: number;
  to: number;
  series: number;
  samples: number;
  some: Labels[];
}
const MOST_SHOWN = 10;

function moment(text: string, now: number): number | null {
  const t = text.trim();
  if (t === "" || t === "now") return now;
  const back = parseDuration(t.replace(/\s*ago$/, ""));
  return back !== null && !/^\d{9,}/.test(t) ? now - back : parseTime(t, zone.value);
}

export function DeleteSeries() {
  const [selector, setSelector] = useState("");
  const [from, setFrom] = useState("30d ago");
  const [to, setTo] = useState("now");
  const [plan, setPlan] = useState<Plan>();
  const [sure, setSure] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const [done, setDone] = useState("");

  async function attempt(work: () => Promise<void>) {
    setBusy(true);
    setError("");
    setDone("");
    try {
      await work();
    } catch (e) {
      setError(explainError(e));
    } finally {
      setBusy(false);
    }
  }

  const dryRun = (e: Event) => {
    e.preventDefault();
    setPlan(undefined);
    setSure(false);
    return attempt(async () => {
      const now = Date.now();
      const [a, b] = [moment(from, now), moment(to, now)];
      if (a === null || b === null)
        throw new Error("The times are not understood: 2026-11-21 10:00, 2h ago, now.");
      if (b <= a) throw new Error("The end must lie after the beginning.");
      const tree = (await call<Node>("parse_query", { query: selector })).data;
      if (tree.type !== "vectorSelector")
        throw new Error('A plain selector is needed, such as metric{job="x"}: this is an expression.');
      const range = `${selector}[${formatDuration(b - a)}]`;
      const number = async (query: string) => {
        const { data } = await call<QueryData>("query", { query, time: b / 1000 });
        return data.resultType === "vector" ? Number(data.result[0]?.value?.[1] ?? 0) : 0;
      };
      const [series, samples, some] = await Promise.all([
        number(`count(count_over_time(${range}))`),
        number(`sum(count_over_time(${range}))`),
        call<Labels[]>("series", { "match[]": selector, start: a / 1000, end: b / 1000, limit: MOST_SHOWN }),
      ]);
      setPlan({ selector, from: a, to: b, series, samples, some: some.data ?? [] });
    });
  };

  const remove = () =>
    attempt(async () => {
      if (!plan) return;
      await post("admin/tsdb/delete_series", {
        "match[]": plan.selector,
        start: plan.from / 1000,
        end: plan.to / 1000,
      });
      setDone(
        `Deleted ${full(plan.samples)} samples of ${full(plan.series)} series. Their disk space is freed by cleaning.`,
      );
      setPlan(undefined);
    });

  return (
    <section class="card delete-card" aria-labelledby="delete-title">
      <h2 id="delete-title">Delete series</h2>
      <form class="row" onSubmit={dryRun}>
        <input
          class="field mono wide-field"
          aria-label="Selector of the series to delete"
          placeholder='metric{job="gone"}'
          spellcheck={false}
          autocomplete="off"
          value={selector}
          onInput={(e) => {
            setSelector(e.currentTarget.value);
            setPlan(undefined);
          }}
        />
        <Time name="from" value={from} onChange={setFrom} />
        <Time name="to" value={to} onChange={setTo} />
        <button type="submit" class="btn" disabled={busy || !selector.trim()}>
          Dry run
        </button>
      </form>
      {error && (
        <div class="notice bad" role="alert">
          <Icon name="warn" />
          <bdi>{visible(error)}</bdi>
        </div>
      )}
      {plan && (
        <div class="plan" role="status">
          {plan.series === 0 ? (
            <p>Nothing would be deleted: no series of this selector has samples in that time.</p>
          ) : (
            <>
              <p>
                This would delete <b>{full(plan.samples)} samples</b> of <b>{full(plan.series)} series</b>,
                from {formatTime(plan.from, zone.value)} to {formatTime(plan.to, zone.value)}:
              </p>
              <ul>
                {plan.some.map((s) => (
                  <li key={JSON.stringify(s)}>
                    <LabelText labels={s} wrap />
                  </li>
                ))}
                {plan.series > plan.some.length && (
                  <li class="muted">and {full(plan.series - plan.some.length)} more</li>
                )}
              </ul>
              <p class="row">
                <label class="tick">
                  <input type="checkbox" checked={sure} onChange={(e) => setSure(e.currentTarget.checked)} />
                  Delete them for ever
                </label>
                <button type="button" class="btn danger" disabled={!sure || busy} onClick={remove}>
                  Delete {full(plan.series)} series
                </button>
              </p>
            </>
          )}
        </div>
      )}
      {done && (
        <div class="notice" role="status">
          <Icon name="check" />
          <span>{done}</span>
        </div>
      )}
      <p class="row">
        <button
          type="button"
          class="btn small"
          disabled={busy}
          onClick={() =>
            attempt(async () => {
              await post("admin/tsdb/clean_tombstones", {});
              setDone("Deleted samples were removed from the blocks on disk.");
            })
          }
        >
          Clean deleted samples from disk
        </button>
        <button
          type="button"
          class="btn small"
          disabled={busy}
          onClick={() =>
            attempt(async () => {
              const { name } = await post<{ name: string }>("admin/tsdb/snapshot", {});
              setDone(`Snapshot ${name} was written below the data directory.`);
            })
          }
        >
          Take a snapshot
        </button>
      </p>
    </section>
  );
}

function Time(props: { name: string; value: string; onChange: (v: string) => void }) {
  return (
    <label class="row tight">
      {props.name}
      <input
        class="field num"
        size={17}
        value={props.value}
        spellcheck={false}
        onInput={(e) => props.onChange(e.currentTarget.value)}
      />
    </label>
  );
}
