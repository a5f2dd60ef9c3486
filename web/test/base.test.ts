import { describe, expect, it } from "vitest";
import { basePath, pathWithin, urlOf } from "../src/lib/base";

const at = (url: string) =>
  (window as unknown as { happyDOM: { setURL(u: string): void } }).happyDOM.setURL(url);

describe("the mount point", () => {
  it.each([
    ["http://h/", "/"],
    ["http://h/query?g0.expr=a/b", "/"],
    ["http://h/some/prefix/", "/some/prefix/"],
    ["http://h/some/prefix/targets", "/some/prefix/"],
  ])("of %s is %s", (url, path) => {
    at(url);
    expect(basePath()).toBe(path);
  });
  it("carries addresses in and out", () => {
    at("http://h/p/query");
    expect(urlOf("targets?x=1")).toBe("/p/targets?x=1");
    expect(urlOf("/alerts")).toBe("/p/alerts");
    expect(pathWithin("/p/rules")).toBe("rules");
    expect(pathWithin("/other/rules")).toBeNull();
  });
});
