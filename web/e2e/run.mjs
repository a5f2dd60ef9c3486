// Browser tests. MEERKAT_URL names a running server, best started by scripts/browser-tests; with MEERKAT_PROXY=1 the
// bundle of web/dist is served from here (under a route prefix, with the production headers) and only the API comes
// from that server. An argument picks the tests whose name contains it; with a leading "!" those whose name does not.
import { api, runAll, until } from "./harness.mjs";
import "./query.mjs";
import "./alerting.mjs";
import "./scraping.mjs";
import "./manage.mjs";
import "./hostile.mjs";
import "./pages.mjs";
import "./scale.mjs";

// A young server: the first scrapes and evaluations must be in.
await until(
  "two scrapes of every target",
  async () => {
    const { result } = await api("query", { query: "min(count_over_time(up[5m]))" });
    return Number(result?.[0]?.value[1] ?? 0) >= 2;
  },
  60_000,
);
process.exit((await runAll(process.argv[2] ?? "")) ? 1 : 0);
