// Browser tests. MEERKAT_URL names a running server; with MEERKAT_PROXY=1 the bundle of web/dist is served from here
// (under a route prefix, with the production headers) and only the API comes from that server.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const FLAGS =
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const PAGES = [
  "",
  "query",
  "explore",
  "alerts",
  "rules",
  "targets",
  "service-discovery",
  "cardinality",
  "storage",
  "status",
  "status?view=flags",
  "status?view=config",
];
const SIZES = [
  [390, 844],
  [1280, 800],
  [1920, 1080],
];
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const results = fileURLToPath(new URL("../test-results/", import.meta.url));
mkdirSync(results, { recursive: true });

const backend = process.env.MEERKAT_URL;
if (!backend) {
  console.error("MEERKAT_URL must name a running server, such as http://127.0.0.1:9090");
  process.exit(2);
}
const own = process.env.MEERKAT_PROXY ? await serve(backend, "/some/prefix/") : null;
const base = own?.address ?? `${backend.replace(/\/$/, "")}/`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: FLAGS.split(" "),
});

let failures = 0;
// An argument picks the tests whose name contains it; with a leading "!" those whose name does not.
const only = process.argv[2] ?? "";
const picked = (name) =>
  only.split("|").some((o) => (o.startsWith("!") ? !name.includes(o.slice(1)) : name.includes(o)));
async function test(name, run, options = {}) {
  if (!picked(name)) return;
  const { width = 1280, height = 800, theme = "light", allow = /$^/ } = options;
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: theme,
    timezoneId: "Europe/Berlin",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const trouble = [];
  page.on(
    "console",
    (m) =>
      m.type() === "error" &&
      !allow.test(m.text()) &&
      trouble.push(`console: ${m.text()} ${m.location().url}`),
  );
  page.on("pageerror", (e) => trouble.push(`page error: ${e.message}`));
  try {
    await run(page);
  } catch (error) {
    trouble.push(error.message);
    await page.screenshot({ path: `${results}failed-${name.replace(/\W+/g, "-")}.png` }).catch(() => {});
  }
  await page.unrouteAll({ behavior: "ignoreErrors" }).catch(() => {});
  await context.close();
  if (trouble.length) failures++;
  console.log(`${trouble.length ? "FAIL" : "ok  "} ${name}${trouble.map((t) => `\n       ${t}`).join("")}`);
}

function check(condition, message) {
  if (!condition) throw new Error(message);
}

const open = (page, path) => page.goto(base + path, { waitUntil: "load" });
const settled = async (page) => {
  await page.waitForSelector("main h1, main .panel", { state: "attached" });
  await page.waitForFunction(() => !document.querySelector("main .placeholder, .busy-line.on"), null, {
    timeout: 15_000,
  });
};

async function accessible(page) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(() =>
    globalThis.axe
      .run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
      .then((r) =>
        r.violations.map(
          (v) =>
            `${v.id}: ${v.nodes
              .slice(0, 3)
              .map((n) => `${n.html.slice(0, 160)} (${n.failureSummary?.split("\n")[1] ?? ""})`)
              .join(" | ")}`,
        ),
      ),
  );
  check(found.length === 0, `axe: ${found.join("\n             ")}`);
}

// A 404 of an optional call is answered in words on the page; browsers log it nevertheless.
const OPTIONAL = /status of 404/;

for (const path of PAGES)
  for (const [width, height] of SIZES)
    for (const theme of ["light", "dark"])
      await test(
        `page /${path} at ${width} ${theme}`,
        async (page) => {
          const expr = path === "query" ? "?g0.expr=sum+by+(job)+(up)&g0.tab=graph&g0.range_input=15m" : "";
          await open(page, path + expr);
          await settled(page);
          if (path === "query") await page.waitForSelector(".cm-editor");
          await page.waitForTimeout(path === "" ? 1500 : 250);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          check(wide <= 0, `the page is ${wide} px wider than the screen`);
          await page.screenshot({
            path: `${results}${path.replace(/\W+/g, "-") || "home"}-${width}-${theme}.png`,
          });
          await accessible(page);
        },
        { width, height, theme, allow: OPTIONAL },
      );

