// Every page opens in both themes and three widths, shows nothing wider than the screen, and axe finds nothing.
import { accessible, check, OPTIONAL, open, picture, prefixed, second, settled, test } from "./harness.mjs";
import { address, MAIN, SIZES } from "./places.mjs";

// Parts of pages: once wide in light, once narrow in dark.
const PARTS = [
  "query?tab=raw",
  "query?tab=explain",
  "query?tab=stats",
  "query?tab=table",
  "query?tab=heatmap",
  "query?tab=native",
  "alerts?view=silences",
  "rules?view=slow",
  "rules?view=links",
  "rules?view=groups",
  'cardinality?focus={job="meerkat"}&ago=600',
  "status?view=flags",
  "status?view=config",
  "status?view=config&part=diff",
  "status?view=delivery",
  "status?view=features",
  "status?view=api",
];
const nameOf = (path) => path.replace(/\W+/g, "-").replace(/-$/, "") || "home";

async function look(page, path, width, theme) {
  await page.waitForTimeout(250);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `at ${width} pixels the page is ${wide} px wider than the screen`);
  await picture(page, `${nameOf(path)}-${width}-${theme}`);
  await accessible(page);
}

async function visit(page, path, looks) {
  await open(page, address(path));
  await settled(page);
  if (path.startsWith("query")) await page.waitForSelector(".cm-editor");
  if (path === "") await page.waitForSelector(".spark canvas >> nth=3");
  for (const [width, height, theme] of looks) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: theme });
    await look(page, path, width, theme);
  }
}

for (const path of MAIN)
  for (const theme of ["light", "dark"])
    test(
      `page /${path} ${theme}`,
      (page) =>
        visit(
          page,
          path,
          SIZES.map(([width, height]) => [width, height, theme]),
        ),
      { width: SIZES[0][0], height: SIZES[0][1], theme, allow: OPTIONAL },
    );
for (const path of PARTS)
  test(
    `page /${path}`,
    (page) =>
      visit(page, path, [
        [1280, 800, "light"],
        [390, 844, "dark"],
      ]),
    { allow: OPTIONAL },
  );

/** Visits every page below an address that ends with the prefix; nothing outside may be asked for. */
async function below(page, home) {
  const strange = [];
  page.on("request", (r) => {
    if (new URL(r.url()).protocol.startsWith("http") && !r.url().startsWith(home)) strange.push(r.url());
  });
  for (const path of MAIN) {
    await page.goto(home + address(path));
    await settled(page);
  }
  await page.click('nav a:has-text("Targets")');
  await page.waitForSelector("h1:text('Targets')");
  check(page.url() === `${home}targets`, `a link leads to ${page.url()}`);
  check(strange.length === 0, `asked outside of the prefix: ${strange.join(" ")}`);
}

test("pages live under the prefix of a proxy", (page) => below(page, prefixed.address), { allow: OPTIONAL });

test(
  "pages live under a route prefix of the server",
  async (page) => {
    await page.goto(second.slice(0, -1));
    await settled(page);
    check(page.url() === second, `without its slash the prefix leads to ${page.url()}`);
    await below(page, second);
    await page.waitForSelector('tr.pick:has-text("/below/a/prefix/metrics")');
  },
  { allow: OPTIONAL, skip: second ? undefined : "no second server" },
);

test("keyboard alone: skip link, pages, help, drawer and back", async (page) => {
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
  const row = () =>
    page.evaluate(() => document.activeElement.closest("tbody tr")?.getAttribute("aria-rowindex") ?? "none");
  await page.locator("tr.pick button").first().focus();
  await page.keyboard.press("ArrowDown");
  check((await row()) === "3", `the arrow leads to row ${await row()}`);
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await accessible(page);
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog[open]", { state: "detached" });
  check((await row()) === "3", "the focus does not return to its row");
  await page.keyboard.press("Control+k");
  await page.waitForSelector(".palette[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector(".palette[open]", { state: "detached" });
  check((await row()) === "3", "the focus does not return from the palette");
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.waitForSelector("h1:text('Rules')");
  await page.keyboard.press("/");
  check((await page.evaluate(() => document.activeElement.type)) === "search", "/ does not go to the filter");
});

test("who wants no motion gets none, and sees that a page loads", async (page) => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  let answer = () => {};
  const held = new Promise((done) => {
    answer = done;
  });
  await page.route("**/api/v1/targets?**", (route) => held.then(() => route.continue()));
  await open(page, "targets");
  const look = await page
    .locator(".page-head ~ .placeholder")
    .evaluate((el) => [getComputedStyle(el).animationName, getComputedStyle(el).opacity].join());
  check(look === "none,1", `the placeholder is ${look}`);
  answer();
  await settled(page);
});

test("g and a letter lead to every page", async (page) => {
  await open(page, "flags");
  await settled(page);
  for (const [key, title] of Object.entries({
    h: "Home",
    q: "Query",
    m: "Metrics",
    a: "Alerts",
    r: "Rules",
    t: "Targets",
    d: "Service discovery",
    c: "Cardinality",
    o: "Storage",
    s: "Status",
  })) {
    // Where a page has put the cursor into a field, letters are text.
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.waitForSelector(`h1:text-is("${title}")`, { state: "attached" });
  }
});

test("the palette leads to pages, metrics, targets and actions", async (page) => {
  await open(page, "");
  await settled(page);
  await page.keyboard.press("Control+k");
  await page.waitForSelector(".palette[open]");
  await accessible(page);
  await page.keyboard.type("serv disc");
  await page.keyboard.press("Backspace");
  await page.fill(".palette input", "discovery");
  await page.keyboard.press("Enter");
  await page.waitForSelector("h1:text('Service discovery')");
  await page.keyboard.press("Control+k");
  await page.fill(".palette input", "shop_request_seconds_count");
  await page.waitForSelector('.palette-row:has-text("Metric")');
  await picture(page, "palette");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".panel");
  check(page.url().includes("shop_request_seconds_count"), "the metric is not opened");
  // In the editor too.
  await page.click(".cm-content");
  await page.keyboard.press("Control+k");
  await page.fill(".palette input", "TargetDown");
  await page.waitForSelector('.palette-row:has-text("Alert")');
  await page.keyboard.press("Enter");
  await page.waitForSelector("h1:text('Alerts')");
  await page.keyboard.press("Control+k");
  await page.fill(".palette input", "colours: dark");
  await page.keyboard.press("Enter");
  await page.waitForSelector('html[data-theme="dark"]');
});

test("the time zone switches everywhere", async (page) => {
  await open(page, "status");
  await settled(page);
  const local = await page.textContent("main");
  await page.click("header >> text=/UTC[+−]/");
  check((await page.textContent("main")) !== local, "times did not change");
  check((await page.textContent("header")).includes("UTC"), "no zone shown");
});
