// Moving a panel along time.
import type { Panel } from "./state";

/** The panel moved by a part of its range; never past now. */
export function shifted(p: Panel, part: number, now = Date.now()): Panel {
  const end = (p.end ?? now) + part * p.range;
  return { ...p, end: end >= now ? null : Math.round(end) };
}

/** The panel zoomed around its middle; a panel that ends now goes on ending now. */
export function zoomed(p: Panel, factor: number): Panel {
  const range = Math.max(1000, Math.min(50 * 365 * 86_400_000, Math.round(p.range * factor)));
  return { ...p, range, end: p.end === null ? null : Math.round(p.end - p.range / 2 + range / 2) };
}