await test("first chart from a cold start", async (page) => {
  const began = Date.now();
  await open(page, "query?g0.expr=up&g0.tab=graph&g0.range_input=5m");
  await page.waitForSelector(".u-wrap canvas");
  console.log(`       time to the first chart: ${Date.now() - began} ms`);
  const sizes = await page.evaluate(() =>
    performance
      .getEntriesByType("resource")
      .filter((e) => /assets\//.test(e.name))
      .map((e) => [e.name.split("/").pop(), e.encodedBodySize]),
  );
  const editor = (name) => /^codemirror/.test(name);
  const first = sizes.filter(([n]) => !editor(n)).reduce((s, [, b]) => s + b, 0);
  console.log(
    `       loaded without the editor: ${first} bytes, the editor: ${sizes.filter(([n]) => editor(n)).reduce((s, [, b]) => s + b, 0)}`,
  );
  check(first <= 60 * 1024, `the first load is ${first} bytes`);
});

await test("type, run, table, sort, filter, back", async (page) => {
  await open(page, "query");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.type("up");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".u-wrap canvas");
  check(new URL(page.url()).searchParams.get("g0.expr") === "up", "the address does not carry the query");
  await page.click("text=Table");
  await page.waitForSelector("table.data tbody tr");
  const rows = await page.locator("table.data tbody tr").count();
  await page.click("table.data thead button >> nth=0");
  check(
    (await page.getAttribute("table.data th >> nth=0", "aria-sort")) !== "none",
    "the header does not sort",
  );
  await page.click("table.data .cell >> nth=0");
  check((await page.locator("table.data tbody tr").count()) <= rows, "the click does not filter");
  await page.goBack();
  await page.waitForSelector(".u-wrap canvas");
});

await test("zoom by dragging, keys move the cursor, legend isolates", async (page) => {
  await open(page, "query?g0.expr=up&g0.tab=graph&g0.range_input=15m");
  await page.waitForSelector(".u-over");
  const box = await page.locator(".u-over").boundingBox();
  // Near the right edge: a young server has samples there.
  await page.mouse.move(box.x + box.width - 60, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 2, box.y + 90, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => location.search.includes("end_input"));
  await page.waitForTimeout(300);
  await page.locator(".chart-host").focus();
  await page.keyboard.press("ArrowLeft");
  await page.waitForSelector(".tip");
  await page.click(".legend-name >> nth=0");
  await page.waitForSelector("tr.dim");
});

await test("explain and the doctor", async (page) => {
  await open(page, "query?g0.expr=sum(rate(up[5m]))&g0.tab=explain");
  await page.waitForSelector(".node-facts >> nth=2");
  await open(page, "query?g0.expr=upp&g0.tab=graph");
  await page.waitForSelector(".doctor li .btn");
  await page.click('.doctor li bdi:text-is("up")');
  await page.waitForSelector(".u-wrap canvas");
});

await test(
  "errors in words with the place marked",
  async (page) => {
    await open(page, "query?g0.expr=sum(up&g0.tab=table");
    await page.waitForSelector(".notice.bad .pointer");
    await page.waitForSelector(".cm-server-error");
    await accessible(page);
  },
  { allow: /status of 400/ },
);

await test("a newer query cancels the older", async (page) => {
  let held;
  const cancelled = [];
  page.on("requestfailed", (r) => cancelled.push(r.url()));
  await page.route("**/api/v1/query_range*", async (route) => {
    if (!held) {
      held = route; // answered by nobody until the test is over
      return;
    }
    await route.continue();
  });
  await open(page, "query?g0.expr=up&g0.tab=graph");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.type(" * 2");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".u-wrap canvas");
  check(cancelled.length === 1, "the older request goes on");
  await held.abort().catch(() => {});
});

const HOSTILE = [
  '<img src=x onerror="globalThis.pwned=1">',
  "\"'><svg onload=globalThis.pwned=1>",
  "a\nb",
  "\u202egnp.exe",
  "{{x}}",
  "javascript:globalThis.pwned=1",
];

