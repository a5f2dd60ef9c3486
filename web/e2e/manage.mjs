// What changes the server or tells of changes: deletion, reloads, the configuration's file, the API browser.
import { readFileSync, writeFileSync } from "node:fs";
import {
  accessible,
  api,
  backend,
  check,
  configFile,
  open,
  picture,
  second,
  settled,
  test,
  until,
} from "./harness.mjs";

test("series are deleted after a dry run and a confirmation", async (page) => {
  await open(page, "storage");
  await settled(page);
  await page.fill('[aria-label="Selector of the series to delete"]', 'doomed{why="to be deleted"}');
  await page.fill('label:has-text("from") input', "1h ago");
  await page.click("text=Dry run");
  await page.waitForSelector(".plan >> text=/1 series/");
  check(await page.locator(".btn.danger").isDisabled(), "deletion is offered without confirmation");
  await accessible(page);
  const count = async () => {
    const { result } = await api("query", { query: "count_over_time(doomed[1h])" });
    return Number(result[0]?.value[1] ?? 0);
  };
  const before = await count();
  check(before > 1, "nothing to delete");
  await page.check("text=Delete them for ever");
  await page.click(".btn.danger");
  await page.waitForSelector("text=/Deleted \\d+ samples of 1 series/");
  check((await count()) < before, "the samples are still there");
  await page.fill('[aria-label="Selector of the series to delete"]', "sum(up)");
  await page.click("text=Dry run");
  await page.waitForSelector("text=/A plain selector is needed/");
});

test(
  "a failed reload is told at once, the file is compared",
  async (page) => {
    const good = readFileSync(configFile, "utf8");
    const reload = () => fetch(`${backend}/-/reload`, { method: "POST" });
    await open(page, "status?view=config&part=diff");
    await settled(page);
    await page.waitForSelector("text=/reload would change nothing/");
    try {
      writeFileSync(configFile, good.replace("cluster: test", "cluster: other"));
      await page.reload();
      await page.waitForSelector('.diff.gone:has-text("cluster: test")');
      await page.waitForSelector('.diff.new:has-text("cluster: other")');
      await accessible(page);
      await picture(page, "config-diff");
      writeFileSync(configFile, `${good}\nnonsense: 1\n`);
      await reload();
      await page.waitForSelector("main [role=alert] >> text=/reload has failed/", { timeout: 5000 });
      await page.reload();
      await page.waitForSelector(".notice.bad >> text=/nonsense/");
    } finally {
      writeFileSync(configFile, good);
      await reload();
    }
    await page.waitForSelector("main [role=alert] >> text=/reload has failed/", { state: "detached" });
  },
  { skip: configFile ? undefined : "no configuration file", alone: true },
);

test(
  "blocks on a time line, their size and what the disk will need",
  async (page) => {
    await page.goto(`${second}storage`);
    await settled(page);
    await page.waitForSelector(".block-row:has-text('Level 1') .block-track > span >> nth=2");
    await page.waitForSelector(".block-row:has-text('In memory') .head");
    await page.waitForSelector("[aria-label=Blocks] tbody tr >> nth=2");
    check(/\d (B|KiB)/.test(await page.textContent("[aria-label=Blocks] tbody tr")), "a block has no size");
    // Growth needs the rate, which needs a second look.
    await page.waitForSelector(".tile:has-text('Growth a day') >> text=/\\d [KM]iB/");
    await page.click("[aria-label=Blocks] tbody button >> nth=0");
    await page.waitForSelector("dialog[open] dt:text('Samples')");
    await accessible(page);
    await picture(page, "blocks");
  },
  { skip: second ? undefined : "no second server" },
);

test("the API browser sends a call", async (page) => {
  await open(page, "status?view=api");
  await page.fill("[data-search]", "labels");
  await page.click('.call:has-text("/api/v1/labels")');
  await accessible(page);
  await page.click(".try >> text=Send");
  await page.waitForSelector(".try >> text=status 200");
  check((await page.textContent(".reply")).includes("__name__"), "no labels in the answer");
});

test("delivery tells what was sent, and what cannot be sent", async (page) => {
  await open(page, "status?view=delivery");
  await until("sent alerts", async () =>
    /good|with losses|nobody is told/.test(await page.textContent("main")),
  );
  if (!second) return;
  const row = (url) => page.locator(`[aria-label="Remote write"] tbody tr:has-text("${url}")`);
  await row(new URL(second).host).locator("text=good").waitFor();
  await row("127.0.0.1:1/").locator("text=stuck").waitFor();
});

test("a rule that fails says why", async (page) => {
  await open(page, "rules?search=ambiguous");
  await settled(page);
  await page.click('tr.pick:has-text("shop:ambiguous") button');
  await page.waitForSelector("dialog[open] >> text=/many-to-many|duplicate series/");
  await accessible(page);
  await picture(page, "failing-rule");
});

test("cardinality: a selector at two moments, then deeper", async (page) => {
  await open(page, `cardinality?focus=${encodeURIComponent('{job="shop"}')}&ago=600`);
  await settled(page);
  await page.waitForSelector('[aria-label="Series by value"] tbody tr');
  const first = await page.textContent(".focus-card .stats");
  check(/series now/.test(first) && /of memory/.test(first), first);
  await page.click('[aria-label="Series by value"] button:has-text("shop_request_seconds_bucket")');
  await until("the deeper selector", () => page.url().includes("shop_request_seconds_bucket"));
  await page.waitForSelector('[aria-label="Series by value"] th:has-text("job")');
  await accessible(page);
});

test("metrics: search, drawer with a first graph, labels and rules", async (page) => {
  await open(page, "explore?search=shop");
  await settled(page);
  await page.click("text=shop_request_seconds_count");
  await page.waitForSelector("dialog[open] .u-wrap canvas");
  await page.waitForSelector("dialog[open] >> text=/SlowShop/");
  await accessible(page);
  await open(page, "explore?metric=shop_request_seconds");
  await page.waitForSelector('dialog[open] h2 >> text="shop_request_seconds_bucket"');
});
