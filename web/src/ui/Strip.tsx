// A strip of time on which stretches are coloured.
import { humanDuration } from "../lib/time";
import { type Run, summary } from "../lib/timeline";

export function Strip(props: { runs: Run[]; from: number; to: number; tall?: boolean }) {
  const { runs, from, to } = props;
  const s = summary(runs);
  const place = (r: Run) => {
    const left = Math.max(0, (100 * (r.from - from)) / (to - from));
    const right = Math.min(100, (100 * (r.to - from)) / (to - from));
    return { left: `${left}%`, width: `${Math.max(0.6, right - left)}%` };
  };
  const text = s.times
    ? `Fired ${s.times === 1 ? "once" : `${s.times} times`}, ${humanDuration(s.seconds)} in all`
    : runs.length
      ? "Was pending, never fired"
      : "Never active";
  return (
    <span class={`strip${props.tall ? " tall" : ""}`} role="img" aria-label={text} title={text}>
      {runs.map((r) => (
        <span key={`${r.from} ${r.state}`} class={r.state} style={place(r)} />
      ))}
    </span>
  );
}
