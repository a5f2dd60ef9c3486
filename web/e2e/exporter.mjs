// An exporter for the browser tests: a histogram with exemplars, names and labels that are hostile to pages, many
// series, many names, and a page that is no exposition. Listens on the port given as the first argument.
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

export const HOSTILE = [
  '<img src=x onerror="globalThis.pwned=1">',
  "\"'><svg onload=globalThis.pwned=1>",
  "a\nb",
  "\u202egnp.exe",
  "{{x}}",
  "javascript:globalThis.pwned=1",
];

const BOUNDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const PATHS = ["/", "/cart", "/pay"];
const state = new Map(
  PATHS.map((p) => [p, { buckets: new Array(BOUNDS.length + 1).fill(0), sum: 0, last: [] }]),
);
// The same numbers on every machine.
let seed = 1;
function random() {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return seed / 2147483648;
}

const quote = (text) => `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;

function shop() {
  const out = [
    "# TYPE shop_request_seconds histogram",
    "# UNIT shop_request_seconds seconds",
    "# HELP shop_request_seconds How long requests take.",
  ];
  for (const [path, s] of state) {
    const count = 5 + Math.floor(random() * 30);
    for (let i = 0; i < count; i++) {
      const spread = random() + random() + random() - 1.5;
      const v = Math.exp(-2.2 + (path === "/pay" ? 0.8 : 0) + spread * 1.6);
      const b = BOUNDS.findIndex((bound) => v <= bound);
      const at = b < 0 ? BOUNDS.length : b;
      s.sum += v;
      s.buckets[at]++;
      const trace = Array.from({ length: 4 }, () =>
        Math.floor(random() * 2 ** 31)
          .toString(16)
          .padStart(8, "0"),
      );
      s.last[at] = ` # {trace_id="${trace.join("")}"} ${v.toFixed(6)} ${(Date.now() / 1000).toFixed(3)}`;
    }
    let sum = 0;
    s.buckets.forEach((n, i) => {
      sum += n;
      const le = i < BOUNDS.length ? BOUNDS[i] : "+Inf";
      out.push(`shop_request_seconds_bucket{path="${path}",le="${le}"} ${sum}${s.last[i] ?? ""}`);
    });
    out.push(
      `shop_request_seconds_sum{path="${path}"} ${s.sum}`,
      `shop_request_seconds_count{path="${path}"} ${sum}`,
    );
  }
  return out;
}

function hostile() {
  const labels = HOSTILE.map((h, i) => `l${i}=${quote(h)}`).join(",");
  return [
    `# TYPE ${quote(HOSTILE[0])} gauge`,
    `# HELP ${quote(HOSTILE[0])} ${HOSTILE[1]}`,
    `{${quote(HOSTILE[0])},${quote(HOSTILE[1])}=${quote(HOSTILE[1])},${labels}} 1`,
  ];
}

const MANY = 10_000;

const WORDS = [
  "api app auth billing cache cart chat cluster config consumer database deploy device dns edge email event feed file gateway ingest inventory invoice job kafka ledger login mail media node order payment pipeline player pod producer profile proxy queue",
  "batch block buffer bucket call channel client connection cursor disk entry error event fetch file flush frame handler heap index item key lease lock log message node offset packet page partition peer pool process query read record replica request response retry route row scan session shard socket stream task thread token write",
  "accepted active closed created delayed dropped evicted expired failed finished inflight merged opened pending rejected retried sent skipped started stored",
  "age_seconds bytes bytes_total capacity count current_bytes duration_seconds errors_total limit max_bytes min_seconds ops_total ratio rate_limit seconds seconds_total size_bytes total usage_ratio usage_seconds wait_seconds watermark window_seconds workers zone_total",
].map((words) => words.split(" "));

/** The name of a number; a million numbers have names of their own. */
export function nameOf(number) {
  let rest = number;
  return WORDS.map((words) => {
    const word = words[rest % words.length];
    rest = Math.floor(rest / words.length);
    return word;
  }).join("_");
}

const server = createServer((req, res) => {
  const open = (lines) => {
    res.writeHead(200, { "Content-Type": "application/openmetrics-text; version=1.0.0; charset=utf-8" });
    res.end(`${lines.join("\n")}\n# EOF\n`);
  };
  if (req.url === "/garbled") {
    res.writeHead(200, { "Content-Type": "text/plain; version=0.0.4" });
    return res.end('# TYPE ok gauge\nok 1\nalso_ok{a="b"} 2\nthis is {not a metric\nmore 3\n');
  }
  const names = /^\/names\/(\d+)\/(\d+)$/.exec(req.url);
  if (names) {
    const [from, count] = names.slice(1).map(Number);
    res.writeHead(200, { "Content-Type": "text/plain; version=0.0.4" });
    return res.end(Array.from({ length: count }, (_, i) => `${nameOf(from + i)} ${i}\n`).join(""));
  }
  if (req.url === "/many")
    return open([
      "# TYPE many_series gauge",
      ...Array.from(
        { length: MANY },
        (_, i) => `many_series{shard="s${i % 100}",item="item-${i}"} ${(i * 7919) % 1000}`,
      ),
    ]);
  return open([...shop(), "# TYPE doomed gauge", 'doomed{why="to be deleted"} 1', ...hostile()]);
});
// Others import the hostile names alone.
if (process.argv[1] === fileURLToPath(import.meta.url)) server.listen(Number(process.argv[2]), "127.0.0.1");
