// The pages that are looked at, their addresses, and the sizes of screens.
export const SIZES = [
  [390, 844],
  [1280, 800],
  [1920, 1080],
];
export const MAIN = [
  "",
  "query",
  "explore",
  "alerts",
  "rules",
  "targets",
  "service-discovery",
  "cardinality",
  "storage",
  "status",
];

const EXPRESSIONS = {
  raw: "rate(shop_request_seconds_count[1m])",
  explain: "sum by (job) (rate(prometheus_http_requests_total[1m])) / on (job) group_left () (up * 2)",
  stats: "histogram_quantile(0.9, sum by (path, le) (rate(shop_request_seconds_bucket[30s])))",
  table: "rate(shop_request_seconds_count[30s])",
  native: "sum(rate(shop_native_seconds[30s]))",
  heatmap: "sum by (le) (rate(shop_request_seconds_bucket[30s]))",
};

/** The address of a page as the tests name it. */
export function address(path) {
  if (path === "query")
    return `query?g0.expr=${encodeURIComponent("sum by (job) (up)")}&g0.tab=graph&g0.range_input=5m`;
  const tab = /^query\?tab=(\w+)/.exec(path)?.[1];
  if (!tab) return path;
  const expr = encodeURIComponent(EXPRESSIONS[tab]);
  return `query?g0.expr=${expr}&g0.tab=${/heatmap|native/.test(tab) ? "graph" : tab}&g0.range_input=5m`;
}
