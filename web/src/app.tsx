// The frame around every page: navigation, top bar, keyboard shortcuts, and pages loaded when first visited.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { urlOf } from "./lib/base";
import { live, railOpen, theme, zone } from "./lib/prefs";
import { go, place } from "./lib/router";
import { zoneName } from "./lib/time";
import { Icon, type IconName } from "./ui/icons";
import { lazy } from "./ui/lazy";
import { Notices } from "./ui/notices";
import type { Entry } from "./ui/Palette";

const Help = lazy(() => import("./ui/help").then((m) => m.Help));
const Palette = lazy(() => import("./ui/Palette").then((m) => m.Palette));

interface Page {
  path: string;
  title: string;
  icon: IconName;
  key: string;
  load: () => Promise<ComponentType>;
}

export const PAGES: Page[] = [
  {
    path: "",
    title: "Home",
    icon: "home",
    key: "h",
    load: () => import("./pages/home").then((m) => m.HomePage),
  },
  {
    path: "query",
    title: "Query",
    icon: "query",
    key: "q",
    load: () => import("./query/page").then((m) => m.QueryPage),
  },
  {
    path: "explore",
    title: "Metrics",
    icon: "explore",
    key: "m",
    load: () => import("./pages/explore").then((m) => m.ExplorePage),
  },
  {
    path: "alerts",
    title: "Alerts",
    icon: "alerts",
    key: "a",
    load: () => import("./pages/alerts").then((m) => m.AlertsPage),
  },
  {
    path: "rules",
    title: "Rules",
    icon: "rules",
    key: "r",
    load: () => import("./pages/rules").then((m) => m.RulesPage),
  },
  {
    path: "targets",
    title: "Targets",
    icon: "targets",
    key: "t",
    load: () => import("./pages/targets").then((m) => m.TargetsPage),
  },
  {
    path: "service-discovery",
    title: "Discovery",
    icon: "discovery",
    key: "d",
    load: () => import("./pages/discovery").then((m) => m.DiscoveryPage),
  },
  {
    path: "cardinality",
    title: "Cardinality",
    icon: "cardinality",
    key: "c",
    load: () => import("./pages/cardinality").then((m) => m.CardinalityPage),
  },
  {
    path: "storage",
    title: "Storage",
    icon: "storage",
    key: "o",
    load: () => import("./pages/storage").then((m) => m.StoragePage),
  },
  {
    path: "status",
    title: "Status",
    icon: "status",
    key: "s",
    load: () => import("./pages/status").then((m) => m.StatusPage),
  },
];

function NotFound() {
  return (
    <div class="empty">
      <h1>No such page</h1>
      <p>
        <a href={urlOf("")}>Go to the home page</a>
      </p>
    </div>
  );
}

