// A line while a query runs; when it takes longer than a moment, how long already and a way to stop it.
import { useEffect, useState } from "preact/hooks";
import type { Run } from "./useQuery";

const MOMENT_MS = 1000;

export function Busy({ run }: { run: Run<unknown> }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    setSeconds(0);
    if (!run.busy) return;
    const began = Date.now();
    const timer = setInterval(() => setSeconds(Math.floor((Date.now() - began) / 1000)), MOMENT_MS);
    return () => clearInterval(timer);
  }, [run.busy]);
  return (
    <>
      <div class={`busy-line${run.busy ? " on" : ""}`} />
      {run.busy && seconds > 0 && (
        <p class="row running" role="status">
          Running for {seconds} s
          <button type="button" class="btn small" onClick={run.cancel}>
            Stop
          </button>
        </p>
      )}
    </>
  );
}
