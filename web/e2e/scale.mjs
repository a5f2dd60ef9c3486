// Many series, many targets: pages stay light and scroll smoothly. A frame at 60 Hz has 16.7 ms. What the page computes
// for one is checked; how long frames took by the clock is told, for a busy machine makes them longer.
import { api, check, frames, open, settled, test, until } from "./harness.mjs";

const FRAME_MS = 16.7;
const spoken = (f) =>
  `${f.work.toFixed(1)} ms computed a frame; by the clock median ${f.median.toFixed(1)}, 95 % ${f.p95.toFixed(1)} ms`;
const smooth = (f, what) =>
  check(f.work < FRAME_MS, `${what}: ${f.work.toFixed(1)} ms are computed for a frame`);

// The target that has them is scraped seldom: a server that has just begun may not have them yet.
const manySeries = () =>
  until(
    "the first scrape of many series",
    async () => (await api("query", { query: "up{job='many'} == 1" })).result.length,
  );

test(
  "10,000 series: table, sorting and scrolling",
  async (page, note) => {
    await manySeries();
    const began = Date.now();
    await open(page, "query?g0.expr=many_series&g0.tab=table");
    await page.waitForSelector('.stats:has-text("10000 series")');
    note(`10,000 series shown after ${Date.now() - began} ms`);
    const plain = await frames(page, '[aria-label="Result"]');
    note(`10,000 rows: ${spoken(plain)}`);
    await page.locator('[aria-label="Result"]').evaluate((el) => el.scrollTo(0, 0));
    await page.click('[aria-label="Result"] thead button:has-text("item")');
    const sorted = await frames(page, '[aria-label="Result"]');
    note(`10,000 rows, sorted: ${spoken(sorted)}`);
    smooth(plain, "scrolling");
    smooth(sorted, "scrolling sorted rows");
    check((await page.locator('[aria-label="Result"] tr').count()) < 200, "too many rows in the document");
    const click = Date.now();
    await page.locator('[aria-label="Result"]').evaluate((el) => el.scrollTo(0, 0));
    await page.click('button.cell:has(bdi:text-is("s7"))');
    await page.waitForSelector('.stats:has-text("100 of 10000")');
    note(`filtering by a click: ${Date.now() - click} ms`);
  },
  { alone: true },
);

test(
  "10,000 series: graph and legend",
  async (page, note) => {
    await manySeries();
    const began = Date.now();
    await open(page, "query?g0.expr=many_series&g0.tab=graph&g0.range_input=5m");
    await page.waitForSelector("text=/the 50 highest drawn/", { timeout: 60_000 });
    note(`drawn after ${Date.now() - began} ms`);
    const clicked = Date.now();
    await page.click("text=draw all");
    await page.waitForFunction(
      () => !/highest drawn/.test(document.querySelector(".stats")?.textContent ?? ""),
      null,
      {
        timeout: 60_000,
      },
    );
    check(page.url().includes("draw_all=1"), "the address keeps that all are drawn");
    note(`all 10,000 drawn ${Date.now() - clicked} ms after the click`);
    const f = await frames(page, '[aria-label="Legend"]');
    note(`legend: ${spoken(f)}`);
    smooth(f, "scrolling the legend");
  },
  { alone: true },
);

function targets(count) {
  const now = new Date().toISOString();
  return Array.from({ length: count }, (_, i) => ({
    discoveredLabels: { __address__: `h${i}:1`, job: `j${i % 800}` },
    labels: { instance: `h${i}:1`, job: `j${i % 800}`, zone: `z${i % 3}` },
    scrapePool: `pool ${i % 800}`,
    scrapeUrl: `http://h${i}:1/metrics`,
    globalUrl: `http://h${i}:1/metrics`,
    lastError: i % 997 ? "" : "connection refused",
    lastScrape: now,
    lastScrapeDuration: 0.01,
    health: i % 997 ? "up" : "down",
    scrapeInterval: "15s",
    scrapeTimeout: "10s",
  }));
}

test(
  "20,000 targets in 800 pools: list, filter, scroll",
  async (page, note) => {
    const body = JSON.stringify({
      status: "success",
      data: { activeTargets: targets(20_000), droppedTargets: [] },
    });
    await page.route("**/api/v1/targets?*", (route) =>
      route.fulfill({ body, contentType: "application/json" }),
    );
    const began = Date.now();
    await open(page, "targets");
    await page.waitForSelector("tr.pick");
    note(`20,000 targets shown after ${Date.now() - began} ms`);
    check((await page.textContent("tr.pick >> nth=0")).includes("down"), "failing ones are not first");
    check((await page.locator("table.data tr").count()) < 120, "too many rows in the document");
    const typed = Date.now();
    await page.fill("[data-search]", "zone=z1 h199");
    await page.waitForFunction(() => document.querySelectorAll("tr.pick").length < 60);
    note(`filtered ${Date.now() - typed} ms after typing`);
    await page.fill("[data-search]", "");
    await page.waitForFunction(() => document.querySelectorAll("tr.pick").length > 20);
    const f = await frames(page, '[aria-label="Targets"]');
    note(`scrolling: ${spoken(f)}`);
    smooth(f, "scrolling targets");
  },
  { alone: true },
);

test("a refresh keeps scroll and selection", async (page) => {
  let calls = 0;
  const all = targets(1500);
  await page.route("**/api/v1/targets?*", (route) => {
    calls++;
    return route.fulfill({ json: { status: "success", data: { activeTargets: all, droppedTargets: [] } } });
  });
  await open(page, "targets");
  await settled(page);
  const box = page.locator('[aria-label="Targets"]');
  await box.evaluate((el) => el.scrollTo(0, 30_000));
  await page.waitForTimeout(200);
  const seen = await page.textContent("table.data tbody tr:nth-child(12)");
  const before = calls;
  await until("a refresh", () => calls > before);
  await page.waitForTimeout(200);
  check((await box.evaluate((el) => el.scrollTop)) === 30_000, "the scroll position is lost");
  check(
    (await page.textContent("table.data tbody tr:nth-child(12)")).slice(0, 20) === seen.slice(0, 20),
    "other rows than before",
  );
  // While text is selected nothing is taken away under it.
  await page.evaluate(() =>
    getSelection().selectAllChildren(document.querySelector("tbody tr:nth-child(12) bdi")),
  );
  const selecting = calls;
  await page.waitForTimeout(6000);
  check(calls === selecting, "it refreshed under a selection");
});
