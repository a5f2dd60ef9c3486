// Queries that ran before, to search and to pick from.
import { useState } from "preact/hooks";
import { history } from "../lib/prefs";

export function PastQueries(props: { onPick: (query: string) => void; onClose: () => void }) {
  const [filter, setFilter] = useState("");
  const found = history.value.filter((q) => q.toLowerCase().includes(filter.toLowerCase())).slice(0, 50);
  return (
    <div class="past">
      <div class="row">
        <input
          type="search"
          aria-label="Search in the history"
          placeholder="Search in the history"
          value={filter}
          ref={(el) => el?.focus()}
          onInput={(e) => setFilter(e.currentTarget.value)}
          onKeyDown={(e) => e.key === "Escape" && props.onClose()}
        />
        <button type="button" class="btn small" onClick={props.onClose}>
          Close
        </button>
        {history.value.length > 0 && (
          <button
            type="button"
            class="btn small"
            onClick={() => {
              history.value = [];
            }}
          >
            Forget all
          </button>
        )}
      </div>
      {found.length === 0 && (
        <p class="muted">Nothing here yet. Queries that ran are kept in this browser.</p>
      )}
      <ul>
        {found.map((q) => (
          <li key={q}>
            <button type="button" class="plain mono" onClick={() => props.onPick(q)}>
              <bdi>{q}</bdi>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
