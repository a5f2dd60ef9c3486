// The list of keys.
import { Drawer } from "./parts";

const COMMON: [string, string][] = [
  ["?", "This list"],
  ["Ctrl K", "Go to any page, metric, alert, target or action"],
  ["/", "Go to the filter or the query editor"],
  ["Esc", "Close what is open"],
  ["Enter", "Run the query"],
  ["Shift Enter", "New line in a query"],
  ["Ctrl Space", "Complete"],
  ["Ctrl ↑ / ↓", "Earlier and later queries"],
  ["↑ / ↓", "Move along the rows of a table, the items of a menu"],
  ["← / →", "Move along a focused chart (Shift: ten steps)"],
  ["[ / ]", "Shift the time range of all graphs back and forth"],
  ["- / =", "Zoom all graphs out and in"],
  ["Shift drag", "Move a graph along time"],
  ["Double click", "Zoom a graph out"],
];

export function Help(props: { pages: { title: string; key: string }[]; onClose: () => void }) {
  const rows = [...COMMON, ...props.pages.map((p): [string, string] => [`g ${p.key}`, `Go to ${p.title}`])];
  return (
    <Drawer title="Keyboard" onClose={props.onClose}>
      <table class="keys">
        <tbody>
          {rows.map(([keys, what]) => (
            <tr key={keys}>
              <th scope="row">
                <kbd>{keys}</kbd>
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Drawer>
  );
}
