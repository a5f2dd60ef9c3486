// The palette: one box that leads to pages, metrics, alerts, rules, targets and actions.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call } from "../lib/api";
import { quote, selector, visible } from "../lib/format";
import { go } from "../lib/router";
import { searchMetrics } from "../lib/search";
import type { QueryData, RulesData } from "../lib/types";
import { queryLink } from "../query/state";
import { Icon, type IconName } from "./icons";
import "../styles/palette.css";

export interface Entry {
  kind: string;
  icon: IconName;
  title: string;
  note?: string;
  run: () => void;
}

const MOST_OF_A_KIND = 8;
const REST_MS = 120;

/** Keeps what contains all words; titles that begin with the text stand first. */
export function rank<T extends { title: string; note?: string }>(all: T[], text: string, most: number): T[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return all
    .map((entry, i) => {
      const title = entry.title.toLowerCase();
      const whole = `${title} ${(entry.note ?? "").toLowerCase()}`;
      if (!words.every((w) => whole.includes(w))) return null;
      const first = words[0] ?? "";
      const score =
        title === text.toLowerCase() ? 0 : title.startsWith(first) ? 1 : title.includes(first) ? 2 : 3;
      return { entry, score, i };
    })
    .filter((x) => x !== null)
    .sort((a, b) => a.score - b.score || a.entry.title.length - b.entry.title.length || a.i - b.i)
    .slice(0, most)
    .map((x) => x.entry);
}

export function Palette(props: { entries: Entry[]; onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [rules, setRules] = useState<Entry[]>([]);
  const [found, setFound] = useState<Entry[]>([]);
  const dialog = useRef<HTMLDialogElement>(null);

  useEffect(() => {
    const d = dialog.current;
    const before = document.activeElement;
    if (d && !d.open) d.showModal();
    d?.addEventListener("click", (e) => e.target === d && d.close());
    const stop = new AbortController();
    call<RulesData>("rules", { exclude_alerts: "true" }, stop.signal).then(
      ({ data }) =>
        setRules(data.groups.flatMap((g) => g.rules.map((r) => ruleEntry(r.name, r.type, r.state)))),
      () => {
        // Without rules the palette still leads everywhere else.
      },
    );
    return () => {
      stop.abort();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);

  useEffect(() => {
    const wanted = text.trim();
    if (wanted.length < 2) {
      setFound([]);
      return;
    }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      search(wanted, stop.signal).then(setFound, () => {
        // A failed search leaves what is already listed.
      });
    }, REST_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text]);

  const shown = useMemo(() => {
    const local = rank(props.entries, text, text ? MOST_OF_A_KIND : 40);
    const typed = text.trim();
    const query: Entry[] = typed
      ? [
          {
            kind: "Query",
            icon: "play",
            title: typed,
            note: "Run as a query",
            run: () => go(queryLink(typed)),
          },
        ]
      : [];
    return [...local, ...(typed ? rank(rules, typed, MOST_OF_A_KIND) : []), ...found, ...query];
  }, [props.entries, rules, found, text]);
  const current = Math.min(at, shown.length - 1);

  useEffect(() => {
    document.getElementById(`palette-${current}`)?.scrollIntoView({ block: "nearest" });
  }, [current]);

  function take(entry: Entry | undefined) {
    if (!entry) return;
    dialog.current?.close();
    entry.run();
  }

  function onKey(e: KeyboardEvent) {
    const by = e.key === "ArrowDown" ? 1 : e.key === "ArrowUp" ? -1 : 0;
    if (by) {
      setAt((current + by + shown.length) % Math.max(1, shown.length));
      e.preventDefault();
    } else if (e.key === "Enter") {
      take(shown[current]);
      e.preventDefault();
    }
  }

  return (
    <dialog ref={dialog} class="palette" aria-label="Go to anything" onClose={props.onClose}>
      <div class="palette-box">
        <Icon name="explore" />
        <input
          type="text"
          role="combobox"
          aria-label="Search pages, metrics, alerts, targets and actions"
          aria-expanded="true"
          aria-controls="palette-list"
          aria-autocomplete="list"
          aria-activedescendant={shown.length ? `palette-${current}` : undefined}
          placeholder="Pages, metrics, alerts, targets, actions…"
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={(e) => {
            setText(e.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={onKey}
        />
        <kbd>Esc</kbd>
      </div>
      <div class="palette-list" id="palette-list" role="listbox" aria-label="Found" tabIndex={-1}>
        {shown.map((e, i) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the keys of a list belong to the box above it
          <div
            key={`${e.kind} ${e.title} ${e.note} ${i}`}
            id={`palette-${i}`}
            role="option"
            tabIndex={-1}
            aria-selected={i === current}
            class="palette-row"
            onClick={() => take(e)}
            onMouseMove={() => i !== current && setAt(i)}
          >
            <Icon name={e.icon} size={14} />
            <bdi class="palette-title">{visible(e.title)}</bdi>
            {e.note && <bdi class="muted palette-note">{visible(e.note)}</bdi>}
            <span class="palette-kind">{e.kind}</span>
          </div>
        ))}
      </div>
      <p class="sr" role="status">
        {shown.length} found
      </p>
    </dialog>
  );
}

function ruleEntry(name: string, type: string, state: string | undefined): Entry {
  const alert = type === "alerting";
  return {
    kind: alert ? "Alert" : "Rule",
    icon: alert ? "alerts" : "rules",
    title: name,
    note: state ?? "",
    run: () => go(`${alert ? "alerts" : "rules"}?search=${encodeURIComponent(name)}`),
  };
}

/** Metrics by name and targets by address, asked of the server: it may know millions. */
async function search(text: string, signal: AbortSignal): Promise<Entry[]> {
  const words = text
    .split(/\s+/)
    .map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
    .join(".*");
  const regex = quote(`(?i).*${words}.*`);
  const [names, targets] = await Promise.allSettled([
    searchMetrics(text, 50, signal),
    call<QueryData>("query", { query: `up{instance=~${regex}}`, limit: MOST_OF_A_KIND }, signal),
  ]);
  if (signal.aborted) throw new DOMException("aborted", "AbortError");
  const metrics = names.status === "fulfilled" ? names.value : [];
  const up =
    targets.status === "fulfilled" && targets.value.data.resultType === "vector"
      ? targets.value.data.result
      : [];
  return [
    ...rank(
      metrics.map(
        (title): Entry => ({
          kind: "Metric",
          icon: "query",
          title,
          run: () => go(queryLink(selector({ __name__: title }))),
        }),
      ),
      text,
      MOST_OF_A_KIND,
    ),
    ...up.map(
      (t): Entry => ({
        kind: "Target",
        icon: "targets",
        title: t.metric.instance ?? "",
        note: `${t.metric.job ?? ""} ${t.value?.[1] === "1" ? "up" : "down"}`,
        run: () => go(`targets?search=${encodeURIComponent(`instance="${t.metric.instance}"`)}`),
      }),
    ),
  ];
}
