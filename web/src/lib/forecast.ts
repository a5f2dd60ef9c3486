// How much disk the samples will need, from what they need now.
import { parseDuration } from "./time";
import type { BlockMeta } from "./types";

export function sizeOf(b: BlockMeta): number {
  return b.stats?.numBytes ?? b.stats?.sizeBytes ?? 0;
}

/** Bytes of a sample in blocks; null before there is a block. */
export function bytesPerSample(blocks: BlockMeta[]): number | null {
  const sized = blocks.filter((b) => sizeOf(b) > 0 && (b.stats?.numSamples ?? 0) > 0);
  const samples = sized.reduce((n, b) => n + (b.stats?.numSamples ?? 0), 0);
  return samples ? sized.reduce((n, b) => n + sizeOf(b), 0) / samples : null;
}

export interface Retention {
  /** Milliseconds; null without a limit of time. */
  time: number | null;
  bytes: number | null;
  text: string;
}

const UNITS: Record<string, number> = {
  B: 1,
  KB: 2 ** 10,
  MB: 2 ** 20,
  GB: 2 ** 30,
  TB: 2 ** 40,
  PB: 2 ** 50,
};

/** Reads "15d", "15d or 1GiB", "1GiB". */
export function readRetention(text: string): Retention {
  const out: Retention = { time: null, bytes: null, text };
  for (const part of text.split(" or ")) {
    const size = /^([\d.]+)([KMGTP]?)i?B$/.exec(part.trim());
    if (size) out.bytes = Number(size[1]) * (UNITS[`${size[2]}B`] ?? 1);
    else out.time = parseDuration(part) ?? out.time;
  }
  return out;
}

export interface Forecast {
  /** Bytes that a day adds. */
  perDay: number;
  /** Bytes once the retention is reached; null when nothing limits the growth. */
  full: number | null;
  /** Whether the limit of size is what ends the growth. */
  bySize: boolean;
}

/** `rate` in samples per second. */
export function forecast(blocks: BlockMeta[], rate: number, retention: Retention): Forecast | null {
  const each = bytesPerSample(blocks);
  if (each === null || !(rate > 0)) return null;
  const perDay = rate * 86_400 * each;
  const byTime = retention.time === null ? null : (perDay * retention.time) / 86_400_000;
  const bySize = retention.bytes !== null && (byTime === null || retention.bytes < byTime);
  return { perDay, full: bySize ? retention.bytes : byTime, bySize };
}
