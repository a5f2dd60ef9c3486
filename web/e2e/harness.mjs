// What browser tests share: a browser, pages that report every error, waiting, axe, pictures, figures.
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const FLAGS =
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const results = fileURLToPath(new URL("../test-results/", import.meta.url));
rmSync(results, { recursive: true, force: true });
mkdirSync(results, { recursive: true });

/** The server under test: its address, and what else the script that started it tells. */
export const backend = (process.env.MEERKAT_URL ?? "").replace(/\/$/, "");
export const alertmanager = process.env.MEERKAT_ALERTMANAGER;
export const configFile = process.env.MEERKAT_CONFIG;
export const binary = process.env.MEERKAT_BINARY;
/** A server below a route prefix that takes what the first one sends. */
export const second = process.env.MEERKAT_SECOND;
if (!backend) {
  console.error("MEERKAT_URL must name a running server, such as http://127.0.0.1:9090");
  process.exit(2);
}

/** What tests told about themselves: their name and a figure in words. */
export const told = [];

/** The same bundle below a route prefix, the API passed on. */
export const prefixed = await serve(backend, "/some/prefix/");
export const base = process.env.MEERKAT_PROXY ? prefixed.address : `${backend}/`;

/** A 404 of an optional call is answered in words on the page; browsers log it nevertheless. */
export const OPTIONAL = /status of 404/;

const tests = [];

/**
 * Registers a test. Options: width, height, theme; `allow`, console errors that are expected; `alone`, not beside
 * others; `skip`, the reason why it cannot run here.
 */
export function test(name, run, options = {}) {
  tests.push({ name, run, options });
}

export function check(condition, message) {
  if (!condition) throw new Error(message);
}

export const open = (page, path) => page.goto(base + path, { waitUntil: "load" });

export async function settled(page) {
  await page.waitForSelector("main h1, main .panel", { state: "attached" });
  await page.waitForFunction(() => !document.querySelector("main .placeholder, .busy-line.on"), null, {
    timeout: 40_000,
  });
}

export async function accessible(page) {
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

/** A port on which nothing listens. */
export function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** Keeps a picture in test-results. */
export function picture(page, name) {
  return page.screenshot({ path: `${results}${name}.png` });
}

/** Asks until the answer is true. */
export async function until(what, ask, limit = 40_000) {
  const end = Date.now() + limit;
  for (;;) {
    if (await ask()) return;
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((done) => setTimeout(done, 150));
  }
}

/** What the API answers. */
export async function api(path, params = {}) {
  const response = await fetch(`${backend}/api/v1/${path}?${new URLSearchParams(params)}`);
  return (await response.json()).data;
}

/**
 * Scrolls an element as a quick flick does, 160 pixels a frame. Gives back how long the frames took as the clock saw
 * it, and what script, style and layout computed for each: the second does not depend on what else the machine does.
 * Milliseconds.
 */
export async function frames(page, selector, { steps = 90, by = 160 } = {}) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.setTimeDomain", { timeDomain: "threadTicks" }).catch(() => {});
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const computed = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    const of = (name) => metrics.find((m) => m.name === name)?.value ?? 0;
    return 1000 * (of("ScriptDuration") + of("RecalcStyleDuration") + of("LayoutDuration"));
  };
  const before = await computed();
  const seen = await page.locator(selector).evaluate(
    (el, [steps, by]) =>
      new Promise((done) => {
        const times = [];
        let before = performance.now();
        let left = steps;
        const step = (now) => {
          times.push(now - before);
          before = now;
          el.scrollTop += by;
          if (left-- > 0) requestAnimationFrame(step);
          else {
            times.shift();
            times.sort((a, b) => a - b);
            done({ median: times[times.length >> 1], p95: times[Math.floor(times.length * 0.95)] });
          }
        };
        requestAnimationFrame(step);
      }),
    [steps, by],
  );
  const work = ((await computed()) - before) / steps;
  await session.detach();
  return { ...seen, work };
}

const WORKERS = 3;

/** Runs what was registered; an argument picks by a part of the name, one that begins with "!" leaves out. */
export async function runAll(only) {
  const picked = tests.filter((t) =>
    only.split("|").some((o) => (o.startsWith("!") ? !t.name.includes(o.slice(1)) : t.name.includes(o))),
  );
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS.split(" "),
  });
  let failures = 0;
  const runOne = async ({ name, run, options }) => {
    const { width = 1280, height = 800, theme = "light", allow = /$^/, skip } = options;
    if (skip) return console.log(`skipped: ${name} (${skip})`);
    const context = await browser.newContext({
      viewport: { width, height },
      colorScheme: theme,
      timezoneId: "Europe/Berlin",
      acceptDownloads: true,
    });
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await context.newPage();
    page.setDefaultTimeout(40_000);
    const trouble = [];
    const notes = [];
    page.on(
      "console",
      (m) =>
        m.type() === "error" &&
        !allow.test(m.text()) &&
        trouble.push(`console: ${m.text()} ${m.location().url}`),
    );
    page.on("pageerror", (e) => trouble.push(`page error: ${e.message}`));
    const began = Date.now();
    try {
      await run(page, (text) => {
        notes.push(text);
        told.push({ name, text });
      });
    } catch (error) {
      trouble.push(error.message);
      await page.screenshot({ path: `${results}failed-${name.replace(/\W+/g, "-")}.png` }).catch(() => {});
    }
    await page.unrouteAll({ behavior: "ignoreErrors" }).catch(() => {});
    await context.close();
    if (trouble.length) failures++;
    const lines = [...notes, ...trouble].map((t) => `\n       ${t}`).join("");
    console.log(`${trouble.length ? "FAIL" : "ok  "} ${name} (${Date.now() - began} ms)${lines}`);
  };
  const together = picked.filter((t) => !t.options.alone);
  await Promise.all(
    Array.from({ length: WORKERS }, async () => {
      for (let t = together.shift(); t; t = together.shift()) await runOne(t);
    }),
  );
  for (const t of picked.filter((t) => t.options.alone)) await runOne(t);
  await browser.close();
  prefixed.stop();
  console.log(failures ? `${failures} failed` : "all passed");
  return failures;
}
