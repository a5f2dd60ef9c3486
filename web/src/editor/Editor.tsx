// The query editor: a plain textarea that works at once, replaced in place by CodeMirror when that has arrived.
import { useEffect, useRef, useState } from "preact/hooks";
import { completionOn, history, isDark } from "../lib/prefs";
import type { CodeEditor } from "./codemirror";

export interface EditorProps {
  value: string;
  /** Grows whenever `value` was changed from outside of the editor. */
  revision: number;
  label: string;
  onChange: (text: string) => void;
  onRun: (text: string) => void;
  /** Place in the text (1-based) that the server complained about. */
  mark?: { line: number; column: number } | undefined;
  autofocus?: boolean;
}

export function Editor(props: EditorProps) {
  const host = useRef<HTMLDivElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  const code = useRef<CodeEditor | null>(null);
  const [rich, setRich] = useState(false);
  const latest = useRef(props);
  latest.current = props;
  // Place in the history while stepping through it, and the text that was there before.
  const step = useRef<{ at: number; draft: string }>({ at: -1, draft: "" });

  function recall(by: number): string | null {
    const past = history.value;
    const s = step.current;
    if (s.at < 0) s.draft = latest.current.value;
    const at = Math.max(-1, Math.min(past.length - 1, s.at + by));
    if (at === s.at) return null;
    s.at = at;
    return at < 0 ? s.draft : past[at]!;
  }

  useEffect(() => {
    let gone = false;
    import("./codemirror").then(
      ({ createEditor }) => {
        if (gone || !host.current) return;
        const t = area.current;
        const focused = t !== null && document.activeElement === t;
        code.current = createEditor(host.current, {
          value: latest.current.value,
          label: latest.current.label,
          dark: isDark(),
          complete: () => completionOn.value,
          onChange: (text) => latest.current.onChange(text),
          onRun: (text) => {
            step.current.at = -1;
            latest.current.onRun(text);
          },
          recall,
        });
        if (focused) code.current.focus(t.selectionStart, t.selectionEnd);
        setRich(true);
      },
      () => {
        // Without the editor chunk the textarea goes on working.
      },
    );
    return () => {
      gone = true;
      code.current?.destroy();
      code.current = null;
    };
  }, []);

  useEffect(() => {
    code.current?.set(props.value);
  }, [props.revision, rich]);
  useEffect(() => {
    code.current?.mark(props.mark);
  }, [props.mark?.line, props.mark?.column, rich]);
  const dark = isDark();
  useEffect(() => {
    code.current?.setDark(dark);
  }, [dark, rich]);
  useEffect(() => {
    if (props.autofocus) area.current?.focus();
  }, []);

  return (
    <div class="editor" ref={host}>
      {!rich && (
        <textarea
          ref={area}
          class="expr"
          rows={Math.max(1, props.value.split("\n").length)}
          value={props.value}
          placeholder="Type a PromQL expression"
          aria-label={props.label}
          spellcheck={false}
          autocapitalize="off"
          autocomplete="off"
          onInput={(e) => props.onChange(e.currentTarget.value)}
          onKeyDown={(e) => {
            if (e.key === "Enter" && !e.shiftKey) {
              e.preventDefault();
              step.current.at = -1;
              props.onRun(e.currentTarget.value);
            }
            if ((e.key === "ArrowUp" || e.key === "ArrowDown") && e.ctrlKey) {
              const text = recall(e.key === "ArrowUp" ? 1 : -1);
              if (text !== null) props.onChange(text);
              e.preventDefault();
            }
          }}
        />
      )}
    </div>
  );
}
