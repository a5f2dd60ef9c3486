// Small parts that several pages share.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { callUrl, type Params } from "../lib/api";
import { live, zone } from "../lib/prefs";
import type { Resource } from "../lib/resource";
import { ago, formatTime } from "../lib/time";
import { Icon, type IconName } from "./icons";

export type Tone = "good" | "bad" | "warn" | "quiet" | "info";
const TONE_ICON: Record<Tone, IconName> = {
  good: "check",
  bad: "cross",
  warn: "warn",
  quiet: "minus",
  info: "info",
};

/** A state as colour, icon and word: never by colour alone. */
export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <span class={`badge ${tone}`}>
      <Icon name={TONE_ICON[tone]} size={12} />
      {children}
    </span>
  );
}

/** A point in time as distance from now, with the exact time on hover. */
export function Ago({ at }: { at: number }) {
  useTick(at > 0);
  return (
    <time title={at > 0 ? formatTime(at, zone.value, true) : undefined} class="num">
      {ago(at)}
    </time>
  );
}

const ticking = new Set<() => void>();
let clock = 0;

/** Draws the caller again every second while it is asked to; all callers share one clock. */
function useTick(on: boolean): void {
  const [, set] = useState(0);
  useEffect(() => {
    if (!on) return;
    const tick = () => set((n) => n + 1);
    ticking.add(tick);
    clock ||= window.setInterval(() => {
      if (!document.hidden) for (const t of ticking) t();
    }, 1000);
    return () => {
      ticking.delete(tick);
      if (ticking.size) return;
      clearInterval(clock);
      clock = 0;
    };
  }, [on]);
}

export function Segments<T extends string>(props: {
  label: string;
  value: T;
  options: [T, ComponentChildren][];
  onChange: (value: T) => void;
}) {
  // On a narrow screen the row scrolls: what is chosen must be in sight.
  const chosen = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const row = chosen.current?.parentElement;
    if (!chosen.current || !row) return;
    const end = chosen.current.offsetLeft + chosen.current.offsetWidth - row.offsetLeft;
    if (end > row.scrollLeft + row.clientWidth) row.scrollLeft = end - row.clientWidth;
  }, [props.value]);
  return (
    <fieldset class="segments">
      <legend class="sr">{props.label}</legend>
      {props.options.map(([value, text]) => (
        <button
          type="button"
          key={value}
          {...(value === props.value ? { ref: chosen } : {})}
          aria-pressed={value === props.value}
          onClick={() => props.onChange(value)}
        >
          {text}
        </button>
      ))}
    </fieldset>
  );
}

/** The box that narrows a list; `/` jumps to it. */
export function FilterBox(props: { value: string; label: string; onChange: (value: string) => void }) {
  return (
    <label class="filter">
      <Icon name="explore" size={14} />
      <span class="sr">{props.label}</span>
      <input
        type="search"
        value={props.value}
        placeholder={props.label}
        spellcheck={false}
        autocomplete="off"
        data-search
        onInput={(e) => props.onChange(e.currentTarget.value)}
      />
    </label>
  );
}

/** Title row of a page: heading, filters, freshness, and the API call behind it. */
export function PageHead(props: {
  title: string;
  children?: ComponentChildren;
  source?: { path: string; params?: Params; resource: Resource<unknown> };
}) {
  const s = props.source;
  return (
    <div class="page-head">
      <h1>{props.title}</h1>
      {props.children}
      {s && (
        <span class="fresh">
          {s.resource.at > 0 && (
            <span class="muted">
              {live.value ? "updated " : "paused, from "}
              <Ago at={s.resource.at} />
            </span>
          )}
          <a class="muted" href={callUrl(s.path, s.params)} target="_blank" rel="noreferrer">
            JSON
          </a>
        </span>
      )}
    </div>
  );
}

/** What stands in place of data that is missing: an error in words, or a calm placeholder. */
export function Pending({ resource }: { resource: Resource<unknown> }) {
  if (resource.error)
    return (
      <div class="notice bad" role="alert">
        <Icon name="warn" />
        <span>{resource.error}</span>
        <button type="button" class="btn small" onClick={resource.reload}>
          Try again
        </button>
      </div>
    );
  return <div class="placeholder" role="status" aria-label="Loading" />;
}

/** An error above data that is still shown from before. */
export function StaleNote({ resource }: { resource: Resource<unknown> }) {
  if (!resource.error || resource.data === undefined) return null;
  return (
    <div class="notice warn" role="alert">
      <Icon name="warn" />
      <span>
        {resource.error} Shown is the state of <Ago at={resource.at} />.
      </span>
    </div>
  );
}

/** Side panel with the details of a row. Escape closes it and focus returns to where it was. */
export function Drawer(props: {
  title: ComponentChildren;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    const dialog = ref.current;
    if (dialog && !dialog.open) dialog.showModal();
    // A click on the backdrop reaches the dialog itself; Escape is built in.
    dialog?.addEventListener("click", (e) => e.target === dialog && dialog.close());
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog ref={ref} class="drawer" aria-labelledby="drawer-title" onClose={props.onClose}>
      <div class="drawer-body">
        <div class="drawer-head">
          <h2 id="drawer-title">{props.title}</h2>
          <button type="button" class="btn icon-only" aria-label="Close" onClick={() => ref.current?.close()}>
            <Icon name="close" />
          </button>
        </div>
        {props.children}
      </div>
    </dialog>
  );
}

const LIST_WIDTH = 220;

/** A button that opens a list of actions. */
export function Menu(props: {
  label: string;
  icon?: IconName;
  text?: string;
  items: [string, () => void][];
}) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  // The list opens to the side where it fits.
  const toRight = open && (root.current?.getBoundingClientRect().right ?? 0) < LIST_WIDTH;
  useEffect(() => {
    if (!open) return;
    root.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const away = (e: Event) => {
      if (!root.current?.contains(e.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [open]);
  const button = () => root.current?.querySelector("button");
  function onKey(e: KeyboardEvent) {
    if (e.key === "Escape") {
      setOpen(false);
      button()?.focus();
      e.stopPropagation();
    }
    if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
    const all = [...(root.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    all[(at + (e.key === "ArrowDown" ? 1 : all.length - 1)) % all.length]?.focus();
    e.preventDefault();
  }
  return (
    <div class="menu" ref={root}>
      <button
        type="button"
        class={`btn${props.text ? "" : " icon-only"}`}
        aria-haspopup="menu"
        aria-expanded={open}
        aria-label={props.label}
        title={props.label}
        onClick={() => setOpen(!open)}
      >
        {props.icon && <Icon name={props.icon} />}
        {props.text}
      </button>
      {open && (
        <div class={`menu-list${toRight ? " to-right" : ""}`} role="menu" tabIndex={-1} onKeyDown={onKey}>
          {props.items.map(([text, run]) => (
            <button
              type="button"
              role="menuitem"
              key={text}
              onClick={() => {
                setOpen(false);
                button()?.focus();
                run();
              }}
            >
              {text}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** Copies text; works without a secure context too. */
export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    box.className = "sr";
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const t = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(t);
  }, [done]);
  return (
    <button
      type="button"
      class="btn small"
      onClick={() => {
        copyText(text).then(() => setDone(true));
      }}
    >
      <Icon name={done ? "check" : "copy"} size={12} />
      {done ? "Copied" : label}
    </button>
  );
}

/** Saves text or a blob as a file of the reader. */
export function download(name: string, content: Blob | string, type = "text/plain"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
