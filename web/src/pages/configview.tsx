// The running configuration, highlighted, and what a reload would change.
import { useMemo } from "preact/hooks";
import { type DiffLine, diffLines, folded } from "../lib/diff";
import { visible } from "../lib/format";
import { useResource } from "../lib/resource";
import { param, setParams } from "../lib/router";
import { CopyButton, download, FilterBox, Pending, Segments } from "../ui/parts";

type View = "running" | "diff";

export function ConfigView() {
  const res = useResource<{ yaml: string }>("status/config", {}, 30);
  const disk = useResource<{ yaml?: string; error?: string }>("status/config/disk", {}, 30);
  const part = (param("part") || "running") as View;
  const search = param("search").toLowerCase();
  const lines = useMemo(
    () => (res.data && disk.data?.yaml !== undefined ? diffLines(res.data.yaml, disk.data.yaml) : undefined),
    [res.data, disk.data],
  );
  if (!res.data) return <Pending resource={res} />;
  const yaml = res.data.yaml;
  const changed = lines?.filter((l) => l.kind !== "same").length ?? 0;
  return (
    <>
      <div class="controls">
        <Segments<View>
          label="Shown"
          value={part}
          options={[
            ["running", "Running"],
            [
              "diff",
              disk.data?.error
                ? "File is not valid"
                : changed
                  ? `Changes in the file ${changed}`
                  : "Same as the file",
            ],
          ]}
          onChange={(v) => setParams({ part: v === "running" ? "" : v })}
        />
        {part === "running" && (
          <FilterBox value={param("search")} label="Find in it" onChange={(v) => setParams({ search: v })} />
        )}
        <CopyButton text={yaml} />
        <button type="button" class="btn small" onClick={() => download("prometheus.yml", yaml, "text/yaml")}>
          Download
        </button>
        <span class="muted">Defaults filled in, secrets hidden.</span>
      </div>
      {part === "diff" ? (
        disk.data?.error ? (
          <div class="notice bad">
            <pre>{disk.data.error.split("\n").map(visible).join("\n")}</pre>
          </div>
        ) : !lines ? (
          <Pending resource={disk} />
        ) : changed ? (
          <Diff lines={lines} />
        ) : (
          <div class="empty">The file on disk says what is running: a reload would change nothing.</div>
        )
      ) : (
        <pre class="code-block tall" tabIndex={0}>
          {yaml.split("\n").map((line, i) => (
            <YamlLine key={i} line={line} hit={search !== "" && line.toLowerCase().includes(search)} />
          ))}
        </pre>
      )}
    </>
  );
}

function Diff({ lines }: { lines: DiffLine[] }) {
  return (
    <>
      <p class="muted">
        Red lines run now, green lines stand in the file and take effect with the next reload.
      </p>
      <pre class="code-block tall" tabIndex={0}>
        {folded(lines).map((l, i) =>
          l.kind === "fold" ? (
            <span class="fold" key={i}>
              {`… ${l.count} equal lines\n`}
            </span>
          ) : (
            <span class={`diff ${l.kind}`} key={i}>
              {l.kind === "gone" ? "− " : l.kind === "new" ? "+ " : "  "}
              {visible(l.text)}
              {"\n"}
            </span>
          ),
        )}
      </pre>
    </>
  );
}

const LINE = /^(\s*(?:- )*)("(?:[^"\\]|\\.)*"|[\w./$-]+)(:)(\s.*|)$/;

/** One line with its key, string, number or comment told apart. */
function YamlLine({ line, hit }: { line: string; hit: boolean }) {
  const m = LINE.exec(line);
  const value = (text: string) => {
    const t = text.trim();
    const kind = t.startsWith("#")
      ? "y-note"
      : /^(true|false|null|~)$/.test(t) || /^-?[\d.]+(ms|[smhdwy]|[KMG]i?B)?$/.test(t)
        ? "y-number"
        : t === "<secret>"
          ? "y-note"
          : "y-text";
    return <span class={kind}>{visible(text)}</span>;
  };
  return (
    <span class={hit ? "hit" : ""}>
      {m ? (
        <>
          {m[1]}
          <span class="y-key">{visible(m[2]!)}</span>
          {m[3]}
          {value(m[4]!)}
        </>
      ) : (
        value(line)
      )}
      {"\n"}
    </span>
  );
}
