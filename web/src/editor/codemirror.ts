// CodeMirror with PromQL: highlighting, linting, completion. This file and what it imports form their own chunk.
import {
  acceptCompletion,
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, insertNewlineAndIndent } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap } from "@codemirror/lint";
import { Compartment, EditorState, Prec, StateEffect, StateField } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  drawSelection,
  EditorView,
  keymap,
  placeholder,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { newCompleteStrategy, PromQLExtension } from "@prometheus-io/codemirror-promql";
import { asking, MetricNames } from "./names";

export interface CodeEditor {
  set(text: string): void;
  mark(place: { line: number; column: number } | undefined): void;
  setDark(dark: boolean): void;
  focus(from: number, to: number): void;
  destroy(): void;
}

export interface CodeEditorOptions {
  value: string;
  label: string;
  dark: boolean;
  complete: () => boolean;
  onChange: (text: string) => void;
  onRun: (text: string) => void;
  /** An earlier (1) or later (-1) query; null at either end. */
  recall: (by: number) => string | null;
}

const style = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--syn-keyword)" },
  { tag: tags.operatorKeyword, color: "var(--syn-keyword)" },
  { tag: tags.modifier, color: "var(--syn-keyword)" },
  { tag: tags.function(tags.variableName), color: "var(--syn-function)" },
  { tag: tags.standard(tags.variableName), color: "var(--syn-function)" },
  { tag: tags.special(tags.variableName), color: "var(--syn-function)" },
  { tag: tags.string, color: "var(--syn-string)" },
  { tag: tags.number, color: "var(--syn-number)" },
  { tag: tags.labelName, color: "var(--syn-label)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

const setMark = StateEffect.define<number | null>();
const marked = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(set, tr) {
    if (tr.docChanged) return Decoration.none;
    for (const e of tr.effects) {
      if (!e.is(setMark)) continue;
      if (e.value === null || tr.state.doc.length === 0) return Decoration.none;
      const from = Math.min(e.value, tr.state.doc.length - 1);
      const rest = /^[\w:]+/.exec(tr.state.sliceDoc(from, from + 200));
      const to = Math.min(tr.state.doc.length, from + Math.max(1, rest?.[0].length ?? 1));
      return Decoration.set(Decoration.mark({ class: "cm-server-error" }).range(from, to));
    }
    return set;
  },
  provide: (f) => EditorView.decorations.from(f),
});

export function createEditor(parent: HTMLElement, options: CodeEditorOptions): CodeEditor {
  const look = new Compartment();
  const darkness = (dark: boolean) => EditorView.theme({}, { dark });
  const names = new MetricNames(options.complete);
  const promql = new PromQLExtension().setComplete({
    completeStrategy: asking(names, newCompleteStrategy({ remote: names })),
  });
  const replace = (view: EditorView, text: string) => {
    view.dispatch({
      changes: { from: 0, to: view.state.doc.length, insert: text },
      selection: { anchor: text.length },
    });
  };
  const recall = (by: number) => (view: EditorView) => {
    const text = options.recall(by);
    if (text !== null) replace(view, text);
    return true;
  };
  const run = (view: EditorView) => {
    options.onRun(view.state.doc.toString());
    return true;
  };
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: options.value,
      extensions: [
        // Enter runs what is typed, whatever the completion list shows; Tab takes the list's choice.
        Prec.highest(
          keymap.of([
            { key: "Enter", run },
            { key: "Mod-Enter", run },
            { key: "Shift-Enter", run: insertNewlineAndIndent },
            { key: "Ctrl-ArrowUp", run: recall(1) },
            { key: "Ctrl-ArrowDown", run: recall(-1) },
          ]),
        ),
        history(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        autocompletion({ closeOnBlur: true, maxRenderedOptions: 60, activateOnTyping: true }),
        keymap.of([
          { key: "Tab", run: acceptCompletion },
          ...closeBracketsKeymap,
          ...completionKeymap,
          ...lintKeymap,
          ...historyKeymap,
          ...defaultKeymap,
        ]),
        EditorView.lineWrapping,
        placeholder("Type a PromQL expression"),
        syntaxHighlighting(style),
        marked,
        look.of(darkness(options.dark)),
        promql.asExtension(),
        EditorView.contentAttributes.of({ "aria-label": options.label, spellcheck: "false" }),
        EditorView.updateListener.of((u) => {
          if (u.docChanged) options.onChange(u.state.doc.toString());
        }),
      ],
    }),
  });
  return {
    set(text) {
      if (text !== view.state.doc.toString()) replace(view, text);
    },
    mark(place) {
      let at: number | null = null;
      if (place && place.line >= 1 && place.line <= view.state.doc.lines) {
        const line = view.state.doc.line(place.line);
        at = Math.min(line.from + Math.max(0, place.column - 1), line.to);
      }
      view.dispatch({ effects: setMark.of(at) });
    },
    setDark(dark) {
      view.dispatch({ effects: look.reconfigure(darkness(dark)) });
    },
    focus(from, to) {
      view.focus();
      view.dispatch({ selection: { anchor: from, head: to } });
    },
    destroy() {
      view.destroy();
    },
  };
}
