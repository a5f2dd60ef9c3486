// Colours of series: eight hues told apart with the common kinds of colour blindness (after Okabe and Ito, 2008),
// darkened or lightened until each has 3:1 contrast with its background. Past eight series the dash pattern changes,
// so that colour never is the only difference.

const LIGHT = ["#0068b0", "#c8500a", "#00805e", "#a1407f", "#8a6d00", "#3a8fc4", "#6b4fc0", "#606770"];
const DARK = ["#4aa3f0", "#f08a4b", "#2fc499", "#e58bc4", "#d9b62f", "#86cdf5", "#a994f5", "#a3acb8"];
const DASHES: number[][] = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

export interface Ink {
  colour: string;
  dash: number[];
}

export function ink(index: number, dark: boolean): Ink {
  const colours = dark ? DARK : LIGHT;
  return {
    colour: colours[index % colours.length]!,
    dash: DASHES[Math.floor(index / colours.length) % DASHES.length]!,
  };
}

// Lightness rises (dark theme) or falls (light theme) evenly along each ramp, so that it alone carries the value.
const HEAT_DARK = ["#16242f", "#1b4a63", "#1f7683", "#46a58c", "#a2cf8b", "#fbf0b2"];
const HEAT_LIGHT = ["#e9f2f8", "#bcdbec", "#83bcdd", "#4492c4", "#20629f", "#0e2f5c"];

/** Colour of a heat-map cell, `x` from 0 (empty) to 1 (fullest). */
export function heat(x: number, dark: boolean): string {
  const ramp = dark ? HEAT_DARK : HEAT_LIGHT;
  const at = Math.max(0, Math.min(1, x)) * (ramp.length - 1);
  const i = Math.min(ramp.length - 2, Math.floor(at));
  const channel = (colour: string, k: number) => Number.parseInt(colour.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) => {
    const a = channel(ramp[i]!, k);
    return Math.round(a + (channel(ramp[i + 1]!, k) - a) * (at - i));
  });
  return `rgb(${mixed.join(" ")})`;
}
