// Runs a query for a panel: the newest question wins, older ones are aborted, the last answer stays until the next.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, explainError, isAbort } from "../lib/api";
import { live } from "../lib/prefs";

export interface Run<T> {
  value: T | undefined;
  busy: boolean;
  cancel: () => void;
}

/**
 * Calls `ask` whenever `key` changes, and every `seconds` while the page is visible and nothing is selected. An empty
 * key asks nothing and forgets the last answer.
 */
export function useQuery<T>(
  key: string,
  seconds: number,
  ask: (signal: AbortSignal) => Promise<T>,
  onFail: (error: ApiError | null) => void,
): Run<T> {
  const [value, setValue] = useState<T>();
  const [busy, setBusy] = useState(false);
  const current = useRef<AbortController | null>(null);
  const latest = useRef({ ask, onFail });
  latest.current = { ask, onFail };
  const lively = live.value;

  useEffect(() => {
    if (!key) {
      setValue(undefined);
      setBusy(false);
      return;
    }
    let stop = new AbortController();
    const start = () => {
      stop.abort();
      const mine = new AbortController();
      stop = mine;
      current.current = mine;
      setBusy(true);
      latest.current
        .ask(mine.signal)
        .then((v) => {
          if (mine.signal.aborted) return;
          setValue(v);
          latest.current.onFail(null);
        })
        .catch((error: unknown) => {
          if (mine.signal.aborted || isAbort(error)) return;
          setValue(undefined);
          latest.current.onFail(
            error instanceof ApiError ? error : new ApiError("internal", explainError(error), 0),
          );
        })
        .finally(() => {
          if (current.current === mine) setBusy(false);
        });
    };
    start();
    const timer =
      seconds > 0 && lively
        ? setInterval(() => {
            if (!document.hidden && getSelection()?.isCollapsed !== false) start();
          }, seconds * 1000)
        : undefined;
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [key, seconds, lively]);

  return {
    value,
    busy,
    cancel: () => {
      current.current?.abort();
      setBusy(false);
    },
  };
}
