#!/usr/bin/env python3
"""Queries, side by side: the same recorded hours, sent by remote write to every server, then dashboard-like queries.

`benches/peers/query.py --peers DIR --corpus DIR --record queries` after
`cargo build --release --bin meerkat --example replay`; takes less than eight minutes on two cores.

Every query runs on all servers in turn, several times, with result caches off. Printed are the median time and the
CPU time of each server, whether its result is that of Prometheus, and the most memory each process held. The servers
are restarted between loading and asking, so that memory is that of the queries.
"""

import argparse
import json
import math
import pathlib
import shutil
import socket
import statistics
import subprocess
import time
import urllib.parse

import common

#: (name, expression, hours, step in seconds); 0 hours is an instant query.
QUERIES = [
    ("one series, now", 'node_load1{instance="node-0.example:9100"}', 0, 0),
    ("one counter, now", 'rate(node_cpu_seconds_total{cpu="0",mode="idle",instance="node-0.example:9100"}[5m])', 0, 0),
    ("table: memory by group", "sum by (instance, groupname) (namedprocess_namegroup_memory_bytes)", 0, 0),
    ("table: requests of a day", "increase(prometheus_http_requests_total[24h])", 0, 0),
    ("table: largest metrics", 'topk(10, count by (__name__) ({__name__=~".+"}))', 0, 0),
    ("table: worst hour", "max_over_time(sum by (job) (go_memstats_alloc_bytes)[24h:5m])", 0, 0),
    ("gauge, 24 h at 15 s", "node_load1", 24, 15),
    ("gauges, 1 h at 15 s", "namedprocess_namegroup_memory_bytes", 1, 15),
    ("gauges, 24 h at 300 s", "namedprocess_namegroup_states", 24, 300),
    ("CPU by mode", "sum by (instance, mode) (rate(node_cpu_seconds_total[5m]))", 24, 60),
    ("CPU busy, 15 s", '100 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m])) * 100', 24, 15),
    ("memory used", "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", 24, 15),
    ("commands per second", "sum by (cmd) (rate(redis_commands_total[5m]))", 24, 60),
    ("rate of everything one exporter counts", 'sum by (instance) (irate({__name__="namedprocess_namegroup_context_switches_total"}[5m]))', 24, 60),
    ("without labels", "sum without (cpu, mode) (rate(node_cpu_seconds_total[10m]))", 24, 120),
    ("p99, classic buckets", "histogram_quantile(0.99, sum by (le, job) (rate(prometheus_http_request_duration_seconds_bucket[5m])))", 24, 60),
    ("p90 by handler", "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_response_size_bytes_bucket[10m])))", 24, 300),
    ("p50 of pauses, many buckets", "histogram_quantile(0.5, rate(go_gc_heap_allocs_by_size_bytes_bucket[10m]))", 24, 120),
    ("mean from sum and count", "rate(prometheus_engine_query_duration_seconds_sum[10m]) / rate(prometheus_engine_query_duration_seconds_count[10m])", 24, 60),
    ("join many to one", "rate(namedprocess_namegroup_cpu_seconds_total[5m]) * on (instance) group_left (version) go_info", 24, 120),
    ("share of total", "sum by (instance, groupname) (rate(namedprocess_namegroup_cpu_seconds_total[5m])) / on (instance) group_left sum by (instance) (rate(namedprocess_namegroup_cpu_seconds_total[5m]))", 24, 120),
    ("and, unless, or", "(node_network_up == 1 and on (instance) node_load1 > 0.1) or node_network_mtu_bytes unless on (instance, device) node_network_flags > 4096", 24, 120),
    ("top 5", "topk(5, sum by (groupname) (rate(namedprocess_namegroup_cpu_seconds_total[5m])))", 24, 120),
    ("top 10 of raw series", "topk(10, namedprocess_namegroup_memory_bytes)", 24, 300),
    ("day before", "sum by (job) (rate(go_memstats_alloc_bytes_total[5m])) / sum by (job) (rate(go_memstats_alloc_bytes_total[5m] offset 6h))", 12, 60),
    ("mean of 6 h", "avg_over_time(node_load1[6h])", 24, 60),
    ("highest of 12 h", "max_over_time(go_memstats_heap_inuse_bytes[12h])", 24, 60),
    ("95th percentile of 2 h", "quantile_over_time(0.95, go_goroutines[2h])", 24, 60),
    ("spread of 2 h", "stddev_over_time(process_resident_memory_bytes[2h])", 24, 60),
    ("full in four hours", "predict_linear(node_filesystem_avail_bytes[6h], 4 * 3600) < 0", 24, 60),
    ("trend", "deriv(go_memstats_heap_objects[1h])", 24, 60),
    ("changes", "sum by (instance) (changes(namedprocess_namegroup_num_threads[1h]))", 24, 60),
    ("subquery of a rate", "max_over_time(sum by (instance) (rate(node_network_receive_bytes_total[5m]))[1h:1m])", 24, 300),
    ("subquery per series", "avg_over_time(rate(redis_commands_total[5m])[30m:1m])", 12, 300),
    ("wide regex", 'count by (job) ({__name__=~"node_.*|redis_.*|pg_.*"})', 24, 300),
    ("all series", 'count({__name__!=""})', 24, 300),
    ("regex on values", 'sum by (mode) (pg_locks_count{mode=~".*(exclusive|share).*"})', 24, 60),
    ("relabelled", 'sum by (host) (label_replace(rate(namedprocess_namegroup_read_bytes_total[5m]), "host", "$1", "instance", "(.*)-\\\\d.*"))', 24, 120),
    ("quantile across series", "quantile by (job) (0.9, go_memstats_heap_objects)", 24, 60),
    ("alert rule", "(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.1) and on (instance) rate(node_vmstat_pgmajfault[5m]) > 1000", 0, 0),
]