export function App() {
  const { path } = place.value;
  const page = PAGES.find((p) => p.path === path);
  const [loaded, setLoaded] = useState<{ path: string; Component: ComponentType }>();
  const [failed, setFailed] = useState("");
  const [help, setHelp] = useState(false);
  const [menu, setMenu] = useState(false);
  const [palette, setPalette] = useState(false);

  useEffect(() => {
    setMenu(false);
    setFailed("");
    document.title = page ? `${page.title} · Meerkat` : "Meerkat";
    if (!page) return;
    let wanted = true;
    page.load().then(
      (Component) => wanted && setLoaded({ path: page.path, Component }),
      () =>
        wanted &&
        setFailed("This page could not be loaded. The server may have been updated: reload the page."),
    );
    return () => {
      wanted = false;
    };
  }, [page]);

  useEffect(() => {
    let chord = 0;
    const onKey = (e: KeyboardEvent) => {
      if ((e.ctrlKey || e.metaKey) && !e.shiftKey && !e.altKey && e.key.toLowerCase() === "k") {
        if (!document.querySelector("dialog[open]")) setPalette(true);
        e.preventDefault();
        return;
      }
      const at = e.target as HTMLElement;
      const typing = at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
      if (typing || e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
      if (e.key === "?") setHelp(true);
      else if (e.key === "/") {
        const box = document.querySelector<HTMLElement>("[data-search], .cm-content, textarea.expr");
        if (!box) return;
        box.focus();
        e.preventDefault();
      } else if (e.key === "g") chord = Date.now();
      else if (Date.now() - chord < 1200) {
        chord = 0;
        const to = PAGES.find((p) => p.key === e.key);
        if (to) {
          go(to.path);
          e.preventDefault();
        }
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  const Current = loaded?.path === page?.path ? loaded?.Component : undefined;
  return (
    <div class={`frame${railOpen.value ? "" : " rail-small"}${menu ? " menu-open" : ""}`}>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to content
      </button>
      <nav class="rail" aria-label="Pages">
        <a class="brand" href={urlOf("")}>
          <Mark />
          <span>Meerkat</span>
        </a>
        <ul>
          {PAGES.map((p) => (
            <li key={p.path}>
              <a href={urlOf(p.path)} {...(p === page ? { "aria-current": "page" } : {})} title={p.title}>
                <Icon name={p.icon} />
                <span>{p.title}</span>
              </a>
            </li>
          ))}
        </ul>
        <button
          type="button"
          class="rail-toggle"
          aria-expanded={railOpen.value}
          aria-label={railOpen.value ? "Narrow the navigation" : "Widen the navigation"}
          onClick={() => {
            railOpen.value = !railOpen.value;
          }}
        >
          <Icon name={railOpen.value ? "left" : "right"} />
        </button>
      </nav>
      <header class="top">
        <button
          type="button"
          class="btn icon-only menu-button"
          aria-label="Pages"
          aria-expanded={menu}
          onClick={() => setMenu(!menu)}
        >
          <Icon name="menu" />
        </button>
        <span class="host">{location.host}</span>
        <span class="grow" />
        <button
          type="button"
          class="btn quiet seek"
          aria-label="Search Ctrl K"
          aria-keyshortcuts="Control+K"
          onClick={() => setPalette(true)}
        >
          <Icon name="explore" size={14} />
          <span class="wide">
            Search <kbd>Ctrl K</kbd>
          </span>
        </button>
        <button
          type="button"
          class="btn quiet"
          aria-pressed={live.value}
          title={live.value ? "Pages refresh by themselves: pause" : "Refreshing is paused: resume"}
          onClick={() => {
            live.value = !live.value;
          }}
        >
          <Icon name={live.value ? "pause" : "play"} size={14} />
          <span class="wide">{live.value ? "Live" : "Paused"}</span>
        </button>
        <button
          type="button"
          class="btn quiet num"
          title="Time zone: switch between local time and UTC"
          onClick={() => {
            zone.value = zone.value === "utc" ? "local" : "utc";
          }}
        >
          <Icon name="clock" size={14} />
          {zoneName(zone.value)}
        </button>
        <button
          type="button"
          class="btn quiet icon-only"
          title={`Colours: ${theme.value}`}
          aria-label={`Colours: ${theme.value}. Change`}
          onClick={() => {
            theme.value = theme.value === "auto" ? "light" : theme.value === "light" ? "dark" : "auto";
          }}
        >
          <Icon name={theme.value === "auto" ? "auto" : theme.value === "light" ? "sun" : "moon"} />
        </button>
        <button
          type="button"
          class="btn quiet icon-only wide"
          aria-label="Keyboard shortcuts"
          onClick={() => setHelp(true)}
        >
          ?
        </button>
      </header>
      <main id="main" tabIndex={-1}>
        <Notices />
        {failed ? (
          <div class="notice bad" role="alert">
            {failed}
          </div>
        ) : !page ? (
          <NotFound />
        ) : Current ? (
          <Current />
        ) : (
          <div class="placeholder" />
        )}
      </main>
      {palette && <Palette entries={entries(() => setHelp(true))} onClose={() => setPalette(false)} />}
      {help && <Help pages={PAGES} onClose={() => setHelp(false)} />}
    </div>
  );
}

const VIEWS: [string, string, IconName][] = [
  ["Status: flags", "status?view=flags", "status"],
  ["Status: configuration", "status?view=config", "status"],
  ["Status: delivery", "status?view=delivery", "status"],
  ["Status: HTTP API", "status?view=api", "status"],
  ["Alerts: firing", "alerts?state=firing", "alerts"],
  ["Alerts: silences", "alerts?view=silences", "alerts"],
  ["Rules: slowest", "rules?view=slow", "rules"],
  ["Rules: failing", "rules?health=err", "rules"],
  ["Targets: down", "targets?health=down", "targets"],
];

/** What the palette offers before anything is typed. */
function entries(showHelp: () => void): Entry[] {
  const action = (icon: IconName, title: string, run: () => void): Entry => ({
    kind: "Action",
    icon,
    title,
    run,
  });
  return [
    ...PAGES.map(
      (p): Entry => ({
        kind: "Page",
        icon: p.icon,
        title: p.title,
        note: `g ${p.key}`,
        run: () => go(p.path),
      }),
    ),
    ...VIEWS.map(([title, to, icon]): Entry => ({ kind: "Page", icon, title, run: () => go(to) })),
    action("clock", zone.value === "utc" ? "Show local time" : "Show UTC", () => {
      zone.value = zone.value === "utc" ? "local" : "utc";
    }),
    ...(["light", "dark", "auto"] as const)
      .filter((t) => t !== theme.value)
      .map((t) =>
        action(t === "light" ? "sun" : t === "dark" ? "moon" : "auto", `Colours: ${t}`, () => {
          theme.value = t;
        }),
      ),
    action(live.value ? "pause" : "play", live.value ? "Pause refreshing" : "Resume refreshing", () => {
      live.value = !live.value;
    }),
    action("info", "Keyboard shortcuts", showHelp),
  ];
}

function Mark() {
  return (
    <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" fill="#1b4d6b" />
      <path
        d="M4 21h6l3-10 5 15 4-11 2 6h4"
        fill="none"
        stroke="#ffc857"
        stroke-width="2.6"
        stroke-linecap="round"
        stroke-linejoin="round"
      />
    </svg>
  );
}
