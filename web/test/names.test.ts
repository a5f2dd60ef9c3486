import { CompletionContext } from "@codemirror/autocomplete";
import { EditorState } from "@codemirror/state";
import { afterEach, describe, expect, it, vi } from "vitest";
import { asking, MetricNames } from "../src/editor/names";

/** A server with a million metrics and as many pods; answers as many as it is asked for. */
function server(asked: string[]) {
  vi.stubGlobal("fetch", (address: string) => {
    const url = new URL(address, "http://x");
    asked.push(`${url.pathname.replace(/^.*api\/v1\//, "")} ${url.searchParams.get("match[]") ?? ""}`.trim());
    const limit = Number(url.searchParams.get("limit"));
    const few = /rare/.test(url.search);
    const data = url.pathname.endsWith("/values")
      ? Array.from({ length: few ? 3 : limit }, (_, i) => `${few ? "rare" : "m"}_${i}`)
      : {};
    return Promise.resolve(new Response(JSON.stringify({ status: "success", data })));
  });
}

const UP = { name: "__name__", value: "up", matchesEmpty: () => false, type: undefined };

/** Completes at the end of a text: label values behind a quote, metric names elsewhere. */
async function complete(text: string) {
  const names = new MetricNames(() => true);
  const ask = () => (text.includes('"') ? names.labelValues("pod", "", [UP]) : names.metricNames(text));
  const strategy = asking(names, {
    promQL: async () => ({
      from: 0,
      options: (await ask()).map((label) => ({ label, type: "constant" })),
      validFor: /^\w+$/,
    }),
  });
  return strategy.promQL(new CompletionContext(EditorState.create({ doc: text }), text.length, false));
}

describe("completion with more names than a list holds", () => {
  afterEach(() => vi.unstubAllGlobals());

  it("asks again with the next letter, until all that fit are there", async () => {
    const asked: string[] = [];
    server(asked);
    expect((await complete("m_"))?.validFor).toBeUndefined();
    // Those that begin so fill the list: no need to look through all names.
    expect(asked.filter((a) => a.startsWith("label"))).toEqual(['label/__name__/values {__name__=~"m_.*"}']);
    expect((await complete("rare"))?.validFor).toBeDefined();
    expect(asked.at(-1)).toBe('label/__name__/values {__name__=~"(?i).*rare.*"}');
  });
  it("looks for label values by what is typed", async () => {
    const asked: string[] = [];
    server(asked);
    const result = await complete('up{pod="rare.a');
    expect(asked.at(-1)).toBe('label/pod/values {__name__="up",pod=~"(?i).*rare\\\\.a.*"}');
    expect(result?.options.map((o) => o.label)).toContain("rare_2");
    expect(result?.validFor).toBeUndefined();
  });
  it("keeps the order of the server among equals", async () => {
    server([]);
    const options = (await complete("rare"))!.options.filter((o) => o.label.startsWith("rare_"));
    expect(options.map((o) => o.boost!)).toEqual(options.map((o) => o.boost!).sort((a, b) => b - a));
    expect(options[0]!.boost).toBeGreaterThan(options[2]!.boost!);
  });
});
