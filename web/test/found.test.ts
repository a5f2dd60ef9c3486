// What is offered exists: examples of metrics that still have samples, families by the series they have.
import { afterEach, expect, it, vi } from "vitest";
import { withSamples } from "../src/lib/examples";
import { findSeries } from "../src/pages/explore";

afterEach(() => vi.unstubAllGlobals());

/** Answers each call with what `data` makes of its parameters. */
function server(data: (params: URLSearchParams) => unknown): void {
  vi.stubGlobal("fetch", (address: string, init?: RequestInit) => {
    const params = new URLSearchParams(String(init?.body ?? address.split("?")[1] ?? ""));
    return Promise.resolve(new Response(JSON.stringify({ status: "success", data: data(params) })));
  });
}

it("leaves out examples whose metric has ended, and asks about no other names", async () => {
  let asked = "";
  server((params) => {
    asked = params.get("query") ?? "";
    return { resultType: "vector", result: [{ metric: { __name__: "up" }, value: [0, "1"] }] };
  });
  const names = await withSamples(["http_requests_total", "mine_total", "up"], new AbortController().signal);
  expect(names).toEqual(["mine_total", "up"]);
  expect(asked).not.toContain("mine_total");
});

it("finds the buckets of a family without series of its own name", async () => {
  server((params) =>
    params.get("match[]")?.includes("seconds_bucket") ? [{ __name__: "seconds_bucket", le: "1" }] : [],
  );
  const found = await findSeries("seconds", new AbortController().signal);
  expect(found).toEqual({ name: "seconds_bucket", series: [{ __name__: "seconds_bucket", le: "1" }] });
  expect(await findSeries("nothing", new AbortController().signal)).toEqual({ name: "nothing", series: [] });
});
