// The query page: panels, their address, and the keys that move all of them in time.
import { useEffect, useState } from "preact/hooks";
import { go, place } from "../lib/router";
import { Icon } from "../ui/icons";
import { shifted, zoomed } from "./move";
import { PanelView } from "./PanelView";
import "../styles/query.css";
import { DEFAULTS, decodePanels, encodePanels, type Panel } from "./state";

interface Slot {
  id: number;
  panel: Panel;
}
let nextId = 1;
const slot = (panel: Panel): Slot => ({ id: nextId++, panel });

const REFRESH: [string, number][] = [
  ["Refresh: off", 0],
  ["5 s", 5],
  ["15 s", 15],
  ["30 s", 30],
  ["1 min", 60],
  ["5 min", 300],
];

export function QueryPage() {
  const [slots, setSlots] = useState(() => decodePanels(place.value.search).map(slot));
  const search = place.value.search;
  const refresh = Number(new URLSearchParams(search).get("refresh") ?? 0) || 0;

  const address = (panels: Panel[], seconds: number) =>
    `query?${encodePanels(panels)}${seconds ? `&refresh=${seconds}` : ""}`;

  // Back and forward, or a link on the page, bring an address that the panels do not show yet.
  useEffect(() => {
    const wanted = decodePanels(search);
    if (encodePanels(wanted) === encodePanels(slots.map((s) => s.panel))) return;
    setSlots((old) =>
      wanted.map((panel, i) => {
        const before = old[i];
        return before ? { id: before.id, panel } : slot(panel);
      }),
    );
  }, [search]);

  function update(next: Slot[], replace = false) {
    setSlots(next);
    go(
      address(
        next.map((s) => s.panel),
        refresh,
      ),
      replace,
    );
  }
  const change = (id: number, part: Partial<Panel>) =>
    update(slots.map((s) => (s.id === id ? { id, panel: { ...s.panel, ...part } } : s)));

  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      const at = e.target as HTMLElement;
      if (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const move = e.key === "[" ? -0.5 : e.key === "]" ? 0.5 : 0;
      const zoom = e.key === "-" ? 2 : e.key === "=" || e.key === "+" ? 0.5 : 0;
      if (!move && !zoom) return;
      update(slots.map((s) => ({ id: s.id, panel: move ? shifted(s.panel, move) : zoomed(s.panel, zoom) })));
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });

  return (
    <div class="query-page">
      <h1 class="sr">Query</h1>
      {slots.map((s, i) => (
        <PanelView
          key={s.id}
          index={i}
          panel={s.panel}
          refresh={refresh}
          only={slots.length === 1}
          onChange={(part) => change(s.id, part)}
          onRemove={() => update(slots.filter((x) => x.id !== s.id))}
          onDuplicate={() => update([...slots.slice(0, i + 1), slot({ ...s.panel }), ...slots.slice(i + 1)])}
        />
      ))}
      <div class="row">
        <button type="button" class="btn" onClick={() => update([...slots, slot({ ...DEFAULTS })])}>
          <Icon name="plus" size={14} /> Add panel
        </button>
        <label class="select">
          <span class="sr">Refresh</span>
          <select
            value={String(refresh)}
            onChange={(e) =>
              go(
                address(
                  slots.map((s) => s.panel),
                  Number(e.currentTarget.value),
                ),
                true,
              )
            }
          >
            {REFRESH.map(([text, seconds]) => (
              <option key={seconds} value={String(seconds)}>
                {text}
              </option>
            ))}
          </select>
        </label>
      </div>
    </div>
  );
}
