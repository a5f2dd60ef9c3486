#!/usr/bin/env python3
"""Scraping, side by side: the same fleet of replayed targets, one server after the other.

Prints CPU seconds per million samples, resident memory, disk, and the time from `kill -9` to the old data
answering again. Needs release builds: `cargo build --release --bin meerkat --example fleet`.

`--churn 10` replaces a tenth of all series every five minutes, a few at any time. Three servers at the default
duration take about eight minutes: `scrape.py --peers DIR --churn 10 --record scraping-churn`.
"""

import argparse
import pathlib
import shutil
import signal
import time

import common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--interval", type=int, default=10, help="scrape interval, seconds")
    parser.add_argument(
        "--duration", "--seconds", dest="seconds", type=int, default=110, help="how long each server is measured, seconds"
    )
    parser.add_argument("--churn", type=int, default=0, help="percent of the series that are replaced")
    parser.add_argument("--churn-seconds", type=int, default=300, help="how often they are replaced")
    parser.add_argument("--corpus", default=str(common.ROOT / "../shared/corpus/node.rec.zst"))
    parser.add_argument("--meerkat", default=str(common.ROOT / "target/release/meerkat"))
    parser.add_argument("--fleet", default=str(common.ROOT / "target/release/examples/fleet"))
    parser.add_argument("--peers", default="peers", help="directory with usr/bin/prometheus and others")
    parser.add_argument("--only", default="", help="comma-separated names of servers")
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    arguments = parser.parse_args()

    work = common.workspace()
    fleet_port = common.free_port()
    fleet = common.Process(
        "fleet",
        [
            arguments.fleet,
            "--listen",
            f"127.0.0.1:{fleet_port}",
            "--targets",
            str(arguments.targets),
            "--corpus",
            arguments.corpus,
            "--churn",
            str(arguments.churn),
            "--churn-seconds",
            str(arguments.churn_seconds),
        ],
        work / "fleet.log",
    )
    rows = []
    try:
        common.wait_for(f"http://127.0.0.1:{fleet_port}/targets/0/metrics")
        config = work / "config.yml"
        config.write_text(scrape_config(arguments, fleet_port))
        for name, binary in common.binaries(arguments).items():
            rows.append(measure(name, binary, config, work, arguments))
    finally:
        fleet.stop()
        shutil.rmtree(work, ignore_errors=True)
    notes = [
        f"{arguments.targets} targets replaying `{pathlib.Path(arguments.corpus).name}` every {arguments.interval} s, "
        f"measured over {arguments.seconds} s after two intervals of warm-up; the fleet runs on the same cores.",
        "Restart is `kill -9`, start again, and the seconds until a query over the old data answers.",
    ]
    title = "Scraping side by side"
    if arguments.churn:
        title += ", series coming and going"
        notes.append(
            f"{arguments.churn} % of the series of each target are replaced by new ones every {arguments.churn_seconds} s, "
            "targets one after the other."
        )
    if arguments.record:
        common.record(arguments.record, title, rows, notes)
    else:
        common.print_table(rows)


def scrape_config(arguments, port: int) -> str:
    lines = [
        f"global: {{scrape_interval: {arguments.interval}s, scrape_timeout: {arguments.interval}s}}",
        "scrape_configs:",
        "  - job_name: node",
        "    static_configs:",
    ]
    for i in range(arguments.targets):
        lines.append(
            f'      - {{targets: ["127.0.0.1:{port}"], '
            f'labels: {{__metrics_path__: "/targets/{i}/metrics", instance: "host-{i}:9100"}}}}'
        )
    return "\n".join(lines) + "\n"


def measure(name: str, binary: str, config: pathlib.Path, work: pathlib.Path, arguments) -> dict:
    data = work / name
    data.mkdir()
    port = common.free_port()
    base = f"http://127.0.0.1:{port}"
    command = common.server_command(name, binary, config, data, port)
    server = common.Process(name, command, work / f"{name}.log")
    try:
        common.wait_for(common.ready_url(name, port))
        time.sleep(2 * arguments.interval + 2)
        cpu, started = server.cpu_seconds(), time.monotonic()
        peak = 0
        while time.monotonic() - started < arguments.seconds:
            time.sleep(1)
            peak = max(peak, server.memory_bytes())
        elapsed = time.monotonic() - started
        cpu = server.cpu_seconds() - cpu
        now = time.time()
        end_rss = server.memory_bytes()
        per_scrape = scalar(base, f"sum(scrape_samples_scraped)", now)
        up = scalar(base, "sum(up)", now)
        seen = scalar(base, f"sum(count_over_time(up[{arguments.seconds}s]))", now)
        samples = per_scrape / max(up, 1) * seen
        latency = scalar(base, "quantile(0.99, scrape_duration_seconds)", now)
        marker = now - 2 * arguments.interval
        disk = common.directory_bytes(data)
        server.stop(signal.SIGKILL)
        server = common.Process(name, command, work / f"{name}.log")
        restart = until_data_answers(base, marker)
        return {
            "server": name,
            "targets up": int(up),
            "million samples": f"{samples / 1e6:.1f}",
            "CPU-s per million": f"{cpu / (samples / 1e6):.2f}" if samples else "-",
            "CPU %": f"{100 * cpu / elapsed:.0f}",
            "RSS end MiB": end_rss >> 20,
            "RSS peak MiB": peak >> 20,
            "scrape p99 ms": f"{latency * 1000:.1f}",
            "disk MiB": disk >> 20,
            "kill -9 restart s": f"{restart:.2f}",
        }
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)


def scalar(base: str, expression: str, at: float) -> float:
    result = common.query(base, expression, at)
    return float(result[0]["value"][1]) if result else 0.0


def until_data_answers(base: str, at: float) -> float:
    started = time.monotonic()
    while time.monotonic() - started < 120:
        try:
            if scalar(base, "sum(up)", at) > 0:
                return time.monotonic() - started
        except (OSError, KeyError, ValueError):
            pass
        time.sleep(0.02)
    return float("nan")


if __name__ == "__main__":
    main()
