// Targets and discovery with true data: what was scraped, what failed where, and by which rule a target changed.
import { accessible, check, open, picture, settled, test } from "./harness.mjs";

test("a failing target: the line that is wrong, and its last scrapes", async (page) => {
  await open(page, "targets?health=down");
  await settled(page);
  await page.click('tr.pick:has-text("/garbled") button');
  await page.waitForSelector('dialog[open] .bad-line mark:text-is("is")');
  await page.waitForSelector('dialog[open] .bad-line .line-number:text-is("line 4")');
  await page.waitForSelector("dialog[open] .scrape-bars .down");
  await page.waitForSelector('dialog[open] [aria-label="Last scrapes"] tbody tr >> nth=1');
  await picture(page, "target");
  await accessible(page);
});

test("a target is found by a label and filtered by a click", async (page) => {
  await open(page, "targets");
  await settled(page);
  await page.fill("[data-search]", "team=shop");
  await page.waitForFunction(() => document.querySelectorAll("tr.pick").length === 1);
  await page.fill("[data-search]", "");
  await page.click('.pool:has-text("broken")');
  await page.waitForFunction(() => document.querySelectorAll("tr.pick").length === 1);
  check(page.url().includes("pool=broken"), "the pool is not in the address");
});

test("discovery: each relabelling step in words", async (page) => {
  await open(page, "service-discovery");
  await settled(page);
  await page.fill("[data-search]", "__meta_ host=");
  await page.fill("[data-search]", "host=127.0.0.1");
  await page.click("tr.pick button");
  await page.waitForSelector("dialog[open] .steps >> text=/If the label __address__ matches/");
  await page.waitForSelector('dialog[open] .change ins >> text="127.0.0.1"');
  await accessible(page);
  await page.keyboard.press("Escape");
  await page.fill("[data-search]", "");
  await page.click("text=/Dropped 1/");
  await page.click("tr.pick button");
  await page.waitForSelector("dialog[open] >> text=The target is dropped here.");
});
