// Figures about the interface: `scripts/measure-ui` starts the server and calls this. The first argument is the file that
// figures gather in; the others say what to do: completion, pages, or write REVISION.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";
import { nameOf } from "./exporter.mjs";
import { accessible, api, check, OPTIONAL, open, runAll, settled, test, told, until } from "./harness.mjs";
import "./query.mjs";
import { address, MAIN, SIZES } from "./places.mjs";
import "./scale.mjs";

const [file, ...steps] = process.argv.slice(2);
const names = Number(process.env.NAMES);
const figures = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { completion: [], notes: [] };

const at = (all, share) =>
  [...all].sort((a, b) => a - b)[Math.min(all.length - 1, Math.floor(all.length * share))];
const spoken = (all) =>
  `median ${at(all, 0.5).toFixed(0)}, p95 ${at(all, 0.95).toFixed(0)}, most ${Math.max(...all).toFixed(0)} ms`;

const WORDS = 20;
const LETTERS = 14;

// Types the beginnings of names from all over the million, letter by letter, as somebody who waits for the list.
test("typing", async (page, note) => {
  const lists = [];
  const answers = [];
  for (let w = 0; w < WORDS; w++) {
    const name = nameOf(Math.floor(((w + 0.5) * names) / WORDS));
    await open(page, "query");
    await page.waitForSelector(".cm-content");
    await page.click(".cm-content");
    await page.evaluate(() => {
      addEventListener("keydown", () => (globalThis.pressed = performance.now()), true);
    });
    for (let n = 1; n <= LETTERS; n++) {
      await page.keyboard.press(name[n - 1]);
      const took = await page.evaluate(
        (typed) =>
          new Promise((done) => {
            const look = () => {
              const first = document.querySelector(".cm-tooltip-autocomplete li:first-child");
              const now = performance.now();
              if (first?.textContent.includes(typed) || now - globalThis.pressed > 10_000)
                done(now - globalThis.pressed);
              else requestAnimationFrame(look);
            };
            look();
          }),
        name.slice(0, n),
      );
      // The first letter offers names without any order; a list that fits is expected from the second on.
      if (n > 1) lists.push(took);
    }
    answers.push(
      ...(await page.evaluate(() =>
        performance
          .getEntriesByType("resource")
          .filter((e) => /__name__\/values|search\/metric_names/.test(e.name))
          .map((e) => e.duration),
      )),
    );
  }
  note(
    `keystroke to list: ${spoken(lists)} (${lists.length} keystrokes); answers of the server: ${spoken(answers)}`,
  );
  check(at(lists, 0.5) < 10_000, "no list ever fitted");
});

test(
  "axe",
  async (page, note) => {
    let looks = 0;
    for (const path of MAIN) {
      await open(page, address(path));
      await settled(page);
      for (const colorScheme of ["light", "dark"])
        for (const [width, height] of SIZES) {
          await page.setViewportSize({ width, height });
          await page.emulateMedia({ colorScheme });
          await page.waitForTimeout(100);
          await accessible(page);
          looks++;
        }
    }
    note(
      `no violations in ${looks} looks: ${MAIN.length} pages at 390, 1280 and 1920 pixels, light and dark`,
    );
  },
  { allow: OPTIONAL, alone: true },
);

if (steps[0] === "write") {
  writeFileSync(fileURLToPath(new URL("../../benches/record/ui.md", import.meta.url)), table(steps[1]));
} else {
  await until(
    `${names} metric names`,
    async () => {
      const { result } = await api("query", { query: 'sum(scrape_samples_scraped{job="names"})' });
      return Number(result?.[0]?.value[1] ?? 0) >= names;
    },
    600_000,
  );
  const only = steps.includes("pages") ? "first chart|10,000 series|20,000 targets|axe|typing" : "typing";
  await runAll(only);
  const ranked = (await api("features")).api?.search === true;
  for (const { name, text } of told)
    if (name === "typing")
      figures.completion.push([ranked ? "ranked by the search API" : "by regular expressions", text]);
    else figures.notes.push([name, text]);
  const { result } = await api("query", { query: "prometheus_tsdb_head_series" });
  figures.series = Number(result?.[0]?.value[1] ?? 0);
  writeFileSync(file, JSON.stringify(figures));
}
process.exit(0);

function bundle() {
  const dist = fileURLToPath(new URL("../dist/", import.meta.url));
  const html = readFileSync(`${dist}index.html`, "utf8");
  const all = readdirSync(`${dist}assets`).filter((n) => n.endsWith(".br"));
  const size = (n) => readFileSync(`${dist}assets/${n}`).length;
  const first = all.filter((n) => html.includes(n.slice(0, -3))).reduce((s, n) => s + size(n), 0);
  return {
    first: first + brotliCompressSync(html).length,
    editor: all.filter((n) => n.startsWith("codemirror")).reduce((s, n) => s + size(n), 0),
    everything: all.reduce((s, n) => s + size(n), 0),
  };
}

function table(revision) {
  const { first, editor, everything } = bundle();
  const kib = (n) => `${(n / 1024).toFixed(1)} KiB`;
  const row = (cells) => `| ${cells.join(" | ")} |`;
  const cpu = cpus();
  return [
    "# The web interface",
    "",
    `${new Date().toISOString().slice(0, 10)}, commit ${revision}, ${cpu.length} cores, ${cpu[0].model}; Chromium and the server on the same cores.`,
    "",
    `\`scripts/measure-ui\` starts a server that scrapes ${names.toLocaleString("en")} metric names (${figures.series.toLocaleString("en")} series in all), opens it`,
    "in Chromium and writes this page.",
    "",
    "| what | figure |",
    "|---|---|",
    row(["what every page loads first, brotli", kib(first)]),
    row(["the editor, loaded after the page", kib(editor)]),
    row(["everything, brotli", kib(everything)]),
    ...figures.completion.map(([how, text]) =>
      row([`completion among ${names.toLocaleString("en")} names, ${how}`, text]),
    ),
    ...figures.notes.map((cells) => row(cells)),
    "",
    "A keystroke counts from the key until a frame shows a list whose first name holds what is typed; the editor waits",
    "100 ms after a key before it asks.",
    "",
  ].join("\n");
}
