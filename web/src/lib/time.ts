// Durations and points in time: Prometheus's notation in and out, wall clock in the chosen zone.

export type Zone = "local" | "utc";

const UNITS: [string, number][] = [
  ["y", 365 * 86_400_000],
  ["w", 7 * 86_400_000],
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
];

/** Milliseconds of "1h30m", "15s", "90" (seconds); null when it is no duration. */
export function parseDuration(text: string): number | null {
  const trimmed = text.trim().replace(/\s+/g, "");
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) * 1000;
  const match = /^(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?$/.exec(
    trimmed,
  );
  if (!match || trimmed === "") return null;
  return UNITS.reduce((sum, [, size], i) => sum + Number(match[i + 1] ?? 0) * size, 0);
}

/** Prometheus notation: 5400000 becomes "1h30m". Years and weeks only when they divide exactly. */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0s";
  if (ms < 0) return `-${formatDuration(-ms)}`;
  let rest = Math.round(ms);
  let out = "";
  for (const [unit, size] of UNITS) {
    if ((unit === "y" || unit === "w") && rest % size !== 0) continue;
    const n = Math.floor(rest / size);
    if (n > 0) {
      out += `${n}${unit}`;
      rest -= n * size;
    }
  }
  return out;
}

/** Rounded for reading: "3 d 4 h", "12 s", "0.8 ms". */
export function humanDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.abs(seconds);
  const sign = seconds < 0 ? "−" : "";
  if (s === 0) return "0 s";
  if (s < 0.001) return `${sign}${trim(s * 1e6)} µs`;
  if (s < 1) return `${sign}${trim(s * 1000)} ms`;
  if (s < 60) return `${sign}${trim(s)} s`;
  const parts: [number, string][] = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = parts.findIndex(([size]) => s >= size);
  const [size, unit] = parts[first]!;
  const n = Math.floor(s / size);
  const next = parts[first + 1];
  const m = next ? Math.floor((s - n * size) / next[0]) : 0;
  return `${sign}${n} ${unit}${next && m > 0 && n < 20 ? ` ${m} ${next[1]}` : ""}`;
}

function trim(n: number): string {
  return String(Number(n.toPrecision(n >= 100 ? 3 : 2)));
}

const two = (n: number) => String(n).padStart(2, "0");

/** "2026-11-21 11:40:05" in the zone. */
export function formatTime(ms: number, zone: Zone, withMillis = false): string {
  const d = new Date(ms);
  if (Number.isNaN(d.getTime())) return "–";
  const [y, mo, da, h, mi, s] =
    zone === "utc"
      ? [
          d.getUTCFullYear(),
          d.getUTCMonth(),
          d.getUTCDate(),
          d.getUTCHours(),
          d.getUTCMinutes(),
          d.getUTCSeconds(),
        ]
      : [d.getFullYear(), d.getMonth(), d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds()];
  const base = `${y}-${two(mo + 1)}-${two(da)} ${two(h)}:${two(mi)}:${two(s)}`;
  return withMillis ? `${base}.${String(d.getMilliseconds()).padStart(3, "0")}` : base;
}

/** Reads what formatTime writes (seconds, minutes or the whole time may be missing), RFC 3339 and Unix seconds. */
export function parseTime(text: string, zone: Zone): number | null {
  const trimmed = text.trim();
  if (/^\d{9,11}(\.\d+)?$/.test(trimmed)) return Number(trimmed) * 1000;
  const m = /^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?)?)?(Z)?$/.exec(
    trimmed,
  );
  if (!m) {
    if (!/^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:?\d\d)$/.test(trimmed)) return null;
    const t = Date.parse(trimmed);
    return Number.isNaN(t) ? null : t;
  }
  const n = m.slice(1, 7).map((x) => Number(x ?? 0)) as [number, number, number, number, number, number];
  const ms = Number((m[7] ?? "0").padEnd(3, "0"));
  const month = n[1] - 1;
  if (zone === "utc" || m[8]) return Date.UTC(n[0], month, n[2], n[3], n[4], n[5], ms);
  return new Date(n[0], month, n[2], n[3], n[4], n[5], ms).getTime();
}

/** "UTC" or the offset of local time, such as "UTC+02:00". */
export function zoneName(zone: Zone, at = Date.now()): string {
  if (zone === "utc") return "UTC";
  const minutes = -new Date(at).getTimezoneOffset();
  const a = Math.abs(minutes);
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(a / 60))}:${two(a % 60)}`;
}

/** "4 s ago", or "in 3 s". */
export function ago(ms: number, now = Date.now()): string {
  if (!Number.isFinite(ms) || ms <= 0) return "never";
  const s = (now - ms) / 1000;
  if (Math.abs(s) < 1) return "now";
  return s > 0 ? `${humanDuration(s < 60 ? Math.round(s) : s)} ago` : `in ${humanDuration(-s)}`;
}

/** Milliseconds of an RFC 3339 text; 0 for missing and for Go's zero time. */
export function apiTime(text: string | undefined): number {
  if (!text || text.startsWith("0001-")) return 0;
  const t = Date.parse(text);
  return Number.isNaN(t) ? 0 : t;
}
