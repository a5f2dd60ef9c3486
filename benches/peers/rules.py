"""Rules side by side: what do 10,000 rules over 100,000 series cost, and how soon is an alert told?

    python3 benches/peers/rules.py --peers DIR [--meerkat target/release/meerkat] [--only meerkat]

One server after the other is given the same exporter and the same rules. For each: CPU with scraping alone, then the memory
and cost of 50,000 firing alerts, the time from the scrape of a sample to the notifications it causes, and the CPU of 200
groups of 50 rules each evaluated every 10 s (the difference is what the rules cost) and how long the groups take. Takes
about five minutes for both.
"""

import argparse
import http.server
import json
import pathlib
import re
import statistics
import tempfile
import threading
import time

from common import ROOT, Process, binaries, free_port, get, print_table, record, server_command, wait_for

SHARDS, METRICS, INSTANCES = 200, 10, 50
TARGETS = 20
INTERVAL = 10
FLAGS = 20
STATE = {"flag": 0, "told": {}, "shown": None}


def shard_text(shard: int, tick: int) -> str:
    lines = []
    for m in range(METRICS):
        for i in range(INSTANCES):
            value = tick * (i + m + 1) + shard
            lines.append(f'bench_metric_{m}{{shard="{shard}",instance_id="host-{i}",zone="z{i % 3}"}} {value}\n')
    return "".join(lines)


