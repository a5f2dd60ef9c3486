// Errors of scrapes taken apart: what went wrong, in which line, at which place, and what usually helps.

export interface ScrapeError {
  reason: string;
  /** The offending line of the answer, as far as the error holds it. */
  line?: string;
  /** Which line it is, counted from one. */
  number?: number;
  /** Where in the line. */
  from?: number;
  to?: number;
  hint: string;
}

const HINTS: [RegExp, string][] = [
  [/connection refused/i, "Nothing listens at this address: is the exporter running, is the port right?"],
  [
    /dns|lookup|name or service not known|no such host/i,
    "The name cannot be resolved from this server: check the spelling and its DNS.",
  ],
  [
    /deadline exceeded|timed? ?out/i,
    "No complete answer within the scrape timeout: raise scrape_timeout or make the target answer faster.",
  ],
  [
    /no route to host|network is unreachable/i,
    "There is no way to this address from here: check routes and firewalls.",
  ],
  [/status (code )?40[13]/i, "The target wants credentials: check basic_auth, authorization or tls_config."],
  [/status (code )?404/i, "There is nothing at this path: check metrics_path."],
  [/status (code )?5\d\d/i, "The target itself reports an error: look into its log."],
  [
    /certificate|tls|handshake/i,
    "The secured connection failed: check tls_config, the scheme and the certificate.",
  ],
  [
    /content-type/i,
    "The answer does not say which format it has: set fallback_scrape_protocol, or check the path.",
  ],
  [
    /body size|sample.?limit|label.?limit|limit exceeded|bucket limit/i,
    "A limit of the scrape configuration was exceeded; nothing of this scrape was stored.",
  ],
];

/** A text as Rust and Go quote it, without quotes and escapes. */
export function unquote(text: string): string {
  return text
    .replace(/^"|"$/g, "")
    .replace(/\\(u\{([0-9a-f]+)\}|x([0-9a-f]{2})|u([0-9a-f]{4})|.)/g, (_all, one: string, a, b, c) => {
      const hex = (a ?? b ?? c) as string | undefined;
      if (hex) return String.fromCodePoint(Math.min(0x10ffff, Number.parseInt(hex, 16)));
      return one === "n" ? "\n" : one === "t" ? "\t" : one === "r" ? "\r" : one;
    });
}

const QUOTED = '"(?:[^"\\\\]|\\\\.)*"';
// As Meerkat and as Prometheus put it.
const PLACE = new RegExp(`^(.*?) (while parsing|in)(?: line (\\d+))?: (${QUOTED})`, "s");

export function readScrapeError(text: string): ScrapeError {
  const hint = HINTS.find(([pattern]) => pattern.test(text))?.[1] ?? "";
  const found = PLACE.exec(text);
  if (!found || (found[2] === "in" && !found[3])) return { reason: text, hint };
  const reason = found[1]!;
  const line = unquote(found[4]!).replace(/\n$/, "");
  const token =
    new RegExp(`got (${QUOTED})`).exec(reason)?.[1] ?? new RegExp(`parsing (${QUOTED})`).exec(reason)?.[1];
  const odd = token ? unquote(token).replace(/\n$/, "") : "";
  const from = odd ? line.lastIndexOf(odd) : -1;
  const out: ScrapeError = {
    reason,
    line,
    hint: hint || "The target writes a line that is no valid sample. Nothing of this scrape was stored.",
  };
  if (found[3]) out.number = Number(found[3]);
  if (from >= 0) {
    out.from = from;
    const word = /^\S+/.exec(odd)?.[0].length ?? odd.length;
    out.to = from + Math.max(1, word);
  }
  return out;
}
