// What all charts share: colours of the theme, labels of the time axis, the width they have.
import { useEffect, useState } from "preact/hooks";
import type uPlot from "uplot";
import { formatTime, type Zone } from "../lib/time";

/** A custom property of the theme in force. */
export function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Tick labels: the clock, with the date under the first tick of each new day. */
export function timeTicks(zone: Zone) {
  return (_u: uPlot, ticks: number[], _axis: number, _space: number, step: number): string[] => {
    let day = "";
    return ticks.map((t) => {
      const [date, clock] = formatTime(t * 1000, zone, step < 1).split(" ") as [string, string];
      const short = date.slice(5);
      const text =
        step >= 86_400 ? short : step < 1 ? clock.slice(0, 10) : step < 60 ? clock : clock.slice(0, 5);
      const out = step < 86_400 && day && day !== short ? `${text}\n${short}` : text;
      day = short;
      return out;
    });
  };
}

/** Height of the time axis: a second line of text, the date, needs more. */
export function timeAxisSize(_u: uPlot, labels: string[] | null): number {
  return labels?.some((l) => l?.includes("\n")) ? 42 : 30;
}

/** Width of an element in whole pixels, followed as the window changes. */
export function useWidth(ref: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const el = ref.current;
    if (!el) return;
    setWidth(Math.floor(el.clientWidth));
    if (typeof ResizeObserver !== "function") return;
    const o = new ResizeObserver(() => setWidth(Math.floor(el.clientWidth)));
    o.observe(el);
    return () => o.disconnect();
  }, []);
  return width;
}

/** Lets a plot be moved along time by dragging with Shift held down; `done` hears by how many seconds. */
export function pannable(u: uPlot, done: (seconds: number) => void): () => void {
  const over = u.over;
  const onDown = (down: MouseEvent) => {
    if (!down.shiftKey || down.button !== 0) return;
    down.preventDefault();
    const { min, max } = u.scales.x as { min: number; max: number };
    const perPixel = (max - min) / over.clientWidth;
    let moved = 0;
    const onMove = (e: MouseEvent) => {
      moved = (e.clientX - down.clientX) * perPixel;
      u.setScale("x", { min: min - moved, max: max - moved });
    };
    const onUp = () => {
      removeEventListener("mousemove", onMove);
      removeEventListener("mouseup", onUp);
      if (Math.abs(moved) > perPixel * 3) done(moved);
      else u.setScale("x", { min, max });
    };
    addEventListener("mousemove", onMove);
    addEventListener("mouseup", onUp);
  };
  over.addEventListener("mousedown", onDown);
  return () => over.removeEventListener("mousedown", onDown);
}
