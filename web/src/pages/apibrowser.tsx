// The HTTP API to look at and to try, from the document that the server describes it with.
import { useEffect, useState } from "preact/hooks";
import { explainError } from "../lib/api";
import { fullUrl, urlOf } from "../lib/base";
import { bytes, visible } from "../lib/format";
import { type Operation, readOpenApi } from "../lib/openapi";
import { param, setParams } from "../lib/router";
import { humanDuration } from "../lib/time";
import { CopyButton, FilterBox } from "../ui/parts";

const LONGEST_SHOWN = 200_000;
const LARGEST_READ = 8 << 20;

export function ApiBrowser() {
  const [all, setAll] = useState<Call[]>();
  const [error, setError] = useState("");
  const search = param("search").toLowerCase();
  const open = param("call");
  useEffect(() => {
    const stop = new AbortController();
    fetch(urlOf("api/v1/openapi.yaml"), { signal: stop.signal })
      .then((r) => (r.ok ? r.text() : Promise.reject(new Error(`status ${r.status}`))))
      .then((text) => setAll(byPath(readOpenApi(text))))
      .catch((e: unknown) => {
        if (!stop.signal.aborted) setError(explainError(e));
      });
    return () => stop.abort();
  }, []);
  if (error) return <div class="notice bad">The description of the API could not be read: {error}</div>;
  if (!all) return <div class="placeholder" />;
  const shown = all.filter((o) => `${o.path} ${o.summary}`.toLowerCase().includes(search));
  return (
    <>
      <div class="controls">
        <FilterBox value={param("search")} label="Filter calls" onChange={(v) => setParams({ search: v })} />
        <span class="muted">
          {shown.length} of {all.length} calls, from{" "}
          <a href={urlOf("api/v1/openapi.yaml")} target="_blank" rel="noreferrer">
            openapi.yaml
          </a>
        </span>
      </div>
      <ul class="calls">
        {shown.map((o) => {
          const key = o.path;
          return (
            <li key={key}>
              <button
                type="button"
                class="call"
                aria-expanded={open === key}
                onClick={() => setParams({ call: open === key ? "" : key })}
              >
                <span class={`method ${o.method}`}>{o.methods.join(" ").toUpperCase()}</span>
                <span class="mono">{visible(o.path)}</span>
                <span class="muted">{visible(o.summary)}</span>
              </button>
              {open === key && <Try operation={o} />}
            </li>
          );
        })}
      </ul>
    </>
  );
}

interface Call extends Operation {
  methods: string[];
}

/** A row for each path, reading before writing. */
function byPath(all: Operation[]): Call[] {
  const out = new Map<string, Call>();
  for (const o of all) {
    const known = out.get(o.path);
    if (!known) out.set(o.path, { ...o, methods: [o.method] });
    else {
      known.methods.push(o.method);
      if (o.method === "get") Object.assign(known, o);
    }
  }
  return [...out.values()];
}

interface Reply {
  status: number;
  text: string;
  size: number;
  took: number;
}

function Try({ operation: o }: { operation: Operation }) {
  const [values, setValues] = useState<Record<string, string>>({});
  const [more, setMore] = useState("");
  const [reply, setReply] = useState<Reply>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const inPath = [...o.path.matchAll(/\{([^}]+)\}/g)].map((m) => m[1]!);
  const query = new URLSearchParams(more);
  for (const p of o.parameters) if (p.in === "query" && values[p.name]) query.append(p.name, values[p.name]!);
  const path = inPath.reduce(
    (text, name) => text.replace(`{${name}}`, encodeURIComponent(values[name] ?? "")),
    o.path,
  );
  const address = `${path.replace(/^\//, "")}${query.toString() ? `?${query}` : ""}`;
  const curl = `curl -s ${o.method === "get" ? "" : `-X ${o.method.toUpperCase()} `}'${fullUrl(address).replace(/'/g, "'\\''")}'`;
  // Streams never end; what changes something is left to the command line.
  const harmless = o.method === "get" && !/live$/.test(o.path);

  async function send(e: Event) {
    e.preventDefault();
    setBusy(true);
    setError("");
    const began = performance.now();
    try {
      const response = await fetch(urlOf(address), { cache: "no-store" });
      const body = (await response.text()).slice(0, LARGEST_READ);
      let text = body;
      try {
        text = JSON.stringify(JSON.parse(body), null, 2);
      } catch {
        // Shown as it is.
      }
      setReply({ status: response.status, text, size: body.length, took: performance.now() - began });
    } catch (e) {
      setError(explainError(e));
    } finally {
      setBusy(false);
    }
  }

  const field = (name: string, note: string, required: boolean) => (
    <label class="api-field" key={name}>
      <span class="mono">
        {visible(name)}
        {required && " *"}
      </span>
      <input
        class="field mono"
        value={values[name] ?? ""}
        spellcheck={false}
        autocomplete="off"
        onInput={(e) => setValues({ ...values, [name]: e.currentTarget.value })}
      />
      {note && <span class="muted">{visible(note)}</span>}
    </label>
  );
  return (
    <form class="try" onSubmit={send}>
      {inPath.map((name) => field(name, "part of the path", true))}
      {o.parameters.filter((p) => p.in === "query").map((p) => field(p.name, p.description, p.required))}
      <label class="api-field">
        <span>other parameters</span>
        <input
          class="field mono"
          placeholder="query=up&time=…"
          value={more}
          spellcheck={false}
          autocomplete="off"
          onInput={(e) => setMore(e.currentTarget.value)}
        />
      </label>
      <p class="row">
        {harmless && (
          <button type="submit" class="btn primary" disabled={busy}>
            Send
          </button>
        )}
        <CopyButton text={curl} label="Copy as curl" />
        <code class="grow curl">{curl}</code>
      </p>
      {error && <div class="notice bad">{error}</div>}
      {reply && (
        <>
          <p class="stats">
            <span class={reply.status < 400 ? "good-text" : "bad-text"}>status {reply.status}</span>
            <span>{bytes(reply.size)}</span>
            <span>{humanDuration(reply.took / 1000)}</span>
          </p>
          <pre class="code-block tall reply" tabIndex={0}>
            {reply.text.slice(0, LONGEST_SHOWN).split("\n").map(visible).join("\n")}
          </pre>
          {reply.text.length > LONGEST_SHOWN && <p class="muted">The rest is not shown.</p>}
        </>
      )}
    </form>
  );
}
