// Names, labels, annotations and errors from scraped systems are text on every page: first with answers that are hostile
// through and through, then with hostile series that were really scraped.
import { HOSTILE } from "./exporter.mjs";
import { check, open, settled, test } from "./harness.mjs";
import { MAIN } from "./places.mjs";

/** No name became an element, and no script of one ran. */
async function harmless(page, where) {
  const bad = await page.evaluate(() => ({
    pwned: globalThis.pwned,
    elements: document.querySelectorAll(
      "main img:not(.cm-widgetBuffer), main script, main [onload], main [onerror], dialog img, a[href^='javascript']",
    ).length,
  }));
  check(!bad.pwned && bad.elements === 0, `markup in ${where}`);
}

test("hostile names and labels are text on every page", async (page) => {
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
    if (path === "notifications/live") return route.fulfill({ status: 204 });
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
      "status/config/disk": { yaml: HOSTILE.slice(1).join("\n") },
      features: { [HOSTILE[0]]: { [HOSTILE[1]]: true }, api: { admin: true } },
      "alertmanagers/silences": {
        writable: true,
        alertmanagers: [
          {
            url: HOSTILE[0],
            silences: [
              {
                id: HOSTILE[0],
                matchers: HOSTILE.map((h) => ({ name: h, value: h, isRegex: false, isEqual: true })),
                startsAt: "2026-01-01T00:00:00Z",
                endsAt: "2026-01-01T00:00:00Z",
                createdBy: HOSTILE[0],
                comment: HOSTILE[1],
                status: { state: "active" },
              },
            ],
          },
          { url: HOSTILE[5], error: HOSTILE[0] },
        ],
      },
      query_exemplars: [
        {
          seriesLabels: labels,
          exemplars: [{ labels: { ...labels, url: HOSTILE[5] }, value: "1", timestamp: now - 40 }],
        },
      ],
      explain: {
        plan: {
          kind: HOSTILE[0],
          name: HOSTILE[0],
          text: HOSTILE[0],
          constant: false,
          series: 1,
          samples: 1,
          seconds: 1,
          ownSeconds: 1,
          children: [],
        },
        stats: {},
      },
      parse_query: {
        type: "vectorSelector",
        name: "",
        matchers: [{ name: HOSTILE[1], type: "=", value: HOSTILE[0] }],
        offset: 0,
        timestamp: null,
        startOrEnd: null,
      },
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
    ...MAIN,
    "query?g0.expr=x&g0.tab=table",
    "query?g0.expr=x&g0.tab=graph&g0.show_exemplars=1",
    "query?g0.expr=x&g0.tab=raw",
    "query?g0.expr=x&g0.tab=explain",
    `explore?metric=${encodeURIComponent(HOSTILE[0])}`,
    "cardinality?focus=x",
    "alerts?view=silences",
    "rules?view=groups",
    "rules?view=slow",
    "rules?view=links",
    "status?view=delivery",
    "status?view=flags",
    "status?view=config",
    "status?view=config&part=diff",
    "status?view=features",
  ]) {
    await open(page, path);
    await settled(page);
    const row = page.locator("tr.pick button").first();
    if (!path.startsWith("explore?") && (await row.count())) await row.click();
    await page.waitForTimeout(200);
    await harmless(page, `/${path}`);
  }
  await open(page, "query?g0.expr=x&g0.tab=table");
  await page.waitForSelector("table.data");
  check((await page.textContent("main")).includes(HOSTILE[0]), "the hostile name is not shown as text");
});

test("hostile series that were scraped", async (page) => {
  const name = HOSTILE[0];
  const selector = `{${JSON.stringify(name)}}`;
  for (const tab of ["table", "graph", "raw", "explain"]) {
    await open(page, `query?g0.expr=${encodeURIComponent(selector)}&g0.tab=${tab}&g0.range_input=5m`);
    await settled(page);
    await page.waitForFunction(() => document.querySelector("main").textContent.includes("<img src=x"));
    await harmless(page, tab);
  }
  await open(page, `explore?search=img&metric=${encodeURIComponent(name)}`);
  await page.waitForSelector("dialog[open] .label-rows tr");
  await harmless(page, "the explorer");
  await open(page, `cardinality?focus=${encodeURIComponent(selector)}&by=l1`);
  await page.waitForSelector('[aria-label="Series by value"] tbody tr');
  await harmless(page, "the breakdown");
  await page.click('[aria-label="Series by value"] tbody button');
  await page.waitForFunction(() =>
    /1 series now/.test(document.querySelector(".focus-card .stats")?.textContent ?? ""),
  );
  // Typed into the editor, the name is completed and stays text.
  await open(page, "query");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.type("img");
  await page.waitForTimeout(800);
  await harmless(page, "the editor");
});