#: Relative difference that still counts as agreement.
TOLERANCE = 1e-12


class Client:
    """One kept-alive connection; nothing is parsed while the clock runs."""

    def __init__(self, port: int):
        self.port = port
        self.room = memoryview(bytearray(b"\xff" * (1 << 20)))
        self.socket = self.connect()

    def connect(self) -> socket.socket:
        s = socket.create_connection(("127.0.0.1", self.port), timeout=180)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def get(self, request: bytes) -> tuple[float, bytes, bytes]:
        """Seconds until the answer was complete, head, raw body."""
        try:
            return self.exchange(request)
        except ConnectionError:
            # Servers close connections after a while.
            self.socket = self.connect()
            return self.exchange(request)

    def exchange(self, request: bytes) -> tuple[float, bytes, bytes]:
        """The answer is gathered in room that is there already: pages that the system hands out count for nobody."""
        have, head_end, length = 0, -1, None
        room = self.room
        started = time.perf_counter()
        self.socket.sendall(request)
        while True:
            n = self.socket.recv_into(room[have:])
            if n == 0:
                raise ConnectionError("the server closed the connection")
            have += n
            if have == len(room):
                self.room = room = memoryview(bytearray(room) + bytearray(have))
            if head_end < 0:
                head_end = bytes(room[: min(have, 4096)]).find(b"\r\n\r\n")
                if head_end < 0:
                    continue
                for line in bytes(room[:head_end]).lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
            if length is not None:
                if have >= head_end + 4 + length:
                    break
            elif room[have - 5 : have] == b"0\r\n\r\n":
                break
        seconds = time.perf_counter() - started
        return seconds, bytes(room[:head_end]), bytes(room[head_end + 4 : have])


def dechunk(head: bytes, body: bytes) -> bytes:
    if b"chunked" not in head.lower():
        return body
    out, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return bytes(out)
        out += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2


def request(expression: str, hours: int, step: int, end: int) -> bytes:
    params = {"query": expression, "nocache": "1"}
    if hours:
        path = "query_range"
        params |= {"start": end - hours * 3600, "end": end, "step": step}
    else:
        path = "query"
        params["time"] = end
    return f"GET /api/v1/{path}?{urllib.parse.urlencode(params)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def values(answer: dict) -> dict:
    """Label set to {time: text}."""
    if answer.get("status") != "success":
        return {"error": {0: answer.get("error", "?")}}
    data = answer["data"]
    if data["resultType"] == "matrix":
        return {json.dumps(s["metric"], sort_keys=True): dict(map(tuple, s["values"])) for s in data["result"]}
    if data["resultType"] == "vector":
        return {json.dumps(s["metric"], sort_keys=True): {s["value"][0]: s["value"][1]} for s in data["result"]}
    return {"": {data["result"][0]: data["result"][1]}}


