// The error of a scrape with the offending line marked.
import { visible } from "../lib/format";
import { readScrapeError } from "../lib/scrapeerror";
import { Icon } from "./icons";

export function ScrapeErrorBox({ text }: { text: string }) {
  const e = readScrapeError(text);
  const marked = e.line !== undefined && e.from !== undefined && e.to !== undefined;
  return (
    <div class="notice bad">
      <Icon name="warn" />
      <div class="scrape-error">
        <bdi>{visible(e.reason)}</bdi>
        {e.line !== undefined && (
          <pre class="bad-line">
            {e.number !== undefined && <span class="line-number">line {e.number}</span>}
            {marked ? (
              <>
                <bdi>{visible(e.line.slice(0, e.from))}</bdi>
                <mark>{visible(e.line.slice(e.from, e.to))}</mark>
                <bdi>{visible(e.line.slice(e.to))}</bdi>
              </>
            ) : (
              <bdi>{visible(e.line)}</bdi>
            )}
          </pre>
        )}
        {e.hint && <p class="hint-line">{e.hint}</p>}
      </div>
    </div>
  );
}
