// What a person prefers, kept in this browser only. Everything that can be shared lives in the address instead.
import { effect, type Signal, signal } from "@preact/signals";
import type { Zone } from "./time";

function persisted<T>(name: string, fallback: T, ok: (v: unknown) => boolean): Signal<T> {
  const key = `meerkat.${name}`;
  let start = fallback;
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(key) ?? "null");
    if (stored !== null && ok(stored)) start = stored as T;
  } catch {
    // Storage may be switched off: preferences then last as long as the page.
  }
  const s = signal(start);
  effect(() => {
    const value = JSON.stringify(s.value);
    try {
      localStorage.setItem(key, value);
    } catch {
      // see above
    }
  });
  return s;
}

export type Theme = "auto" | "light" | "dark";
const oneOf =
  (...choices: unknown[]) =>
  (v: unknown) =>
    choices.includes(v);

export const theme = persisted<Theme>("theme", "auto", oneOf("auto", "light", "dark"));
export const zone = persisted<Zone>("zone", "local", oneOf("local", "utc"));
/** Whether status pages and, if chosen there, queries refresh by themselves. */
export const live = persisted<boolean>("live", true, oneOf(true, false));
export const railOpen = persisted<boolean>("rail", true, oneOf(true, false));
export const completionOn = persisted<boolean>("completion", true, oneOf(true, false));
/** Address of a trace, with labels of the exemplar in braces. */
export const traceLink = persisted<string>("traceLink", "", (v) => typeof v === "string");
/** Who creates silences here. */
export const author = persisted<string>("author", "", (v) => typeof v === "string");
/** Queries that ran, newest first. */
export const history = persisted<string[]>(
  "history",
  [],
  (v) => Array.isArray(v) && v.every((x) => typeof x === "string"),
);

const LONGEST_HISTORY = 200;

export function remember(query: string): void {
  const text = query.trim();
  if (text === "") return;
  history.value = [text, ...history.value.filter((q) => q !== text)].slice(0, LONGEST_HISTORY);
}

const darkSystem = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
const systemDark = signal(darkSystem?.matches ?? false);
darkSystem?.addEventListener("change", (e) => {
  systemDark.value = e.matches;
});

/** Whether dark colours are in force; canvases read it to repaint. */
export function isDark(): boolean {
  return theme.value === "auto" ? systemDark.value : theme.value === "dark";
}

/** Keeps the root element's theme in step. */
export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  });
}
