// What an empty panel offers: queries made from the metrics that exist.
import { useExamples } from "../lib/examples";

export function Hint({ onTry }: { onTry: (expr: string) => void }) {
  const examples = useExamples() ?? [];
  return (
    <div class="hint">
      <p>Type an expression and press Enter{examples.length > 0 && ", or begin with one of these"}.</p>
      <p class="row">
        {examples.map((e) => (
          <button type="button" class="btn small" key={e.expr} title={e.expr} onClick={() => onTry(e.expr)}>
            {e.title}
          </button>
        ))}
      </p>
    </div>
  );
}
