#!/usr/bin/env python3
"""Storage, side by side: the same recorded hours by remote write, then disk, memory, restarts and look-ups.

`benches/peers/storage.py --peers DIR --corpus DIR --record storage` after
`cargo build --release --bin meerkat --example replay`; takes about ten minutes on two cores, half of that with `--hours 2 --many 300000`. What `cargo bench --bench
head` measured before is added: nanoseconds by sample and codec.

One server after the other gets the samples in requests of remote write 1.0 with snappy, oldest first, as fast as it
takes them; their times lie in the last hours, so that each server writes its blocks as it would in operation. Then it
is left alone until it is at rest, its files are counted, it is stopped and killed and asked for old data, and at last
a million series with as many values of one label are written into a data directory of their own, looked up, killed and
stopped.
"""

import argparse
import functools
import json
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import time
import urllib.parse

import common

#: Series of the part about look-ups.
MANY = 1_000_000
#: Series in one request of that part.
PER_REQUEST = 5_000
#: The time in requests of that part until they are sent, milliseconds.
FIRST_MS = 1_700_000_000_000
#: Most seconds to wait for a server that starts, and then for its data.
PATIENCE = 90
#: Servers look for work once a minute.
CYCLE = 62


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=8, help="targets of each job")
    parser.add_argument("--interval", type=int, default=15, help="scrape interval, seconds")
    parser.add_argument("--hours", type=int, default=6, help="recorded hours to send, 0 = none")
    parser.add_argument("--scrapes", type=int, default=10, help="samples of a series in one request")
    parser.add_argument("--many", type=int, default=MANY, help="series of the look-ups, 0 = none")
    parser.add_argument("--settle", type=int, default=75, help="most seconds to wait until a server is at rest")
    parser.add_argument("--corpus", default=str(common.ROOT / "../shared/corpus"))
    parser.add_argument("--meerkat", default=str(common.ROOT / "target/release/meerkat"))
    parser.add_argument("--replay", default=str(common.ROOT / "target/release/examples/replay"))
    parser.add_argument("--peers", default="peers", help="directory with usr/bin/prometheus and others")
    parser.add_argument("--only", default="", help="comma-separated names of servers")
    parser.add_argument("--record", default="", help="write the table to benches/record/NAME.md")
    arguments = parser.parse_args()

    work = common.workspace()
    parts = ([corpus] if arguments.hours else []) + ([look_ups] if arguments.many else [])
    rows, failed = [], []
    begun = time.monotonic()
    try:
        for name, binary in common.binaries(arguments).items():
            row = {"server": name}
            for part in parts:
                started = time.monotonic()
                try:
                    row |= part(name, binary, work, arguments)
                except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                    # The figures of the others are still worth having.
                    failed.append(f"{name} failed in the part {part.__name__}: {error}")
                    print(failed[-1], flush=True)
                print(f"{name}: {part.__name__} took {time.monotonic() - started:.0f} s", flush=True)
            rows.append(row)
            print(f"{name}: {row}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = transpose(rows)
    samples = rows[0].get("million samples", "no") if rows else "-"
    notes = [
        f"{arguments.targets} targets of each recording every {arguments.interval} s for {arguments.hours} h, "
        f"{samples} million samples, sent by remote write 1.0 with snappy in requests of 1,000 series with "
        f"{arguments.scrapes} sample(s) each, one server after the other, over one connection. The whole run took "
        f"{(time.monotonic() - begun) / 60:.1f} minutes.",
        "",
        "Disk in blocks is what is left after flushing and merging, by the samples in it (of VictoriaMetrics the whole "
        "data directory after a forced merge); log is what was written into the write-ahead log, by sample. Restart times "
        "end when the server says that it is ready and when a query over the oldest data answers. Look-ups are medians over five requests, on "
        f"{arguments.many:,} series with ten labels of which each has its own value of one.",
    ]
    notes += codecs() + [text for line in failed for text in ("", line)]
    if arguments.record:
        common.record(arguments.record, "Storage side by side", table, notes)
    else:
        common.print_table(table)
        print("\n".join(notes))
    if failed:
        raise SystemExit(1)


def codecs() -> list[str]:
    """What criterion measured last, as a table; nothing if it never ran here."""
    rows = []
    for file in sorted((common.ROOT / "target/criterion").glob("*/*/new/estimates.json")):
        what = json.loads(file.with_name("benchmark.json").read_text())
        if what["group_id"] in ("float chunk", "block column", "head"):
            ns = json.loads(file.read_text())["median"]["point_estimate"]
            elements = (what["throughput"] or {}).get("Elements", 1)
            rows.append(f"| {what['group_id']} | {what['function_id']} | {ns / elements:.2f} |")
    return ["", "| part | what | ns per sample |", "|---|---|---|", *rows] if rows else []


def transpose(rows: list[dict]) -> list[dict]:
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "server"))
    return [{"what": key} | {row["server"]: row.get(key, "-") for row in rows} for key in keys]


