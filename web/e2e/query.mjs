// The query page is used: typing, zooming, comparing, exemplars, explaining, exporting.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  accessible,
  base,
  binary,
  check,
  freePort,
  open,
  picture,
  settled,
  test,
  until,
} from "./harness.mjs";

const q = (expr, rest = "&g0.tab=graph&g0.range_input=5m") =>
  `query?g0.expr=${encodeURIComponent(expr)}${rest}`;
const RATE = "rate(shop_request_seconds_count[30s])";

test(
  "first chart from a cold start",
  async (page, note) => {
    const began = Date.now();
    await open(page, "query?g0.expr=up&g0.tab=graph&g0.range_input=5m");
    await page.waitForSelector(".u-wrap canvas");
    note(`time to the first chart: ${Date.now() - began} ms`);
    const sizes = await page.evaluate(() =>
      performance
        .getEntriesByType("resource")
        .filter((e) => /assets\//.test(e.name))
        .map((e) => [e.name.split("/").pop(), e.encodedBodySize]),
    );
    const editor = (name) => /^codemirror/.test(name);
    const first = sizes.filter(([n]) => !editor(n)).reduce((s, [, b]) => s + b, 0);
    note(
      `loaded without the editor: ${first} bytes, the editor: ${sizes.filter(([n]) => editor(n)).reduce((s, [, b]) => s + b, 0)}`,
    );
    check(first <= 60 * 1024, `the first load is ${first} bytes`);
  },
  { alone: true },
);

test("type, run, table, sort, filter, back", async (page) => {
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

test("completion offers metrics, labels and their values", async (page) => {
  await open(page, "query");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.type("shop_req");
  await page.waitForSelector('.cm-tooltip-autocomplete li:has-text("shop_request_seconds_count")');
  await page.keyboard.type("uest_seconds_count{pa");
  await page.waitForSelector('.cm-tooltip-autocomplete li:has-text("path")');
  await page.keyboard.type('th="');
  await page.waitForSelector('.cm-tooltip-autocomplete li:has-text("/cart")');
});

test("links of Prometheus open as they were", async (page) => {
  await open(
    page,
    "graph?g0.expr=up&g0.tab=0&g0.stacked=1&g0.range_input=10m&g0.y_axis_min=-1.5&g1.expr=vector(1)&g1.tab=1",
  );
  await page.waitForSelector(".u-wrap canvas");
  check((await page.locator(".panel").count()) === 2, "two panels are expected");
  check(
    (await page.inputValue('[aria-label="Lowest value of the vertical axis"]')) === "-1.5",
    "no y_axis_min",
  );
  check((await page.getAttribute("text=Stacked", "aria-pressed")) === "true", "not stacked");
  await page.waitForSelector(".panel:nth-of-type(2) .scalar, .panel:nth-of-type(2) table.data");
});

test("zoom, pan, zoom out; keys move the cursor; legend isolates", async (page) => {
  // It has values at every moment, however young the server is.
  await open(page, q("vector(1)", "&g0.tab=graph&g0.range_input=15m"));
  await page.waitForSelector(".u-over");
  const box = await page.locator(".u-over").boundingBox();
  const range = () => new URL(page.url()).searchParams.get("g0.range_input");
  const end = () => new URL(page.url()).searchParams.get("g0.end_input");
  await page.mouse.move(box.x + box.width - 60, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 2, box.y + 90, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => location.search.includes("end_input"));
  const [zoomed, before] = [range(), end()];
  await page.waitForTimeout(400);
  await page.keyboard.down("Shift");
  await page.mouse.move(box.x + 200, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + 500, box.y + 80, { steps: 5 });
  await page.mouse.up();
  await page.keyboard.up("Shift");
  await until("the pan", () => end() !== before);
  check(range() === zoomed, "panning changed the range");
  await page.goBack();
  await page.waitForTimeout(400);
  await page.mouse.dblclick(box.x + 300, box.y + 60);
  await until("zooming out", () => range() !== zoomed);
  await open(page, q("up"));
  await page.waitForSelector(".chart-host canvas");
  await page.locator(".chart-host").focus();
  await page.keyboard.press("ArrowLeft");
  await page.waitForSelector(".tip");
  await page.click(".legend-name >> nth=0");
  await page.waitForSelector("tr.dim");
  for (const head of ["Last", "Min", "Max", "Avg"])
    check(await page.locator(`.legend th:has-text("${head}")`).count(), `no ${head} in the legend`);
});

test("cursors of two panels move together", async (page) => {
  // Both have values at every moment, however young the server is.
  await open(page, `${q("vector(1)")}&g1.expr=vector(2)&g1.tab=graph&g1.range_input=30m`);
  await page.waitForFunction(() => document.querySelectorAll(".u-over").length === 2);
  // Charts that are drawn again meanwhile forget the mouse until it moves.
  let shift = 0;
  await until("two tips", async () => {
    const box = await page.locator(".u-over").first().boundingBox();
    await page.mouse.move(box.x + box.width - 20 - (shift++ % 5), box.y + 60);
    return (await page.locator(".tip").count()) === 2;
  });
});

test("keys move and zoom all panels; the zone switch leaves the address alone", async (page) => {
  await open(page, `${q("up")}&g1.expr=vector(1)&g1.tab=graph&g1.range_input=10m`);
  await page.waitForFunction(() => document.querySelectorAll(".u-over").length === 2);
  const value = (name) => new URL(page.url()).searchParams.get(name);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("[");
  await until("the move", () => value("g0.end_input") && value("g1.end_input"));
  await page.keyboard.press("-");
  await until("the zoom", () => value("g0.range_input") === "10m" && value("g1.range_input") === "20m");
  // The zoom may have reached the present, where the field is empty.
  await page.keyboard.press("[");
  const field = page.locator('.panel input[aria-label="End"] >> nth=0');
  await until("a moment in the past", async () => value("g0.end_input") && (await field.inputValue()));
  const address = page.url();
  const before = await field.inputValue();
  const offset = page.locator("header >> text=/UTC[+−]/");
  await until("the other zone", async () => {
    // A click that meets a button while it is drawn again is lost.
    if (await offset.count()) await offset.click();
    return (await field.inputValue()) !== before;
  });
  check(page.url() === address, "the address follows the zone");
});

test("a refresh of a table keeps the scroll position and waits for a selection", async (page) => {
  let calls = 0;
  page.on("request", (r) => /api\/v1\/query\?/.test(r.url()) && calls++);
  await open(page, "query?g0.expr=many_series&g0.tab=table&refresh=5");
  await page.waitForSelector('.stats:has-text("10000 series")');
  const box = page.locator('[aria-label="Result"]');
  await box.evaluate((el) => el.scrollTo(0, 3000));
  const before = calls;
  await until("a refresh", () => calls > before);
  await page.waitForTimeout(1500);
  check((await box.evaluate((el) => el.scrollTop)) === 3000, "the scroll position is lost");
  // While text is selected nothing is taken away under it.
  const text = await box.evaluate((el) => {
    getSelection().selectAllChildren(el.querySelectorAll("tbody tr")[12].querySelector("bdi"));
    return String(getSelection());
  });
  const selecting = calls;
  await page.waitForTimeout(6000);
  check(calls === selecting, "it refreshed under a selection");
  check((await page.evaluate(() => String(getSelection()))) === text, "the selection is lost");
});

test("compare with the past, lines and change", async (page) => {
  await open(page, `${q(RATE)}&g0.compare=20s`);
  await page.waitForSelector('.legend th:has-text("Change")');
  await page.selectOption('select:near(:text("Compare"))', "3600000").catch(() => {});
  await page.waitForSelector(".u-wrap canvas");
});

test("exemplars lead to traces", async (page) => {
  await open(
    page,
    `${q("histogram_quantile(0.9, sum by (path, le) (rate(shop_request_seconds_bucket[30s])))")}&g0.show_exemplars=1`,
  );
  await page.waitForSelector(".exemplars table.data tbody tr");
  await page.click("text=Set a trace link");
  await page.fill('[aria-label="Address of a trace"]', "https://traces.example/{trace_id}");
  const link = page.locator(".exemplars a").first();
  await link.waitFor();
  check(/^https:\/\/traces\.example\/[0-9a-f]{32}$/.test(await link.getAttribute("href")), "no trace link");
  await picture(page, "exemplars");
  await accessible(page);
  // A click on a dot brings its exemplar to the top of the table.
  const box = await page.locator(".u-over").boundingBox();
  let hit = false;
  for (let x = box.width - 4; x > 0 && !hit; x -= 7)
    for (let y = 4; y < box.height && !hit; y += 10) {
      await page.mouse.move(box.x + x, box.y + y);
      hit = (await page.locator('.tip:has-text("Exemplar")').count()) > 0;
    }
  check(hit, "no dot under the pointer anywhere");
  await page.mouse.down();
  await page.mouse.up();
  await page.waitForSelector(".exemplars tr.strong");
});

test("histograms draw themselves as heat maps", async (page) => {
  await open(page, q("sum by (le) (rate(shop_request_seconds_bucket[30s]))"));
  await page.waitForSelector('.stats:has-text("bucket bounds")');
  const box = await page.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width - 10, box.y + box.height / 2);
  await page.waitForSelector('.tip:has-text("between")');
  await page.click("text=Lines");
  await page.waitForSelector(".legend-name");
});

test("native histograms draw themselves as heat maps, with the true bounds", async (page) => {
  await open(page, q("sum(rate(shop_native_seconds[30s]))"));
  await page.waitForSelector('.stats:has-text("bucket bounds")');
  const box = await page.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width - 10, box.y + box.height / 2);
  await page.waitForSelector('.tip:has-text("between")');
  await page.click("text=Table");
  await page.waitForSelector("table.data tbody tr");
});

test("explain: plan, costs and unmatched sides", async (page) => {
  const expr = "sum by (job) (rate(prometheus_http_requests_total[1m])) / on (job) group_left () (up * 2)";
  await open(page, q(expr, "&g0.tab=explain"));
  await page.waitForSelector(".node-facts >> nth=4");
  await page.waitForSelector('.unmatched:has-text("on the right without a partner")');
  check((await page.textContent(".tree")).includes("samples"), "no samples");
  await page.click("text=Over the graph's range");
  await page.waitForFunction(() => !document.querySelector(".busy-line.on"));
  await page.click(".node-expr >> nth=1");
  await page.waitForSelector("table.data");
});

test("raw samples and stats", async (page) => {
  await open(page, q(RATE, "&g0.tab=raw&g0.range_input=2m"));
  await page.waitForSelector('[aria-label="Samples"] tbody tr >> nth=2');
  check((await page.locator('[aria-label="Series"] tbody tr').count()) === 3, "three series are expected");
  await page.click('[aria-label="Result as"], fieldset:has(legend:text("Result as")) >> text=Stats');
  await page.waitForSelector(".bars >> text=Reading and calculating");
});

test("the doctor of empty results", async (page) => {
  await open(page, "query?g0.expr=upp&g0.tab=graph");
  await page.waitForSelector(".doctor li .btn");
  await page.click('.doctor li bdi:text-is("up")');
  await page.waitForSelector(".u-wrap canvas");
});

test(
  "a server younger than the step of a graph has a graph",
  async (page) => {
    // Its first sample comes after the last multiple of the step, at which such graphs end.
    const STEP = 15_000;
    const left = STEP - (Date.now() % STEP);
    if (left < 10_000) await new Promise((done) => setTimeout(done, left + 100));
    const [dir, port] = [mkdtempSync(join(tmpdir(), "meerkat-young-")), await freePort()];
    const config = join(dir, "young.yml");
    writeFileSync(
      config,
      `scrape_configs: [{job_name: young, scrape_interval: 1s, static_configs: [{targets: ["127.0.0.1:${port}"]}]}]`,
    );
    const young = spawn(
      binary,
      [
        `--config.file=${config}`,
        `--storage.tsdb.path=${join(dir, "data")}`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { stdio: "ignore" },
    );
    const ended = new Promise((done) => young.on("close", done));
    try {
      const at = `http://127.0.0.1:${port}/`;
      const first = () => fetch(`${at}api/v1/query?query=up`).then((r) => r.json());
      await until("the first sample", () =>
        first()
          .then((a) => a.data?.result?.length > 0)
          .catch(() => false),
      );
      await page.goto(`${at}${q("up", "&g0.tab=graph&g0.res_type=fixed&g0.res_step=15")}`);
      await page.waitForSelector(".u-wrap canvas");
      check((await page.locator(".doctor").count()) === 0, "the doctor was called");
      check(/1 series/.test(await page.textContent(".stats")), "not one series");
      // A page left open would complain that its server is gone.
      await page.goto("about:blank");
    } finally {
      young.kill();
      await ended;
      rmSync(dir, { recursive: true, force: true });
    }
  },
  { skip: binary ? undefined : "no binary" },
);

test("an empty panel offers queries that have a result", async (page) => {
  await open(page, "query");
  await page.click(".hint button >> nth=0");
  await page.waitForSelector(".u-wrap canvas");
  check(/g0\.expr=./.test(page.url()), "the example is not in the address");
});

test("export: files, curl, Grafana panel, alert rule", async (page) => {
  await open(page, q(`${RATE} > 0`));
  await page.waitForSelector(".legend-name");
  const pick = async (name) => {
    await page.click('button[aria-label="Export"]');
    await page.click(`[role=menuitem]:text-is("${name}")`);
  };
  const saved = async (name) => {
    const [file] = await Promise.all([page.waitForEvent("download"), pick(name)]);
    return readFileSync(await file.path());
  };
  const csv = (await saved("CSV")).toString();
  check(/^time,"?\{/.test(csv) && csv.split("\r\n").length > 10, `no CSV: ${csv.slice(0, 80)}`);
  const json = JSON.parse((await saved("JSON")).toString());
  check(json.resultType === "matrix" && json.result.length === 3, "no JSON");
  const png = await saved("PNG");
  check(png.subarray(1, 4).toString() === "PNG" && png.length > 5000, "no PNG");
  const read = () => page.evaluate(() => navigator.clipboard.readText());
  const copied = async (name) => {
    const before = await read();
    await pick(name);
    // What was copied arrives a moment later.
    let text = before;
    await until(name, async () => {
      text = await read();
      return text !== before;
    });
    return text;
  };
  const curl = await copied("Copy as curl");
  check(curl.startsWith(`curl -sG '${base}api/v1/query_range?query=`), curl);
  const panel = JSON.parse(await copied("Copy as Grafana panel"));
  check(panel.type === "timeseries" && panel.targets[0].expr === `${RATE} > 0`, "no panel");
  const rule = await copied("Copy as alert rule");
  if (binary) {
    const folder = mkdtempSync(join(tmpdir(), "meerkat-rule-"));
    writeFileSync(join(folder, "rules.yml"), rule);
    const said = execFileSync(binary, ["check", "rules", join(folder, "rules.yml")]).toString();
    rmSync(folder, { recursive: true });
    check(/1 rules? found/.test(said), said);
  }
});

test(
  "errors in words with the place marked",
  async (page) => {
    await open(page, "query?g0.expr=sum(up&g0.tab=table");
    await page.waitForSelector(".notice.bad .pointer");
    await page.waitForSelector(".cm-server-error");
    await accessible(page);
  },
  { allow: /status of 400/ },
);

test("a newer query cancels the older, and Stop cancels any", async (page) => {
  const held = [];
  const cancelled = [];
  page.on("requestfailed", (r) => cancelled.push(r.url()));
  let hold = 1;
  await page.route("**/api/v1/query_range*", async (route) => {
    if (hold-- > 0)
      held.push(route); // answered by nobody until the test is over
    else await route.continue();
  });
  await open(page, "query?g0.expr=up&g0.tab=graph");
  await page.waitForSelector(".cm-content");
  await page.click(".cm-content");
  await page.keyboard.type(" * 2");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".u-wrap canvas");
  check(cancelled.length === 1, "the older request goes on");
  hold = 1;
  await page.click("text=Run");
  await page.click(".running >> text=Stop");
  await until("the cancelled request", () => cancelled.length === 2);
  for (const route of held) await route.abort().catch(() => {});
});

test("several panels: add, duplicate, remove, format, history", async (page) => {
  await open(page, q("sum(up)by(job)"));
  await settled(page);
  await page.click('[aria-label="More actions"]');
  await page.click("text=Format the expression");
  await until("formatting", async () => (await page.textContent(".cm-content")).includes("sum by (job)"));
  await page.click('[aria-label="More actions"]');
  await page.click("text=Duplicate this panel");
  check((await page.locator(".panel").count()) === 2, "not duplicated");
  await page.click("text=Add panel");
  check((await page.locator(".panel").count()) === 3, "not added");
  await page.click('[aria-label="More actions"] >> nth=1');
  await page.click("text=Remove this panel");
  check((await page.locator(".panel").count()) === 2, "not removed");
  await page.click("text=Run >> nth=0");
  await page.click('[aria-label="More actions"] >> nth=0');
  await page.click("text=History…");
  await page.waitForSelector(".past li button");
});
