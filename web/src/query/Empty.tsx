// What stands where a result would be when there is none.
export function Empty(_props: { expr: string }) {
  return <div class="empty">The query is valid, but nothing matches it at this time.</div>;
}