class Server:
    """One server over a data directory."""

    def __init__(self, name: str, binary: str, work: pathlib.Path, folder: str):
        self.name, self.binary, self.work = name, binary, work
        self.data = work / folder
        self.data.mkdir(exist_ok=True)
        self.config = work / "config.yml"
        self.config.write_text("scrape_configs: []\nstorage: {tsdb: {out_of_order_time_window: 0s}}\n")
        self.start()

    def start(self) -> None:
        self.port = common.free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        config = self.work / "none.yml" if self.name == "victoria-metrics" else self.config
        config.touch()
        command = common.server_command(self.name, self.binary, config, self.data, self.port)
        self.process = common.Process(self.name, command, self.work / f"{self.name}.log")

    def ready(self) -> None:
        common.wait_for(common.ready_url(self.name, self.port), 180)

    def cpu(self) -> float:
        return self.process.cpu_seconds()

    def peak(self) -> int:
        return self.process.memory_bytes("VmHWM") >> 20

    def reset_peak(self) -> None:
        pathlib.Path(f"/proc/{self.process.child.pid}/clear_refs").write_text("5")

    def metric(self, name: str) -> float:
        for line in common.get(f"{self.base}/metrics").decode().splitlines():
            if line.startswith(name + " ") or line.startswith(name + "{"):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def settle(self, seconds: int) -> None:
        """Waits until nothing is done any more, a whole cycle of the background work included."""
        started, quiet = time.monotonic(), 0
        while time.monotonic() - started < seconds and (quiet < 4 or time.monotonic() - started < CYCLE):
            before = self.cpu()
            time.sleep(2)
            quiet = quiet + 1 if self.cpu() - before < 0.1 else 0

    def restart(self, sig: int, expression: str, at: float) -> dict:
        """Stops and starts; seconds until it says that it is ready and until old data is served, and its memory."""
        before, peak_before = self.process.memory_bytes(), self.peak()
        stopped = self.process.stop(sig)
        started = time.monotonic()
        self.start()
        seconds = {}
        ready = common.ready_url(self.name, self.port)
        for what, asked in [("ready", lambda: common.get(ready)), ("data", lambda: self.one(expression, at))]:
            while time.monotonic() - started < PATIENCE:
                try:
                    if asked() is not None:
                        seconds[what] = time.monotonic() - started
                        break
                except (OSError, KeyError, ValueError):
                    pass
                time.sleep(0.005)
        what = "clean stop" if sig == signal.SIGTERM else "kill -9"
        row = {
            f"after {what}: ready, s": f"{seconds.get('ready', float('nan')):.2f}",
            f"after {what}: old data, s": f"{seconds.get('data', float('nan')):.2f}",
            f"after {what}: CPU-s": f"{self.cpu():.2f}",
            f"after {what}: peak RSS MiB (before: now, peak)": f"{self.peak()} ({before >> 20}, {peak_before})",
        }
        return row | ({"clean stop itself, s": f"{stopped:.2f}"} if sig == signal.SIGTERM else {})

    def one(self, expression: str, at: float):
        return common.query(self.base, expression, at) or None


