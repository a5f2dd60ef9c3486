// Data of a page: asked at once, asked again while the page is looked at, the old answer kept until the new one is there.
import { useEffect, useState } from "preact/hooks";
import { type Answer, ApiError, call, explainError, isAbort, type Params } from "./api";
import { live } from "./prefs";

export interface Resource<T> {
  data: T | undefined;
  error: string;
  status: number;
  /** Milliseconds since the epoch of the newest answer; 0 before the first. */
  at: number;
  reload: () => void;
}

/** A refresh would take the text away under the reader's selection. */
function isSelecting(): boolean {
  const s = document.getSelection();
  return s !== null && !s.isCollapsed && s.toString() !== "";
}

/**
 * Calls `path` and repeats it every `seconds` (0: never) while the page is visible, live updates are on and no text is
 * selected. An empty path asks nothing.
 */
export function useResource<T>(path: string, params: Params = {}, seconds = 0): Resource<T> {
  const [answer, setAnswer] = useState<{ key: string; data: T; at: number }>();
  const [failure, setFailure] = useState<{ text: string; status: number }>();
  const [turn, setTurn] = useState(0);
  const key = `${path}?${JSON.stringify(params)}`;
  const lively = live.value;
  useEffect(() => {
    if (!path) return;
    const stop = new AbortController();
    let busy = false;
    const ask = () => {
      if (busy) return;
      busy = true;
      call<T>(path, params, stop.signal)
        .then((a: Answer<T>) => {
          setAnswer({ key, data: a.data, at: Date.now() });
          setFailure(undefined);
        })
        .catch((error: unknown) => {
          if (!isAbort(error))
            setFailure({ text: explainError(error), status: error instanceof ApiError ? error.status : 0 });
        })
        .finally(() => {
          busy = false;
        });
    };
    ask();
    const timer =
      seconds > 0 && lively
        ? setInterval(() => {
            if (!document.hidden && !isSelecting()) ask();
          }, seconds * 1000)
        : undefined;
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [key, seconds, turn, lively]);
  const fresh = answer && answer.key === key ? answer : undefined;
  return {
    data: fresh?.data,
    error: failure?.text ?? "",
    status: failure?.status ?? 200,
    at: fresh?.at ?? 0,
    reload: () => setTurn((t) => t + 1),
  };
}
