// What the server wants everybody to know: a failed reload, a start or a stop in progress. It comes as server-sent
// events while the page is looked at; where those do not pass, the server is asked now and then.
import { useEffect, useState } from "preact/hooks";
import { call, isAbort } from "../lib/api";
import { urlOf } from "../lib/base";
import { visible } from "../lib/format";
import type { Notification } from "../lib/types";
import { Icon } from "./icons";

const EVERY_MS = 15_000;

/** The list after an event: what is over leaves it, what is new joins it. */
export function afterEvent(all: Notification[], event: Notification): Notification[] {
  const rest = all.filter((n) => n.text !== event.text);
  return event.active ? [...rest, event] : rest;
}

/** Calls `set` with the notifications now and whenever they change; returns what ends that. */
function follow(set: (change: (all: Notification[]) => Notification[]) => void): () => void {
  const stop = new AbortController();
  let timer = 0;
  const poll = () => {
    call<Notification[]>("notifications", {}, stop.signal).then(
      ({ data }) => {
        set(() => data ?? []);
        timer = window.setTimeout(poll, EVERY_MS);
      },
      (e: unknown) => {
        // Servers without this call are not asked again; a silent one is.
        if (!isAbort(e) && (e as { status?: number }).status !== 404)
          timer = window.setTimeout(poll, EVERY_MS);
      },
    );
  };
  const events = new EventSource(urlOf("api/v1/notifications/live"));
  // The server begins each stream with all that holds.
  events.onopen = () => set(() => []);
  events.onmessage = (e: MessageEvent<string>) => {
    try {
      const one = JSON.parse(e.data) as Notification;
      set((all) => afterEvent(all, one));
    } catch {
      // An event in a format of the future is no reason to lose the others.
    }
  };
  events.onerror = () => {
    // While it reconnects by itself nothing is to be done. Closed for good: too many readers, or no such call.
    if (events.readyState === EventSource.CLOSED) poll();
  };
  return () => {
    stop.abort();
    clearTimeout(timer);
    events.close();
  };
}

export function Notices() {
  const [all, setAll] = useState<Notification[]>([]);
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => {
    // Browsers allow few connections to a server: a hidden page gives its own back.
    let end: (() => void) | undefined;
    const update = () => {
      if (document.hidden) {
        end?.();
        end = undefined;
      } else end ??= follow(setAll);
    };
    update();
    document.addEventListener("visibilitychange", update);
    return () => {
      document.removeEventListener("visibilitychange", update);
      end?.();
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
