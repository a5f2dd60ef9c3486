// The few icons of the interface, drawn on a 16 by 16 grid with the colour of the text around them.
const PATHS = {
  home: "M2.5 7.5 8 3l5.5 4.5V13h-4V9.5h-3V13h-4z",
  query: "M2.5 12.5 6 8l2.5 2.5 5-7M2.5 2.5v11h11",
  explore: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3l3.2 3.2",
  alerts: "M8 2.5c-2.3 0-3.5 1.7-3.5 4v2.6L3 11.5h10l-1.5-2.4V6.500c0-2.3-1.2-4-3.5-4zM6.7 13.500h2.6",
  rules: "M5.5 4h8M5.5 8h8M5.5 12h8M2.5 4h.01M2.5 8h.01M2.5 12h.01",
  targets:
    "M8 2.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 5.500a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM8 8h.01",
  discovery:
    "M4 4.500h8M4 4.5 8 12M12 4.5 8 12M4 3a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zM12 3a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zM8 10.500a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z",
  cardinality: "M2.5 13.500v-4h3v4zM6.5 13.500v-7h3v7zM10.5 13.500v-11h3v11z",
  storage:
    "M3 4.500C3 3.4 5.2 2.5 8 2.500s5 .9 5 2-2.2 2-5 2-5-.9-5-2zM3 4.500v7c0 1.1 2.2 2 5 2s5-.9 5-2v-7M3 8c0 1.1 2.2 2 5 2s5-.9 5-2",
  status: "M8 2.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 7.500v3.500M8 5.200h.01",
  sun: "M8 5.500a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM8 1.500v1.500M8 13v1.500M1.5 8H3M13 8h1.500M3.4 3.400l1 1M11.6 11.600l1 1M3.4 12.600l1-1M11.6 4.400l1-1",
  moon: "M13 9.500A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.500z",
  auto: "M8 2.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 2.500v11M8 5h4.500M8 8h5.500M8 11h4.5",
  close: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  left: "M10 3 5 8l5 5",
  right: "M6 3l5 5-5 5",
  down: "M3.5 6 8 10.5 12.5 6",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  copy: "M5.5 5.500v-3h8v8h-3M2.5 5.500h8v8h-8z",
  play: "M5 3.500v9l7.5-4.500z",
  pause: "M5.5 3.500v9M10.5 3.500v9",
  check: "M3 8.5 6.5 12 13 4.5",
  cross: "M4.5 4.500l7 7M11.5 4.500l-7 7",
  warn: "M8 2.5 14 13.500H2zM8 6.500v3.500M8 11.700h.01",
  info: "M8 2.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 7.500v3.500M8 5.200h.01",
  clock: "M8 2.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 5v3.200l2 1.3",
  menu: "M2.5 4h11M2.5 8h11M2.5 12h11",
  external: "M9 2.500h4.500V7M13.5 2.5 7.5 8.500M11 9.500v4H2.500V5h4",
  bell: "M8 2.500c-2.3 0-3.5 1.7-3.5 4v2.600L3 11.500h10l-1.5-2.400V6.500c0-2.3-1.2-4-3.5-4zM6.7 13.500h2.6",
  history: "M3 8a5 5 0 1 1 1.5 3.500M3 12v-3h3M8 5.500V8l2 1.2",
  rail: "M2.5 3h11v10h-11zM6 3v10",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
