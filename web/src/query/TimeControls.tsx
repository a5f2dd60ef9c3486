// Range, right edge and resolution of a graph.
import { useEffect, useState } from "preact/hooks";
import { zone } from "../lib/prefs";
import { formatDuration, formatTime, parseDuration, parseTime } from "../lib/time";
import { Icon } from "../ui/icons";
import { shifted } from "./move";
import type { Density, Panel } from "./state";

const RANGES = [
  "1m",
  "5m",
  "15m",
  "30m",
  "1h",
  "2h",
  "6h",
  "12h",
  "1d",
  "2d",
  "1w",
  "2w",
  "4w",
  "8w",
  "1y",
].map((text) => parseDuration(text)!);

export function TimeControls(props: {
  panel: Panel;
  step: number;
  /** Leaves the resolution out. */
  plain?: boolean;
  onChange: (part: Partial<Panel>) => void;
}) {
  const { panel, onChange } = props;
  const nextRange = (down: boolean) =>
    down
      ? ([...RANGES].reverse().find((r) => r < panel.range) ?? panel.range)
      : (RANGES.find((r) => r > panel.range) ?? panel.range);
  return (
    <>
      <div class="joined">
        <button
          type="button"
          class="btn icon-only"
          aria-label="Shorter range"
          onClick={() => onChange({ range: nextRange(true) })}
        >
          <Icon name="minus" size={14} />
        </button>
        <TextField
          label="Range"
          value={formatDuration(panel.range)}
          size={5}
          parse={(t) => {
            const ms = parseDuration(t);
            return ms !== null && ms > 0 ? ms : null;
          }}
          onSet={(range) => onChange({ range })}
          choices="ranges"
        />
        <button
          type="button"
          class="btn icon-only"
          aria-label="Longer range"
          onClick={() => onChange({ range: nextRange(false) })}
        >
          <Icon name="plus" size={14} />
        </button>
      </div>
      <EndField
        label="End"
        value={panel.end}
        onSet={(end) => onChange({ end })}
        onShift={(part) => onChange({ end: shifted(panel, part).end })}
      />
      {!props.plain && (
        <label class="select">
          <span class="sr">Step</span>
          <select
            value={panel.resolution.type === "auto" ? panel.resolution.density : "own"}
            onChange={(e) => {
              const v = e.currentTarget.value;
              if (v === "low" || v === "medium" || v === "high")
                onChange({ resolution: { type: "auto", density: v as Density } });
              else onChange({ resolution: { type: "custom", step: Number(v) } });
            }}
          >
            <option value="low">Step: coarse</option>
            <option value="medium">
              Step: auto{panel.resolution.type === "auto" ? ` (${formatDuration(props.step)})` : ""}
            </option>
            <option value="high">Step: fine</option>
            {panel.resolution.type !== "auto" && (
              <option value="own">Step: {formatDuration(panel.resolution.step)}</option>
            )}
            {STEPS.map((s) => (
              <option key={s} value={String(parseDuration(s))}>
                Step: {s}
              </option>
            ))}
          </select>
        </label>
      )}
    </>
  );
}

const STEPS = ["1s", "5s", "15s", "30s", "1m", "5m", "15m", "1h", "6h", "1d"];

/** A moment with buttons around it; empty means now. */
export function EndField(props: {
  label: string;
  value: number | null;
  onSet: (ms: number | null) => void;
  onShift: (part: number) => void;
}) {
  return (
    <div class="joined">
      <button type="button" class="btn icon-only" aria-label="Earlier" onClick={() => props.onShift(-0.5)}>
        <Icon name="left" size={14} />
      </button>
      <TextField
        label={props.label}
        value={props.value === null ? "" : formatTime(props.value, zone.value)}
        placeholder="Now"
        size={props.value === null ? 8 : 18}
        parse={(t) =>
          t.trim() === "" || t.trim().toLowerCase() === "now" ? Number.NaN : parseTime(t, zone.value)
        }
        onSet={(ms) => props.onSet(Number.isNaN(ms) ? null : ms)}
      />
      {props.value !== null && (
        <button
          type="button"
          class="btn icon-only"
          aria-label="Back to now"
          onClick={() => props.onSet(null)}
        >
          <Icon name="close" size={14} />
        </button>
      )}
      <button type="button" class="btn icon-only" aria-label="Later" onClick={() => props.onShift(0.5)}>
        <Icon name="right" size={14} />
      </button>
    </div>
  );
}

/** A text that means something: takes effect on Enter or when left, and shows when it cannot be read. */
export function TextField(props: {
  label: string;
  value: string;
  size: number;
  placeholder?: string;
  parse: (text: string) => number | null;
  onSet: (value: number) => void;
  choices?: string;
  look?: string;
}) {
  const [text, setText] = useState(props.value);
  const [wrong, setWrong] = useState(false);
  useEffect(() => {
    setText(props.value);
    setWrong(false);
  }, [props.value]);
  function take() {
    if (text === props.value) return setWrong(false);
    const v = props.parse(text);
    setWrong(v === null);
    if (v !== null) props.onSet(v);
  }
  return (
    <input
      type="text"
      class={`field num ${props.look ?? ""}`}
      aria-label={props.label}
      aria-invalid={wrong}
      title={wrong ? `"${text}" is not understood` : props.label}
      value={text}
      size={props.size}
      placeholder={props.placeholder}
      spellcheck={false}
      autocomplete="off"
      onInput={(e) => setText(e.currentTarget.value)}
      onBlur={take}
      onKeyDown={(e) => {
        if (e.key === "Enter") take();
        if (e.key === "Escape") {
          setText(props.value);
          setWrong(false);
        }
      }}
    />
  );
}