def blocks(data: pathlib.Path) -> tuple[int, int]:
    """Bytes and samples of all blocks."""
    size = samples = 0
    for meta in data.glob("*/meta.json"):
        samples += json.loads(meta.read_text())["stats"]["numSamples"]
        size += common.directory_bytes(meta.parent)
    return size, samples


class LogWatch:
    """Bytes that were written to the log: what grows there, even if it is dropped again later."""

    def __init__(self, server: Server):
        self.server = server

    def bytes(self) -> float:
        if self.server.name == "prometheus":
            return self.server.metric("prometheus_tsdb_wal_segment_current") * (128 << 20) + last_segment(self.server)
        if self.server.name == "meerkat":
            return self.server.metric("meerkat_tsdb_wal_written_bytes_total")
        return 0.0


def last_segment(server: Server) -> int:
    segments = sorted((server.data / "wal").glob("[0-9]*"))
    return segments[-1].stat().st_size if segments else 0


def corpus(name: str, binary: str, work: pathlib.Path, arguments) -> dict:
    server = Server(name, binary, work, name)
    try:
        server.ready()
        end = (int(time.time()) - 60) // 15 * 15
        command = [
            arguments.replay,
            *["--corpus", arguments.corpus, "--targets", str(arguments.targets), "--end", str(end)],
            *["--interval", str(arguments.interval), "--hours", str(arguments.hours)],
            *(["--scrapes", str(arguments.scrapes)] if arguments.scrapes != 10 else []),
            *["--to", f"{server.base}/api/v1/write"],
        ]
        log = LogWatch(server)
        cpu, started = server.cpu(), time.monotonic()
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout
        seconds, cpu = time.monotonic() - started, server.cpu() - cpu
        sent = json.loads(output)
        million = sent["samples"] / 1e6
        row = {
            "million samples": f"{million:.1f}",
            "series": sent["series"],
            "ingest CPU-s per million": f"{cpu / million:.2f}",
            "ingest seconds": f"{seconds:.0f}",
            "ingest peak RSS MiB": server.peak(),
            "log bytes per sample": f"{log.bytes() / sent['samples']:.2f}" if log.bytes() else "none",
        }
        server.reset_peak()
        cpu = server.cpu()
        if name == "victoria-metrics":
            common.get(f"{server.base}/internal/force_flush", timeout=120)
            common.get(f"{server.base}/internal/force_merge", timeout=120)
            server.settle(20)
            size, samples = common.directory_bytes(server.data), sent["samples"]
        else:
            server.settle(arguments.settle)
            size, samples = blocks(server.data)
        row |= {
            "compaction CPU-s per million, after the last sample": f"{(server.cpu() - cpu) / million:.2f}",
            "compaction peak RSS MiB": server.peak(),
            "disk bytes per sample": f"{size / samples:.3f}" if samples else "-",
            "million samples in blocks": f"{samples / 1e6:.1f}",
            "RSS at rest MiB": server.process.memory_bytes() >> 20,
        }
        # The oldest data, and a moment for what was written last to be on disk everywhere.
        oldest = end - arguments.hours * 3600 + 60
        for sig in [signal.SIGTERM, signal.SIGKILL]:
            again = server.restart(sig, "count(go_info)", oldest)
            row |= {f"the recording, {what}": value for what, value in again.items()}
        return row
    finally:
        server.process.stop(signal.SIGKILL)
        shutil.rmtree(server.data, ignore_errors=True)


def varint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + varint(len(body)) + body


def snappy(body: bytes) -> bytes:
    """Snappy without compressing: literals only, as its format allows."""
    out = bytearray(varint(len(body)))
    for at in range(0, len(body), 65536):
        part = body[at : at + 65536]
        out += bytes([61 << 2]) + (len(part) - 1).to_bytes(2, "little") + part
    return bytes(out)


def sample(t_ms: int) -> bytes:
    """The value 1 as it stands in a series; as long at any time of this century."""
    return field(0x12, b"\x09" + b"\x00" * 6 + b"\xf0\x3f" + b"\x10" + varint(t_ms))


