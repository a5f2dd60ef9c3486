// The address is the state. One signal holds it; links inside the mount point change it without a page load.
import { signal } from "@preact/signals";
import { pathWithin, urlOf } from "./base";

export interface Place {
  path: string;
  search: string;
}

// Old addresses of Prometheus that people have bookmarked.
const MOVED: Record<string, string> = {
  graph: "query",
  "tsdb-status": "cardinality",
  flags: "status",
  config: "status",
  "alertmanager-discovery": "status",
  agent: "",
};

function current(): Place {
  const path = (pathWithin(location.pathname) ?? "").replace(/\/+$/, "").replace(/^(classic|new)\//, "");
  return { path: MOVED[path] ?? path, search: location.search };
}

export const place = signal<Place>({ path: "", search: "" });

export function startRouter(): void {
  place.value = current();
  addEventListener("popstate", () => {
    place.value = current();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    const path = pathWithin(link.pathname);
    if (path === null || /^(api|metrics|-|static|consoles|federate|debug)(\/|$)/.test(path)) return;
    event.preventDefault();
    go(path + link.search);
  });
}

/** Goes to an application path such as "query?g0.expr=up". */
export function go(path: string, replace = false): void {
  const address = urlOf(path);
  if (address !== location.pathname + location.search) {
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
  }
  const before = place.value.path;
  place.value = current();
  if (before !== place.value.path) scrollTo(0, 0);
}

/** Reads one parameter of the address. */
export function param(name: string): string {
  return new URLSearchParams(place.value.search).get(name) ?? "";
}

/** Writes parameters of the address in place; empty ones go away. */
export function setParams(changes: Record<string, string>): void {
  const all = new URLSearchParams(place.value.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) all.set(name, value);
    else all.delete(name);
  }
  const text = all.toString();
  go(place.value.path + (text ? `?${text}` : ""), true);
}