def compare(expected: dict, found: dict) -> str:
    if expected == found:
        return "exact"
    if "error" in expected and "error" not in found:
        return f"refused by Prometheus: {expected['error'][0]}"
    different, worst = 0, 0.0
    points = sum(len(v) for v in expected.values())
    for key in expected.keys() | found.keys():
        a, b = expected.get(key, {}), found.get(key, {})
        for t in a.keys() | b.keys():
            if t not in a or t not in b:
                different += 1
                continue
            if a[t] == b[t]:
                continue
            try:
                x, y = float(a[t]), float(b[t])
            except ValueError:
                different += 1
                continue
            if math.isnan(x) and math.isnan(y):
                continue
            distance = abs(x - y) / max(abs(x), abs(y)) if math.isfinite(x) and math.isfinite(y) else math.inf
            worst = max(worst, distance)
            different += distance > TOLERANCE
    return f"differs: {different} of {points}" if different else f"within {worst:.0e}"


class Server:
    """One server with its data directory."""

    def __init__(self, name: str, binary: str, work: pathlib.Path):
        self.name, self.binary, self.work = name, binary, work
        self.config = work / "config.yml"
        self.data = work / name
        self.data.mkdir()
        self.start()

    def start(self) -> None:
        self.port = common.free_port()
        command = common.server_command(self.name, self.binary, self.config, self.data, self.port)
        self.process = common.Process(self.name, command, self.work / f"{self.name}.log")
        common.wait_for(common.ready_url(self.name, self.port), 180)

    def restart(self) -> None:
        self.process.stop()
        self.start()
        self.client = Client(self.port)

    def reset_peak(self) -> None:
        pathlib.Path(f"/proc/{self.process.child.pid}/clear_refs").write_text("5")


#: Servers look for work once a minute.
CYCLE = 65


def settle(servers: list[Server], seconds: int) -> None:
    """Waits until nobody works: blocks are written and merged."""
    started, quiet = time.monotonic(), 0
    while time.monotonic() - started < seconds and (quiet < 5 or time.monotonic() - started < CYCLE):
        before = [s.process.cpu_seconds() for s in servers]
        time.sleep(2)
        busy = max(s.process.cpu_seconds() - b for s, b in zip(servers, before))
        quiet = quiet + 1 if busy < 0.1 else 0


