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

/** Colour of a heat-map cell, `x` from 0 (empty) to 1 (fullest): one hue whose lightness alone carries the value. */
export function heat(x: number, dark: boolean): string {
  const t = Math.max(0, Math.min(1, x));
  return dark
    ? `hsl(${210 - 165 * t} ${60 + 30 * t}% ${16 + 54 * t}%)`
    : `hsl(${205 + 30 * t} ${55 + 20 * t}% ${92 - 66 * t}%)`;
}
