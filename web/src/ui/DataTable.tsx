// A real table whose rows exist in the document only while they can be seen: ten thousand rows scroll as smoothly as ten.
import { Component, type ComponentChildren } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Column<T> {
  key: string;
  title: string;
  /** CSS width: a number of pixels, or undefined to share what is left. */
  width?: number | undefined;
  render: (row: T) => ComponentChildren;
  /** Value to sort by; without it the column does not sort. */
  sort?: ((row: T) => number | string) | undefined;
  align?: "right" | undefined;
  /** Leave the column out on narrow screens. */
  optional?: boolean | undefined;
  /** Keep the column in sight while a narrow screen scrolls sideways: for the last one. */
  pin?: boolean | undefined;
}

export interface SortOrder {
  key: string;
  down: boolean;
}

const OVERSCAN = 8;
// Pixels that stay free below a table that reaches to the end of the screen.
const BELOW = 28;
// Columns wider than this give up their width on narrow screens.
const SHARED = 120;
// Below this many rows everything is drawn: find-in-page and printing then reach all of it.
const SMALL = 120;
// On a phone more: only rows that are all drawn can wrap, and there names need it.
const SMALL_NARROW = 300;

export function DataTable<T>(props: {
  label: string;
  columns: Column<T>[];
  rows: T[];
  rowKey: (row: T, index: number) => string;
  rowHeight?: number;
  /** Height limit of the scrolled area as CSS. */
  maxHeight?: string;
  initialSort?: SortOrder | undefined;
  empty?: ComponentChildren;
  rowClass?: ((row: T) => string) | undefined;
  onRow?: ((row: T) => void) | undefined;
}) {
  const { columns, rows, rowHeight = 30 } = props;
  const narrow = useNarrow();
  const shown = narrow ? columns.filter((c) => !c.optional) : columns;
  const [sort, setSort] = useState<SortOrder | undefined>(props.initialSort);
  const scroller = useRef<HTMLDivElement>(null);
  // First and last row in sight: scrolling within a row draws nothing.
  const [view, setView] = useState({ first: 0, end: Math.ceil(600 / rowHeight) });

  useLayoutEffect(() => {
    const el = scroller.current;
    if (!el) return;
    const measure = () => {
      const first = Math.floor(el.scrollTop / rowHeight);
      const end = Math.ceil((el.scrollTop + el.clientHeight) / rowHeight);
      setView((old) => (old.first === first && old.end === end ? old : { first, end }));
    };
    measure();
    el.addEventListener("scroll", measure, { passive: true });
    const o = typeof ResizeObserver === "function" ? new ResizeObserver(measure) : null;
    o?.observe(el);
    return () => {
      el.removeEventListener("scroll", measure);
      o?.disconnect();
    };
  }, [rowHeight]);

  const by = sort && columns.find((c) => c.key === sort.key)?.sort;
  // Without a limit of its own the table ends with the screen.
  const [above, setAbove] = useState(150);
  useLayoutEffect(() => {
    const el = scroller.current;
    if (el && !props.maxHeight) setAbove(Math.round(el.getBoundingClientRect().top + scrollY));
  });
  // Not on every step of scrolling.
  const ordered = useMemo(() => (by ? sortRows(rows, by, sort.down) : rows), [rows, sort]);
  const all = ordered.length <= (narrow ? SMALL_NARROW : SMALL);
  const first = all ? 0 : Math.max(0, Math.min(view.first, ordered.length) - OVERSCAN);
  const end = all ? ordered.length : Math.min(ordered.length, view.end + OVERSCAN);
  // On a narrow screen texts share what the figures leave.
  const widthOf = (c: Column<T>) =>
    narrow && c.align !== "right" && (c.width ?? 0) > SHARED ? undefined : c.width;
  const minWidth = shown.reduce((sum, c) => sum + (widthOf(c) ?? (narrow ? SHARED : 140)), 0);

  if (rows.length === 0 && props.empty) return <div class="empty">{props.empty}</div>;
  return (
    <section
      class="scroller"
      ref={scroller}
      tabIndex={0}
      aria-label={props.label}
      onKeyDown={moveRow}
      style={{ maxHeight: props.maxHeight ?? `max(320px, calc(100dvh - ${above + BELOW}px))` }}
    >
      <table
        class={`data${narrow && all ? " wrapping" : ""}`}
        aria-rowcount={ordered.length + 1}
        style={{ minWidth: `${minWidth}px` }}
      >
        <colgroup>
          {shown.map((c) => (
            <col key={c.key} style={widthOf(c) ? { width: `${widthOf(c)}px` } : {}} />
          ))}
        </colgroup>
        <thead>
          <tr>
            {shown.map((c) => {
              const state = sort?.key === c.key ? (sort.down ? "descending" : "ascending") : "none";
              return (
                <th key={c.key} scope="col" class={lookOf(c)} {...(c.sort ? { "aria-sort": state } : {})}>
                  {c.sort ? (
                    <button
                      type="button"
                      class="th"
                      onClick={() =>
                        setSort(
                          sort?.key === c.key
                            ? { key: c.key, down: !sort.down }
                            : { key: c.key, down: c.align === "right" },
                        )
                      }
                    >
                      {c.align === "right" && <Arrow state={state} />}
                      <bdi>{c.title}</bdi>
                      {c.align !== "right" && <Arrow state={state} />}
                    </button>
                  ) : (
                    <bdi>{c.title}</bdi>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {first > 0 && <tr key="before" class="gap" style={{ height: `${first * rowHeight}px` }} />}
          {ordered.slice(first, end).map((row, i) => (
            <Row
              key={props.rowKey(row, first + i)}
              row={row}
              index={first + i}
              columns={columns}
              narrow={narrow}
              height={rowHeight}
              look={`${props.onRow ? "pick " : ""}${props.rowClass?.(row) ?? ""}`}
              onRow={props.onRow}
            />
          ))}
          {end < ordered.length && (
            <tr key="after" class="gap" style={{ height: `${(ordered.length - end) * rowHeight}px` }} />
          )}
        </tbody>
      </table>
    </section>
  );
}

/** The arrow keys lead from a button of a row to the same one of the next row. */
function moveRow(e: KeyboardEvent): void {
  if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
  const at = e.target as Element;
  const row = at.closest("tbody tr");
  const next = e.key === "ArrowDown" ? row?.nextElementSibling : row?.previousElementSibling;
  const stops = (of: Element | null | undefined) => [
    ...(of?.querySelectorAll<HTMLElement>("button,a") ?? []),
  ];
  const to = stops(next);
  if (!row || !to.length) return;
  (to[stops(row).indexOf(at as HTMLElement)] ?? to[0])?.focus();
  e.preventDefault();
}

function lookOf<T>(c: Column<T>): string {
  return `${c.align ?? ""}${c.pin ? " pin" : ""}`;
}

interface RowProps<T> {
  row: T;
  index: number;
  columns: Column<T>[];
  narrow: boolean;
  height: number;
  look: string;
  onRow: ((row: T) => void) | undefined;
}

/** A row is drawn again only when it or its columns are others: not when its table is scrolled. */
class Row<T> extends Component<RowProps<T>> {
  override shouldComponentUpdate(next: RowProps<T>, state: unknown): boolean {
    const { row, index, columns, narrow, height, look } = this.props;
    // A signal that was read here, such as the time zone, changes the state.
    return (
      state !== this.state ||
      next.row !== row ||
      next.columns !== columns ||
      next.index !== index ||
      next.narrow !== narrow ||
      next.height !== height ||
      next.look !== look
    );
  }

  render({ row, index, columns, narrow, height, look, onRow }: RowProps<T>) {
    return (
      <tr
        aria-rowindex={index + 2}
        class={look}
        style={{ height: `${height}px` }}
        onClick={
          onRow
            ? (e) => {
                const inside = (e.target as Element).closest("a,button,input");
                if (!inside && getSelection()?.isCollapsed !== false) onRow(row);
              }
            : undefined
        }
      >
        {columns.map((c) =>
          narrow && c.optional ? null : (
            <td key={c.key} class={lookOf(c)}>
              {c.render(row)}
            </td>
          ),
        )}
      </tr>
    );
  }
}

function Arrow({ state }: { state: string }) {
  return (
    <span class="arrow" aria-hidden="true">
      {state === "none" ? "" : state === "ascending" ? "↑" : "↓"}
    </span>
  );
}

/** A stable order: numbers by size with NaN last, texts by the reader's collation with digits as numbers. */
export function sortRows<T>(rows: T[], by: (row: T) => number | string, down: boolean): T[] {
  const collate = new Intl.Collator(undefined, { numeric: true }).compare;
  const keyed = rows.map((row, i) => ({ row, i, key: by(row) }));
  keyed.sort((a, b) => {
    let c: number;
    if (typeof a.key === "number" && typeof b.key === "number") {
      const an = Number.isNaN(a.key);
      const bn = Number.isNaN(b.key);
      if (an || bn) return an === bn ? a.i - b.i : an ? 1 : -1;
      c = a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
    } else c = collate(String(a.key), String(b.key));
    return (down ? -c : c) || a.i - b.i;
  });
  return keyed.map((k) => k.row);
}

export function useNarrow(limit = 720): boolean {
  const query = `(max-width: ${limit}px)`;
  const [narrow, setNarrow] = useState(() => typeof matchMedia === "function" && matchMedia(query).matches);
  useLayoutEffect(() => {
    if (typeof matchMedia !== "function") return;
    const m = matchMedia(query);
    const on = () => setNarrow(m.matches);
    m.addEventListener("change", on);
    return () => m.removeEventListener("change", on);
  }, [query]);
  return narrow;
}