@functools.cache
def many_series(count: int, t_ms: int) -> list[bytes]:
    """Requests with one sample of each of so many series, not yet compressed."""

    def label(name: str, value: str) -> bytes:
        return field(0x0A, field(0x0A, name.encode()) + field(0x12, value.encode()))

    name = label("__name__", "many") + label("cluster", "eu-west-1") + label("container", "exporter")
    name += label("endpoint", "metrics")
    groups = [label("group", f"group-{g:03}") for g in range(1000)]
    job = label("instance", "host-1.example.org:9100") + label("job", "many") + label("namespace", "default")
    pods = [label("pod", f"exporter-{p:03}") for p in range(100)]
    value = sample(t_ms)
    requests = []
    for first in range(0, count, PER_REQUEST):
        out = bytearray()
        for i in range(first, min(first + PER_REQUEST, count)):
            out += field(0x0A, name + groups[i % 1000] + job + pods[i // 1000 % 100] + label("uid", f"user-{i:07}") + value)
        requests.append(bytes(out))
    return requests


def post(connection: socket.socket, body: bytes) -> None:
    head = (
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: snappy\r\n"
        "Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(answer.decode(errors="replace"))


def look_ups(name: str, binary: str, work: pathlib.Path, arguments) -> dict:
    server = Server(name, binary, work, name + "-many")
    try:
        server.ready()
        # Made once for all: it takes longer than sending.
        requests, made_for = many_series(arguments.many, FIRST_MS), sample(FIRST_MS)
        # Some servers hide the newest samples for a while.
        now = int(time.time()) - 180
        cpu, before = server.cpu(), server.process.memory_bytes()

        def write(at: int) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
                for body in requests:
                    post(connection, snappy(body.replace(made_for, sample(at * 1000))))

        write(now)
        cpu = server.cpu() - cpu
        grown = server.process.memory_bytes() - before
        if name == "victoria-metrics":
            common.get(f"{server.base}/internal/force_flush", timeout=120)
        row = {
            "new series, CPU-s per million": f"{cpu / arguments.many * 1e6:.2f}",
            "RSS bytes per new series": f"{grown / arguments.many:.0f}",
        }

        def seconds(path: str, **params) -> float:
            url = f"{server.base}{path}?{urllib.parse.urlencode(params)}"
            times = []
            for _ in range(5):
                started = time.perf_counter()
                common.get(url, timeout=120)
                times.append(time.perf_counter() - started)
            return statistics.median(times)

        def matcher(text: str) -> str:
            params = {"query": f"count(many{{{text}}})", "time": now + 30}
            if name == "victoria-metrics":
                params["nocache"] = "1"
            return f"{1000 * seconds('/api/v1/query', **params):.1f}"

        row |= {
            "one of a million, ms": matcher('uid="user-0500000"'),
            "a thousand by equality, ms": matcher('group="group-123"'),
            "ten by prefix regex, ms": matcher('uid=~"user-012345.*"'),
            "a thousand by suffix regex, ms": matcher('uid=~".*123"'),
            "all but one, ms": matcher('uid!="user-0500000"'),
            "all values of the label, ms": f"{1000 * seconds('/api/v1/label/uid/values'):.0f}",
            "100 values of the label, ms": f"{1000 * seconds('/api/v1/label/uid/values', limit=100):.1f}",
        }
        # A little log behind the last checkpoint, as there always is.
        server.reset_peak()
        write(now + 15)
        write(now + 30)
        # Some servers put on disk seconds later what they have acknowledged.
        time.sleep(10)
        for sig in [signal.SIGKILL, signal.SIGTERM]:
            again = server.restart(sig, 'many{uid="user-0000007"}', now + 10)
            row |= {f"a million series, {what}": value for what, value in again.items()}
            # Whoever is back takes samples of the series that it had.
            begun = time.monotonic()
            write(now + (45 if sig == signal.SIGKILL else 60))
            row[f"a million series, after {sig.name}: first samples, s"] = f"{time.monotonic() - begun:.2f}"
        return row
    finally:
        server.process.stop(signal.SIGKILL)
        shutil.rmtree(server.data, ignore_errors=True)


if __name__ == "__main__":
    main()