await test("hostile names and labels are text on every page", async (page) => {
  const labels = Object.fromEntries([
    ["__name__", HOSTILE[0]],
    ...HOSTILE.map((h, i) => [`l${i}`, h]),
    [HOSTILE[1], HOSTILE[1]],
  ]);
  const now = Date.now() / 1000;
  const answer = (data) => ({
    json: { status: "success", data, warnings: [HOSTILE[0]], infos: [HOSTILE[1]] },
  });
  await page.route("**/api/v1/**", (route) => {
    const path = new URL(route.request().url()).pathname.replace(/^.*api\/v1\//, "");
    const target = {
      discoveredLabels: labels,
      labels,
      scrapePool: HOSTILE[0],
      scrapeUrl: HOSTILE[5],
      globalUrl: HOSTILE[5],
      lastError: HOSTILE[0],
      lastScrape: "2026-01-01T00:00:00Z",
      lastScrapeDuration: 1,
      health: "down",
      scrapeInterval: "1s",
      scrapeTimeout: "1s",
    };
    const rule = {
      type: "alerting",
      name: HOSTILE[0],
      query: HOSTILE[0],
      labels,
      annotations: { a: HOSTILE[0], b: HOSTILE[5] },
      alerts: [
        {
          labels,
          annotations: { x: HOSTILE[5] },
          state: "firing",
          activeAt: "2026-01-01T00:00:00Z",
          value: HOSTILE[0],
        },
      ],
      health: "err",
      lastError: HOSTILE[0],
      state: "firing",
      evaluationTime: 1,
      lastEvaluation: "2026-01-01T00:00:00Z",
      duration: 1,
    };
    const top = HOSTILE.map((name, i) => ({ name, value: i + 1 }));
    const replies = {
      query: {
        resultType: "vector",
        result: [
          { metric: labels, value: [now, "1"] },
          { metric: { ...labels, l9: "x" }, value: [now, "2"] },
        ],
      },
      query_range: {
        resultType: "matrix",
        result: [
          {
            metric: labels,
            values: [
              [now - 60, "1"],
              [now - 30, "2"],
            ],
          },
          { metric: { ...labels, l9: "x" }, values: [[now - 60, "3"]] },
        ],
      },
      targets: {
        activeTargets: [target],
        droppedTargets: [{ discoveredLabels: labels, scrapePool: HOSTILE[0] }],
        droppedTargetCounts: { x: 1 },
      },
      rules: {
        groups: [
          {
            name: HOSTILE[0],
            file: HOSTILE[0],
            interval: 1,
            evaluationTime: 1,
            lastEvaluation: "2026-01-01T00:00:00Z",
            rules: [rule],
          },
        ],
      },
      alerts: { alerts: rule.alerts },
      "status/tsdb": {
        headStats: { numSeries: 1, numLabelPairs: 1, chunkCount: 1, minTime: 1, maxTime: 2 },
        seriesCountByMetricName: top,
        labelValueCountByLabelName: top,
        memoryInBytesByLabelName: top,
        seriesCountByLabelValuePair: top,
      },
      "status/tsdb/blocks": { blocks: [{ ulid: HOSTILE[0], minTime: 1, maxTime: 2 }] },
      "status/flags": Object.fromEntries(HOSTILE.map((h) => [h, h])),
      "status/config": { yaml: HOSTILE.join("\n") },
      "status/runtimeinfo": {
        CWD: HOSTILE[0],
        hostname: HOSTILE[0],
        reloadConfigSuccess: true,
        storageRetention: HOSTILE[0],
      },
      "status/buildinfo": { version: HOSTILE[0] },
      notifications: [{ text: HOSTILE[0], date: "x", active: true }],
      metadata: { [HOSTILE[0]]: [{ type: "counter", help: HOSTILE[0], unit: HOSTILE[0] }] },
      series: [labels],
      alertmanagers: { activeAlertmanagers: [{ url: HOSTILE[0] }], droppedAlertmanagers: [] },
      "targets/relabel_steps": { steps: [{ rule: { regex: HOSTILE[0] }, output: labels, keep: true }] },
    };
    return route.fulfill(answer(replies[path] ?? HOSTILE));
  });
  for (const path of [
    ...PAGES,
    "query?g0.expr=x&g0.tab=table",
    "query?g0.expr=x&g0.tab=graph",
    `explore?metric=${encodeURIComponent(HOSTILE[0])}`,
    "status?view=alertmanagers",
    "rules?view=groups",
  ]) {
    await open(page, path);
    await settled(page);
    const row = page.locator("tr.pick button").first();
    if (!path.startsWith("explore?") && (await row.count())) await row.click();
    await page.waitForTimeout(200);
    const bad = await page.evaluate(() => ({
      pwned: globalThis.pwned,
      elements: document.querySelectorAll(
        "main img:not(.cm-widgetBuffer), main script, main [onload], main [onerror], dialog img, a[href^='javascript']",
      ).length,
    }));
    check(!bad.pwned && bad.elements === 0, `markup on /${path}`);
  }
  await open(page, "query?g0.expr=x&g0.tab=table");
  await page.waitForSelector("table.data");
  check((await page.textContent("main")).includes(HOSTILE[0]), "the hostile name is not shown as text");
});

await test("thousands of targets stay light, and a refresh keeps scroll and selection", async (page) => {
  let calls = 0;
  await page.route("**/api/v1/targets*", (route) => {
    calls++;
    const activeTargets = Array.from({ length: 5000 }, (_, i) => ({
      discoveredLabels: {},
      labels: { instance: `h${i}:1`, job: `j${i % 50}` },
      scrapePool: `pool ${i % 50}`,
      scrapeUrl: `http://h${i}:1/metrics`,
      globalUrl: `http://h${i}:1/metrics`,
      lastError: "",
      lastScrape: new Date().toISOString(),
      lastScrapeDuration: 0.01,
      health: "up",
      scrapeInterval: "15s",
      scrapeTimeout: "10s",
    }));
    return route.fulfill({ json: { status: "success", data: { activeTargets, droppedTargets: [] } } });
  });
  await open(page, "targets");
  await settled(page);
  const box = page.locator(".scroller");
  await box.evaluate((el) => el.scrollTo(0, 60_000));
  await page.waitForTimeout(200);
  const seen = await page.textContent("table.data tbody tr:nth-child(12)");
  const before = calls;
  await page.waitForTimeout(6000);
  check(calls > before, "the page does not refresh");
  check((await box.evaluate((el) => el.scrollTop)) === 60_000, "the scroll position is lost");
  check(
    (await page.textContent("table.data tbody tr:nth-child(12)")).slice(0, 20) === seen.slice(0, 20),
    "other rows than before",
  );
  check((await page.locator("table.data tr").count()) < 120, "too many rows in the document");
});

await test("keyboard alone: skip link, pages, help, drawer and back", async (page) => {
  await open(page, "targets");
  await settled(page);
  await page.keyboard.press("Tab");
  check(
    (await page.evaluate(() => document.activeElement.textContent)) === "Skip to content",
    "no skip link",
  );
  await page.keyboard.press("?");
  await page.waitForSelector("dialog[open]");
  await accessible(page);
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog[open]", { state: "detached" });
  const first = page.locator("tr.pick button").first();
  if (await first.count()) {
    await first.focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    await accessible(page);
    await page.keyboard.press("Escape");
    await page.waitForSelector("dialog[open]", { state: "detached" });
  }
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.waitForSelector("h1:text('Rules')");
  await page.keyboard.press("/");
  check((await page.evaluate(() => document.activeElement.type)) === "search", "/ does not go to the filter");
});

await test("the time zone switches everywhere", async (page) => {
  await open(page, "status");
  await settled(page);
  const local = await page.textContent("main");
  await page.click("header >> text=/UTC[+−]/");
  check((await page.textContent("main")) !== local, "times did not change");
  check((await page.textContent("header")).includes("UTC"), "no zone shown");
});

await browser.close();
own?.stop();
console.log(failures ? `${failures} failed` : "all passed");
process.exit(failures ? 1 : 0);
