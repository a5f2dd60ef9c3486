// Writes a .br and a .gz beside every text file of the bundle, and fails when the first load grows past its budget.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const dist = fileURLToPath(new URL("../dist", import.meta.url));
const FIRST_LOAD_BUDGET = 60 * 1024;

function files(dir) {
  return readdirSync(dir)
    .sort()
    .flatMap((name) => {
      const path = join(dir, name);
      return statSync(path).isDirectory() ? files(path) : [path];
    });
}

const sizes = new Map();
for (const path of files(dist)) {
  if (!/\.(html|js|css|svg|txt)$/.test(path)) continue;
  const raw = readFileSync(path);
  const br = brotliCompressSync(raw, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length },
  });
  const gz = gzipSync(raw, { level: 9 });
  gz[9] = 255; // the operating-system byte of the header would make the file differ between machines
  const name = relative(dist, path);
  sizes.set(name, { raw: raw.length, gz: gz.length, br: br.length });
  if (name !== "index.html") {
    writeFileSync(`${path}.br`, br);
    writeFileSync(`${path}.gz`, gz);
  }
}

const html = readFileSync(join(dist, "index.html"), "utf8");
let first = 0;
for (const [name, size] of sizes) {
  const initial = name === "index.html" || html.includes(name);
  if (initial) first += size.br;
  console.log(
    `${initial ? "*" : " "} ${name.padEnd(44)} ${String(size.raw).padStart(8)} ${String(size.gz).padStart(8)} gz ${String(size.br).padStart(8)} br`,
  );
}
console.log(`first load: ${first} bytes of brotli (budget ${FIRST_LOAD_BUDGET})`);
if (first > FIRST_LOAD_BUDGET) {
  console.error("the first load is over its budget: load something lazily");
  process.exit(1);
}
