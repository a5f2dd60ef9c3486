// Scraped strings are hostile until shown as text.
import { render } from "preact";
import { beforeEach, describe, expect, it } from "vitest";
import { Annotations, ExprBlock } from "../src/pages/ruleparts";
import { DataTable } from "../src/ui/DataTable";
import { LabelChips, LabelRows, LabelText } from "../src/ui/labels";

const HOSTILE = [
  "<img src=x onerror=alert(1)>",
  "<script>alert(1)</script>",
  '"><svg onload=alert(1)>',
  "javascript:alert(1)",
  "\u202egnp.exe",
  "line\nbreak",
  "{{constructor.constructor('alert(1)')()}}",
  "&lt;b&gt;",
];
let host: HTMLElement;
beforeEach(() => {
  document.body.replaceChildren();
  host = document.createElement("div");
  document.body.append(host);
});

function expectTextOnly() {
  expect(host.querySelector("img,script,iframe,object,svg")).toBeNull();
  for (const el of host.querySelectorAll("*"))
    for (const attr of el.attributes) {
      expect(attr.name.startsWith("on")).toBe(false);
      if (attr.name === "href") expect(attr.value).toMatch(/^https?:/);
    }
}

describe.each(HOSTILE)("%j", (bad) => {
  const labels = { __name__: bad, job: bad, [bad]: bad };
  it("stays text in series and chips", () => {
    render(
      <div>
        <LabelText labels={labels} />
        <LabelChips labels={labels} />
        <LabelRows labels={labels} />
      </div>,
      host,
    );
    expectTextOnly();
    expect(host.textContent).not.toContain("\u202e");
    if (bad.startsWith("<img")) expect(host.textContent).toContain("<img src=x onerror=alert(1)>");
  });
  it("stays text in annotations and expressions, and becomes no link", () => {
    render(
      <div>
        <Annotations annotations={{ summary: bad, [bad]: bad, runbook: "https://example.com/a" }} />
        <ExprBlock expr={bad} />
      </div>,
      host,
    );
    for (const icon of host.querySelectorAll("svg.icon")) icon.remove();
    expectTextOnly();
    expect(host.querySelectorAll("a")).toHaveLength(1);
  });
  it("stays text in tables", () => {
    render(
      <DataTable
        label="x"
        rows={[bad]}
        rowKey={(r) => r}
        columns={[{ key: bad, title: bad, render: (r) => <bdi>{r}</bdi>, sort: (r) => r }]}
      />,
      host,
    );
    expectTextOnly();
  });
});
