// One query panel: editor, tabs, and what the server said.
import { useEffect, useRef, useState } from "preact/hooks";
import { Editor } from "../editor/Editor";
import { ApiError, call, explainError } from "../lib/api";
import { completionOn, remember } from "../lib/prefs";
import { Icon } from "../ui/icons";
import { lazy } from "../ui/lazy";
import { Menu, Segments } from "../ui/parts";
import { GraphTab } from "./GraphTab";
import type { Panel, Tab } from "./state";

const PastQueries = lazy(() => import("./PastQueries").then((m) => m.PastQueries));
const TableTab = lazy(() => import("./TableTab").then((m) => m.TableTab));
const ExplainTab = lazy(() => import("./ExplainTab").then((m) => m.ExplainTab));
const RawTab = lazy(() => import("./RawTab").then((m) => m.RawTab));
const StatsTab = lazy(() => import("./StatsTab").then((m) => m.StatsTab));

export interface PanelProps {
  index: number;
  panel: Panel;
  refresh: number;
  only: boolean;
  onChange: (part: Partial<Panel>) => void;
  onRemove: () => void;
  onDuplicate: () => void;
}

/** What every tab gets. `turn` grows with each press of Run, so that an unchanged query runs again. */
export interface TabProps {
  panel: Panel;
  turn: number;
  refresh: number;
  onChange: (part: Partial<Panel>) => void;
  onFail: (error: ApiError | null) => void;
  failed: boolean;
}

export function PanelView(props: PanelProps) {
  const { panel } = props;
  const [draft, setTyped] = useState(panel.expr);
  // Grows when the text comes from elsewhere than the editor: only then may it be written into the editor, else a
  // late draw would undo what was typed meanwhile.
  const [revision, setRevision] = useState(0);
  const setDraft = (text: string) => {
    setTyped(text);
    setRevision((r) => r + 1);
  };
  const [turn, setTurn] = useState(0);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [past, setPast] = useState(false);
  const root = useRef<HTMLElement>(null);

  useEffect(() => setDraft(panel.expr), [panel.expr]);

  function run(text: string) {
    const expr = text.trim();
    remember(expr);
    setTurn((t) => t + 1);
    setFailure(null);
    if (expr !== panel.expr) props.onChange({ expr });
    else setDraft(expr);
  }

  function closePast() {
    setPast(false);
    root.current?.querySelector<HTMLElement>(".cm-content, textarea")?.focus();
  }

  async function format() {
    try {
      const answer = await call<string>("format_query", { query: draft });
      setDraft(answer.data);
      setFailure(null);
    } catch (error) {
      setFailure(error instanceof ApiError ? error : new ApiError("internal", explainError(error), 0));
    }
  }

  const tab: TabProps = {
    panel,
    turn,
    refresh: props.refresh,
    onChange: props.onChange,
    onFail: setFailure,
    failed: failure !== null,
  };
  const name = `Query ${props.index + 1}`;
  return (
    <section class="panel" ref={root} aria-label={name}>
      <div class="editor-row">
        <Editor
          value={draft}
          label={`${name}, PromQL expression`}
          revision={revision}
          onChange={setTyped}
          onRun={run}
          mark={failure && draft.trim() === panel.expr ? failure.place : undefined}
          autofocus={props.index === 0 && panel.expr === ""}
        />
        <button type="button" class="btn primary" onClick={() => run(draft)}>
          Run
        </button>
        <Menu
          label="More actions"
          icon="more"
          items={[
            ["Format the expression", format],
            ["History…", () => setPast(true)],
            ["Duplicate this panel", props.onDuplicate],
            [
              completionOn.value ? "Switch completion off" : "Switch completion on",
              () => {
                completionOn.value = !completionOn.value;
              },
            ],
            ...(props.only ? [] : [["Remove this panel", props.onRemove] as [string, () => void]]),
          ]}
        />
      </div>
      {failure && <QueryError error={failure} expr={panel.expr || draft} />}
      {past && (
        <PastQueries
          onPick={(q) => {
            closePast();
            setDraft(q);
          }}
          onClose={closePast}
        />
      )}
      <div class="tabs-row">
        <Segments<Tab>
          label="Result as"
          value={panel.tab}
          options={[
            ["graph", "Graph"],
            ["table", "Table"],
            ["explain", "Explain"],
            ["raw", "Raw"],
            ["stats", "Stats"],
          ]}
          onChange={(t) => props.onChange({ tab: t })}
        />
      </div>
      {panel.tab === "graph" ? (
        <GraphTab {...tab} />
      ) : panel.tab === "table" ? (
        <TableTab {...tab} />
      ) : panel.tab === "raw" ? (
        <RawTab {...tab} />
      ) : panel.tab === "stats" ? (
        <StatsTab {...tab} />
      ) : (
        <ExplainTab {...tab} />
      )}
    </section>
  );
}

/** The server's complaint, with the place in the query marked when it named one. */
export function QueryError({ error, expr }: { error: ApiError; expr: string }) {
  const at = error.place;
  const line = at ? expr.split("\n")[at.line - 1] : undefined;
  const text = error.message
    .replace(/^invalid parameter "query": /, "")
    .replace(/^\d+:\d+: parse error: /, "");
  return (
    <div class="notice bad" role="alert">
      <Icon name="warn" />
      <div>
        <b>{HEADLINES[error.kind] ?? "The query failed"}:</b> <bdi>{text}</bdi>
        {at && line !== undefined && (
          <pre class="pointer">
            {line}
            {"\n"}
            {" ".repeat(Math.max(0, Math.min(at.column - 1, line.length)))}^
          </pre>
        )}
      </div>
    </div>
  );
}

const HEADLINES: Record<string, string> = {
  bad_data: "This is no valid query",
  execution: "The query could not be evaluated",
  timeout: "The query took too long",
  canceled: "The query was cancelled",
  unavailable: "The server cannot answer now",
  unreachable: "No answer",
  starting: "Not ready",
};
