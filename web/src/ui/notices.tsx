// What the server wants everybody to know: a failed reload, a start or a stop in progress.
import { useEffect, useState } from "preact/hooks";
import { call, isAbort } from "../lib/api";
import { visible } from "../lib/format";
import type { Notification } from "../lib/types";
import { Icon } from "./icons";

const EVERY_MS = 15_000;

export function Notices() {
  const [all, setAll] = useState<Notification[]>([]);
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const ask = () => {
      call<Notification[]>("notifications", {}, stop.signal).then(
        ({ data }) => {
          setAll(data ?? []);
          timer = window.setTimeout(ask, EVERY_MS);
        },
        (e: unknown) => {
          // Servers without this call are not asked again; a silent one is.
          if (!isAbort(e) && (e as { status?: number }).status !== 404)
            timer = window.setTimeout(ask, EVERY_MS);
        },
      );
    };
    ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, []);
  const keyOf = (n: Notification) => `${n.date}${n.text}`;
  const shown = all.filter((n) => n.active && !closed.has(keyOf(n)));
  return (
    <>
      {shown.map((n) => (
        <div class="notice warn" role="alert" key={keyOf(n)}>
          <Icon name="bell" />
          <bdi class="grow">{visible(n.text)}</bdi>
          <button type="button" class="link" onClick={() => setClosed(new Set([...closed, keyOf(n)]))}>
            Hide
          </button>
        </div>
      ))}
    </>
  );
}