class World(http.server.BaseHTTPRequestHandler):
    """The exporter, and an Alertmanager that notes when it was told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/flag"):
            if STATE["flag"] and STATE["shown"] is None:
                STATE["shown"] = time.time()
            body = f"bench_flag {STATE['flag']}\n"
        else:
            target, tick = int(self.path.rsplit("/", 1)[1]), int(time.time() / INTERVAL)
            body = "".join(shard_text(s, tick) for s in range(target, SHARDS, TARGETS))
        self.answer(body.encode())

    def do_POST(self):
        alerts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for name in {a["labels"]["alertname"] for a in alerts}:
            if STATE["shown"] is not None:
                STATE["told"].setdefault(name, time.time())
        self.answer(b"")

    def answer(self, body: bytes):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def many_rules() -> dict:
    groups = []
    for shard in range(SHARDS):
        rules, pick = [], f'{{shard="{shard}"}}'
        for m in range(METRICS):
            name = f"bench_metric_{m}"
            rules += [
                {"record": f"shard:{name}:rate1m", "expr": f"sum by (shard) (rate({name}{pick}[1m]))"},
                {"record": f"zone:{name}:avg", "expr": f"avg by (shard, zone) ({name}{pick})"},
                {"record": f"shard:{name}:max", "expr": f"max by (shard) ({name}{pick})"},
                {"record": f"shard:{name}:half", "expr": f"shard:{name}:rate1m{pick} / 2"},
                {"alert": f"TooMuch{m}", "expr": f"{name}{pick} > 1e18", "for": "1m"},
            ]
        groups.append({"name": f"shard-{shard}", "interval": f"{INTERVAL}s", "rules": rules})
    return {"groups": groups}


def alert_rules(names: list[str], expr: str, interval: str) -> dict:
    groups = []
    for name in names:
        groups.append({"name": name, "interval": interval, "rules": [alert_rule(name, expr)]})
    return {"groups": groups}


def alert_rule(name: str, expr: str) -> dict:
    return {
        "alert": name,
        "expr": expr,
        "labels": {"severity": "page"},
        "annotations": {"summary": "{{ $labels.instance_id }} of {{ $labels.shard }} has {{ $value }}"},
    }


def write(folder: pathlib.Path, address: str, rules: dict) -> pathlib.Path:
    (folder / "rules.json").write_text(json.dumps(rules))
    jobs = [
        {"job_name": f"t{t}", "metrics_path": f"/metrics/{t}", "static_configs": [{"targets": [address]}]}
        for t in range(TARGETS)
    ]
    jobs.append(
        {
            "job_name": "flag",
            "metrics_path": "/flag",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [address]}],
        }
    )
    config = {
        "global": {"scrape_interval": f"{INTERVAL}s"},
        "rule_files": [str(folder / "rules.json")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [address]}]}]},
        "scrape_configs": jobs,
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))
    return path


def group_seconds(base: str) -> list[float]:
    text = get(f"{base}/metrics").decode()
    found = re.findall(r"^prometheus_rule_group_last_duration_seconds\{.*shard-.*\} (\S+)$", text, re.M)
    return [float(v) for v in found]


def missed(base: str) -> float:
    text = get(f"{base}/metrics").decode()
    return sum(map(float, re.findall(r"^prometheus_rule_group_iterations_missed_total\{.*\} (\S+)$", text, re.M)))


def cost(process: Process, seconds: float) -> float:
    """CPU seconds for each interval."""
    before, started = process.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (process.cpu_seconds() - before) / (time.monotonic() - started) * INTERVAL


def measure(name: str, binary: str, address: str, arguments) -> dict:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = pathlib.Path(folder_name)
        config = write(folder, address, {"groups": []})
        port = free_port()
        command = server_command(name, binary, config, folder / "data", port)
        command += ["--web.enable-lifecycle", *(arguments.flag or [])]
        process = Process(name, command, folder / "log")
        base = f"http://127.0.0.1:{port}"
        reload = lambda: get(f"{base}/-/reload", data=b"", timeout=120)
        try:
            wait_for(f"{base}/-/ready")
            time.sleep(INTERVAL * 1.5)
            alone = cost(process, INTERVAL * 2)

            before = process.memory_bytes()
            write(folder, address, alert_rules(["Many"], '{__name__=~"bench_metric_[0-4]"} >= 0', "5s"))
            reload()
            time.sleep(INTERVAL * 2)
            firing = process.memory_bytes() - before
            alerts = (cost(process, INTERVAL * 2) - alone) / INTERVAL * 5

            flags = [f"Flag{i}" for i in range(FLAGS)]
            write(folder, address, alert_rules(flags, "bench_flag == 1", "1s"))
            reload()
            time.sleep(INTERVAL)
            delays = []
            for _ in range(4):
                STATE.update(told={}, shown=None, flag=1)
                deadline = time.time() + 10
                while len(STATE["told"]) < FLAGS and time.time() < deadline:
                    time.sleep(0.005)
                delays += [told - STATE["shown"] for told in list(STATE["told"].values())]
                # Resolutions are no news.
                STATE.update(flag=0, shown=None)
                time.sleep(2.3)

            write(folder, address, many_rules())
            reload()
            time.sleep(INTERVAL * 1.5)
            durations, costs = [], []
            for _ in range(3):
                costs.append(cost(process, INTERVAL))
                durations += group_seconds(base)
            lost = missed(base)
            durations.sort()
            return {
                "CPU-s per interval, scraping alone": f"{alone:.2f}",
                "CPU-s per interval, with rules": f"{statistics.mean(costs):.2f}",
                "CPU-s per interval, rules": f"{statistics.mean(costs) - alone:.2f}",
                "group duration, median ms": f"{durations[len(durations) // 2] * 1000:.1f}",
                "group duration, p99 ms": f"{durations[int(len(durations) * 0.99)] * 1000:.1f}",
                "missed iterations": f"{lost:.0f}",
                "sample to notification, mean s": f"{statistics.mean(delays):.2f}" if delays else "-",
                "the fastest, s": f"{min(delays):.3f}" if delays else "-",
                "bytes per firing alert": f"{firing / (SHARDS * INSTANCES * 5):.0f}",
                "CPU-s per evaluation of 50,000 firing alerts": f"{alerts:.2f}",
            }
        finally:
            process.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="/usr")
    parser.add_argument("--meerkat", default=str(ROOT / "target/release/meerkat"))
    parser.add_argument("--only", default="")
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    parser.add_argument("--flag", action="append", help="a further flag for the servers")
    arguments = parser.parse_args()
    world = http.server.ThreadingHTTPServer(("127.0.0.1", 0), World)
    threading.Thread(target=world.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{world.server_port}"
    rows = []
    for name, binary in binaries(arguments).items():
        if name != "victoria-metrics":
            rows.append({"server": name, **measure(name, binary, address, arguments)})
    notes = [
        f"{SHARDS} groups of {5 * METRICS} rules over {SHARDS * METRICS * INSTANCES} series, evaluated and scraped every "
        f"{INTERVAL} s; the exporter runs on the same cores.",
        "Durations are those of all groups in three iterations. The notification is timed from the answer to the scrape "
        f"that brings the sample, for {FLAGS} groups that are evaluated every second like the scrape: offsets follow from "
        "names, so that half a second is the mean of what no server can avoid.",
    ]
    if arguments.record:
        record(arguments.record, "Rules side by side", rows, notes)
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
