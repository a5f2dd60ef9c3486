// Alerts, silences with a real Alertmanager, rules.
import { accessible, alertmanager, check, open, picture, settled, test, until } from "./harness.mjs";

test("an alert: value and limit, history, instances", async (page) => {
  await open(page, "alerts");
  await settled(page);
  await page.click('tr.pick button:near(:text("TargetDown"))');
  await page.waitForSelector('dialog[open] h3:has-text("limit (== 0)")');
  await page.waitForSelector("dialog[open] .u-wrap canvas");
  await page.waitForSelector("dialog[open] .strip .firing");
  await page.waitForSelector('dialog[open] .instance:has-text("broken")');
  check(await page.locator('dialog[open] a[href="https://example.com/runbook"]').count(), "no runbook link");
  await picture(page, "alert");
  await accessible(page);
  await page.click("dialog[open] >> text=1 week");
  await page.waitForSelector("dialog[open] .strip .firing");
});

test("filters of alerts live in the address", async (page) => {
  await open(page, "alerts?state=firing");
  await settled(page);
  check(await page.locator('tr.pick:has-text("TargetDown")').count(), "the firing alert is missing");
  check((await page.locator('tr.pick:has-text("SlowShop")').count()) === 0, "an inactive alert is shown");
  await page.fill("[data-search]", "halfdown");
  await until("the filter in the address", () => page.url().includes("search=halfdown"));
});

test(
  "a silence is created, seen and expired",
  async (page) => {
    await open(page, "alerts");
    await settled(page);
    await page.click('tr.pick button:near(:text("TargetDown"))');
    await page.click('dialog[open] .instance:has-text("broken") >> text=Silence…');
    await page.waitForSelector('dialog[open] h2:text("Silence")');
    await page.waitForSelector("text=/Silences 1 of \\d+ alerts/");
    await accessible(page);
    await page.click("dialog[open] .btn.primary");
    await page.waitForSelector("dialog[open] .notice.bad >> text=Say who you are.");
    await page.fill('dialog[open] label:has-text("Your name") input', "browser test");
    await page.fill('dialog[open] label:has-text("Comment") input', "planned work");
    await page.click("dialog[open] >> text=30m");
    check(
      (await page.locator("dialog[open] .notice.bad").count()) === 0,
      "what was missing is complained about after it was given",
    );
    await picture(page, "silence-form");
    await page.click("dialog[open] .btn.primary");
    await page.waitForSelector('dialog[open] .instance:has-text("broken") >> text=silenced');
    const there = async () => {
      const all = await (await fetch(`${alertmanager}/api/v2/silences`)).json();
      return all.filter((s) => s.createdBy === "browser test" && s.status.state === "active").length;
    };
    check((await there()) === 1, "the Alertmanager has no such silence");
    await page.keyboard.press("Escape");
    await page.click("text=/Silences \\d/");
    const row = page.locator('tr:has-text("planned work")');
    await row.waitFor();
    await picture(page, "silences");
    await accessible(page);
    await row.locator("text=Expire").click();
    await until("the silence to end", async () => (await there()) === 0);
  },
  { skip: alertmanager ? undefined : "no Alertmanager" },
);

test("rules: cost, dependencies, drawer", async (page) => {
  await open(page, "rules?view=links");
  await settled(page);
  await page.click('tr:has(b:text-is("job:up:ratio")) button >> nth=0');
  await page.waitForSelector('dialog[open] h3:text("Reads the results of")');
  await page.click(".rule-links >> text=job:up:sum");
  await page.waitForSelector('dialog[open] h2 >> text="job:up:sum"');
  await accessible(page);
  await page.keyboard.press("Escape");
  await page.click("text=Slowest");
  await page.waitForSelector("text=/All rules together/");
  await page.click('tr:has-text("job:up:sum") >> text=where the time goes');
  await page.waitForSelector(".bars");
});

test(
  "a backtest says when a rule would have fired",
  async (page, note) => {
    await open(page, "alerts");
    await settled(page);
    await page.click('tr.pick button:near(:text("TargetDown"))');
    await page.click("text=Would it have fired?");
    await page.fill('.backtest label:has-text("look back") input', "10m");
    await page.click(".backtest >> text=Try");
    await page.waitForSelector(".backtest [role=status], .backtest .notice");
    const said = await page.textContent(".backtest");
    if (said.includes("does not offer")) return note("this server offers no backtests");
    check(/would have fired/.test(said), said);
    await page.waitForSelector(".backtest .strip .firing");
  },
  { allow: /status of 404/ },
);
