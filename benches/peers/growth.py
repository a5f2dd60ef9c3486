#!/usr/bin/env python3
"""How the time of queries grows with the number of series and with the range they look at.

`benches/peers/growth.py --peers DIR --record query-growth` after
`cargo build --release --bin meerkat --example replay`; takes less than six minutes on two cores.

Made-up counters are sent by remote write to every server: metrics of 1,000 to 1,000,000 series over an hour, a sample
every five minutes, and one of 100 series over 30 days, a sample every minute. Then each query runs on all servers in
turn, result caches off. Printed are median and CPU time, and how much longer a query takes for ten times the series.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import time

import common
import query

COUNTERS = [1_000, 10_000, 100_000, 1_000_000]
LONG = 100
DAYS = 30

#: (name, expression); N is the number of series.
OVER_SERIES = [
    ("rate by job", "sum by (job) (rate(requests_N_total[10m]))", 1, 60),
    ("newest values by code", "sum by (code) (requests_N_total)", 0, 0),
    ("how many", "count(requests_N_total)", 1, 60),
    ("one of them", 'requests_N_total{instance="host-00007.example:9100",code="203"}', 1, 60),
]
#: (name, expression); sixty steps over each range.
OVER_TIME = [
    ("rate by job", "sum by (job) (rate(requests_long_total[STEP]))"),
    ("highest of each step", "max by (job) (max_over_time(requests_long_total[STEP]))"),
    ("raw values", "sum by (job) (requests_long_total)"),
]
RANGES = [("1 h", 1), ("1 d", 24), ("7 d", 7 * 24), ("30 d", DAYS * 24)]


def load(servers: list[query.Server], arguments) -> dict:
    end = (int(time.time()) - 600) // 300 * 300
    command = [
        arguments.replay,
        *["--counters", ",".join(map(str, COUNTERS)), "--long", str(LONG), "--interval", "60", "--scrapes", "60"],
        *["--hours", str(DAYS * 24), "--end", str(end)],
    ]
    for s in servers:
        command += ["--to", f"http://127.0.0.1:{s.port}/api/v1/write"]
    started = time.monotonic()
    state = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) | {"end": end}
    print(f"loaded {state['series']} series, {state['samples'] / 1e6:.1f} M samples in {time.monotonic() - started:.0f} s")
    return state


def row(servers: list[query.Server], kind: str, size: str, expression: str, hours: int, step: int, end: int) -> dict:
    found = query.measure(servers, expression, hours, step, end, 3)
    out = {"query": kind, "over": size}
    for s in servers:
        out[f"{s.name} ms"] = f"{found[s.name]['seconds'] * 1000:.2f}"
        out[f"{s.name} CPU ms"] = f"{found[s.name]['cpu'] * 1000:.2f}"
        out[f"{s.name} MiB"] = s.process.memory_bytes() >> 20
    if "prometheus" in found:
        out["agreement"] = query.compare(found["prometheus"]["answer"], found["meerkat"]["answer"])
    print(" ".join(f"{k}={v}" for k, v in out.items()), flush=True)
    return out | {"seconds": found["meerkat"]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meerkat", default=str(common.ROOT / "target/release/meerkat"))
    parser.add_argument("--replay", default=str(common.ROOT / "target/release/examples/replay"))
    parser.add_argument("--peers", default="peers", help="directory with usr/bin/prometheus")
    parser.add_argument("--only", default="prometheus,meerkat", help="comma-separated names of servers")
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    arguments = parser.parse_args()

    work = common.workspace()
    (work / "config.yml").write_text("scrape_configs: []\n")
    servers: list[query.Server] = []
    rows, notes = [], []
    try:
        for name, binary in common.binaries(arguments).items():
            servers.append(query.Server(name, binary, work))
        state = load(servers, arguments)
        for s in servers:
            s.client = query.Client(s.port)
        for kind, expression, hours, step in OVER_SERIES:
            times = []
            for n in COUNTERS:
                text = expression.replace("_N_", f"_{n}_")
                rows.append(row(servers, kind, f"{n:,} series", text, hours, step, state["end"]))
                times.append(rows[-1].pop("seconds"))
            factors = ", ".join(f"{b / a:.1f}" for a, b in zip(times, times[1:]))
            notes.append(f"- {kind}, ten times the series each time: meerkat takes {factors} times as long.")
        for kind, expression in OVER_TIME:
            times = []
            for name, hours in RANGES:
                text = expression.replace("STEP", f"{hours * 60}s")
                rows.append(row(servers, kind, name, text, hours, hours * 60, state["end"]))
                times.append(rows[-1].pop("seconds"))
            factors = ", ".join(f"{b / a:.1f}" for a, b in zip(times, times[1:]))
            notes.append(f"- {kind}, 24, 7 and 4.3 times the range: meerkat takes {factors} times as long.")
    finally:
        for s in servers:
            s.process.stop()
        shutil.rmtree(work, ignore_errors=True)
    about = (
        f"{state['series']} series, {state['samples'] / 1e6:.1f} million samples, sent by remote write just before; "
        "median of the runs over one kept-alive connection, result caches off; memory is what the process has resident "
        "after the query. Queries over series: one hour at a step of a minute or now; queries over ranges: 100 series "
        "with a sample a minute, sixty steps."
    )
    expressions = [f"- {kind}: `{e}`" for kind, e, *_ in OVER_SERIES] + [f"- {kind}: `{e}`" for kind, e in OVER_TIME]
    if arguments.record:
        common.record(arguments.record, "How query times grow", rows, [about, "", *notes, "", *expressions])
    else:
        common.print_table(rows)
        print("\n".join([about, *notes]))


if __name__ == "__main__":
    main()
