#!/usr/bin/env python3
"""What `cargo bench --bench query` measured last, as a table: every function, aggregation and operator.

`benches/peers/functions.py --record functions` after it.
"""

import argparse
import json

import common

GROUPS = {
    "functions": "20 series, 24 h of samples every 15 s, a step of 60 s, windows of an hour where there are any",
    "operators": "1,000 series, 1 h of samples every 15 s, a step of 15 s",
    "growth": "`sum by (job) (rate(requests_total[5m]))`, 60 steps",
    "instant": "one moment",
    "10k_series": "10,000 series, 24 h at 300 s or 1 h at 15 s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    arguments = parser.parse_args()
    rows = []
    for group in GROUPS:
        for file in sorted((common.ROOT / "target/criterion" / group).glob("*/new/estimates.json")):
            what = json.loads(file.with_name("benchmark.json").read_text())
            ns = json.loads(file.read_text())["median"]["point_estimate"]
            samples = (what["throughput"] or {}).get("Elements")
            rows.append(
                {
                    "group": group,
                    "what": what["function_id"],
                    "ms": f"{ns / 1e6:.3f}",
                    "ns per sample": f"{ns / samples:.2f}" if samples and group in ("functions", "operators") else "",
                }
            )
    if not rows:
        raise SystemExit("nothing was measured yet: cargo bench --bench query")
    notes = [f"- {name}: {text}." for name, text in GROUPS.items()]
    intro = "Medians of criterion over made-up counters in memory that cost next to nothing to read: the time is the engine's."
    if arguments.record:
        common.record(arguments.record, "Functions and operators", rows, [intro, "", *notes])
    else:
        common.print_table(rows)


if __name__ == "__main__":
    main()