def measure(servers: list[Server], expression: str, hours: int, step: int, end: int, repeats: int) -> dict:
    """Times and CPU seconds of each server, and its answer."""
    text = request(expression, hours, step, end)
    answers, times, cpu, rounds = {}, {s.name: [] for s in servers}, {}, {}
    for s in servers:
        first, head, body = s.client.get(text)
        answers[s.name] = values(json.loads(dechunk(head, body)))
        # Short queries are repeated until the clocks of the system can see them.
        rounds[s.name] = max(repeats, min(200, int(0.3 / max(first, 1e-5))))
        cpu[s.name] = 0.0
    for _ in range(repeats):
        for s in servers:
            before = s.process.cpu_seconds()
            for _ in range(max(1, rounds[s.name] // repeats)):
                times[s.name].append(s.client.get(text)[0])
            cpu[s.name] += s.process.cpu_seconds() - before
    return {
        s.name: {
            "seconds": statistics.median(times[s.name]),
            "cpu": cpu[s.name] / len(times[s.name]),
            "answer": answers[s.name],
        }
        for s in servers
    }


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=3, help="targets of each job")
    parser.add_argument("--interval", type=int, default=60, help="scrape interval, seconds")
    parser.add_argument("--hours", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settle", type=int, default=120, help="most seconds to wait for compaction")
    parser.add_argument("--filter", default="", help="only queries whose name holds this")
    parser.add_argument("--corpus", default=str(common.ROOT / "../shared/corpus"))
    parser.add_argument("--meerkat", default=str(common.ROOT / "target/release/meerkat"))
    parser.add_argument("--replay", default=str(common.ROOT / "target/release/examples/replay"))
    parser.add_argument("--peers", default="peers", help="directory with usr/bin/prometheus and others")
    parser.add_argument("--only", default="", help="comma-separated names of servers")
    parser.add_argument("--keep", default="", help="directory for the data; loaded only if it is new, and kept")
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    arguments = parser.parse_args()

    work = pathlib.Path(arguments.keep) if arguments.keep else common.workspace()
    loaded = work / "loaded.json"
    work.mkdir(exist_ok=True)
    (work / "config.yml").write_text("scrape_configs: []\n")
    servers: list[Server] = []
    try:
        if loaded.exists():
            state = json.loads(loaded.read_text())
            for name, binary in common.binaries(arguments).items():
                servers.append(Kept(name, binary, work))
        else:
            for name, binary in common.binaries(arguments).items():
                servers.append(Server(name, binary, work))
            state = load(servers, arguments)
            settle(servers, arguments.settle)
            loaded.write_text(json.dumps(state))
        for s in servers:
            s.restart()
        run(servers, state, arguments)
    finally:
        for s in servers:
            s.process.stop()
        if not arguments.keep:
            shutil.rmtree(work, ignore_errors=True)


class Kept(Server):
    """A server over data that an earlier run loaded."""

    def __init__(self, name: str, binary: str, work: pathlib.Path):
        self.name, self.binary, self.work = name, binary, work
        self.config = work / "config.yml"
        self.data = work / name
        self.start()


def load(servers: list[Server], arguments) -> dict:
    end = (int(time.time()) - 600) // 300 * 300
    command = [
        arguments.replay,
        *["--corpus", arguments.corpus, "--targets", str(arguments.targets)],
        *["--interval", str(arguments.interval), "--hours", str(arguments.hours), "--end", str(end)],
    ]
    for s in servers:
        command += ["--to", f"http://127.0.0.1:{s.port}/api/v1/write"]
    started = time.monotonic()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    state = json.loads(output) | {"end": end}
    print(f"loaded {state['series']} series, {state['samples'] / 1e6:.1f} M samples in {time.monotonic() - started:.0f} s")
    for s in servers:
        if s.name == "victoria-metrics":
            common.get(f"http://127.0.0.1:{s.port}/internal/force_flush")
    return state


def run(servers: list[Server], state: dict, arguments) -> None:
    names = [s.name for s in servers]
    idle = {}
    for s in servers:
        s.reset_peak()
        idle[s.name] = s.process.memory_bytes()
    rows, ratios, agreed, slower = [], {n: [] for n in names}, 0, []
    cpu_ratios = {n: [] for n in names}
    chosen = [q for q in QUERIES if arguments.filter in q[0]]
    for name, expression, hours, step in chosen:
        found = measure(servers, expression, hours, step, state["end"], arguments.repeats)
        row = {"query": name, "span": f"{hours} h / {step} s" if hours else "now"}
        for n in names:
            row[f"{n} ms"] = f"{found[n]['seconds'] * 1000:.2f}"
        for n in names:
            row[f"{n} CPU ms"] = f"{found[n]['cpu'] * 1000:.1f}"
        if "prometheus" in found:
            expected = found["prometheus"]["answer"]
            for n in names:
                if n == "prometheus":
                    continue
                ratio = found[n]["seconds"] / found["prometheus"]["seconds"]
                ratios[n].append(ratio)
                if found["prometheus"]["cpu"] > 0 and found[n]["cpu"] > 0:
                    cpu_ratios[n].append(found[n]["cpu"] / found["prometheus"]["cpu"])
                if n == "meerkat":
                    row["ratio"] = f"{ratio:.3f}"
                    verdict = compare(expected, found[n]["answer"])
                    row["agreement"] = verdict
                    agreed += not verdict.startswith("differs")
                    if ratio > 1:
                        slower.append(name)
            row["points"] = sum(len(v) for v in expected.values())
        rows.append(row)
        print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
    notes = [
        f"{state['series']} series, {state['samples'] / 1e6:.1f} million samples: {arguments.hours} h of seven recorded "
        f"exporters, {arguments.targets} targets of each, every {arguments.interval} s, sent by remote write; servers "
        "restarted before the queries; median of the runs over one kept-alive connection, result caches off.",
        "",
    ]
    for n in names:
        peak = next(s for s in servers if s.name == n).process.memory_bytes("VmHWM")
        line = f"- {n}: resident before the queries {idle[n] >> 20} MiB, at most {peak >> 20} MiB during them"
        if ratios[n]:
            line += f"; geometric mean against Prometheus: time {geometric_mean(ratios[n]):.3f}"
            line += f", CPU {geometric_mean(cpu_ratios[n]):.3f} (where the clock ticks could see it)"
        if n == "meerkat" and ratios[n]:
            line += f"; {agreed} of {len(rows)} results agree (to {TOLERANCE:g} relative); slower than Prometheus: "
            line += ", ".join(slower) if slower else "none"
        notes.append(line + ".")
    print("\n".join(notes))
    if arguments.record:
        texts = ["", "| query | expression |", "|---|---|"]
        texts += [f"| {name} | `{expression.replace('|', chr(92) + '|')}` |" for name, expression, _, _ in chosen]
        common.record(arguments.record, "Queries side by side", rows, notes + texts)


if __name__ == "__main__":
    main()
