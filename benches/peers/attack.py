#!/usr/bin/env python3
"""Health, scrapes and memory while somebody attacks.

`benches/peers/attack.py --record attack` after `cargo build --release --bin meerkat`; takes about six minutes.
`--only meerkat,prometheus` runs the same attacks on Prometheus (`--peers DIR`).

One server scrapes an exporter of 1,000 series each second. One attack after the other runs against it, in processes
of its own with the lowest priority, as an attacker elsewhere would not take this machine's CPU. Meanwhile a fresh
connection asks for `/-/healthy` every 10 ms, the exporter notes when it is scraped, and the server's memory is read.
Printed are the latencies of health, how far scrapes were from their second, the largest memory, and what attackers
were answered. The server has its default limits, but 20 seconds for a query.
"""

import argparse
import asyncio
import gzip
import http.server
import itertools
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import common

#: Name, what is attacked with, connections that try at once.
ATTACKS = [
    ("none", "nobody", 0),
    ("slow headers", "5,000 sockets, one header byte each five seconds", 5000),
    ("silence", "10,000 sockets that say nothing", 10000),
    ("slow bodies", "2,000 requests whose body trickles", 2000),
    ("connections", "10,000 connections that ask one small query each, again and again", 10000),
    ("handshakes", "64 clients that connect, ask for `/metrics` and hang up", 64),
    ("junk", "32 clients: zeros, TLS, wrong lengths, huge heads", 32),
    ("pipelines", "32 connections with 200 queries in flight each", 32),
    ("heavy queries", "400 clients, percentiles of everything at each second", 400),
    ("queries of death", "64 clients: deep, long, wide, endless", 64),
    ("deaf readers", "300 clients that ask for megabytes and do not read", 300),
    ("remote write", "32 clients: lying lengths, broken messages", 32),
    ("hostile targets", "nine targets: endless, dripping, exploding, churning", 0),
]
SERIES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meerkat", default=str(common.ROOT / "target/release/meerkat"))
    parser.add_argument("--peers", default="/usr/local")
    parser.add_argument("--only", default="meerkat")
    parser.add_argument("--attacks", default="", help="names, separated by commas; all of them without it")
    parser.add_argument("--seconds", type=float, default=20.0, help="time of each attack")
    parser.add_argument("--record", default="")
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--log", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.role == "exporter":
        exporter(arguments.port, arguments.log)
    elif arguments.role == "hostile":
        hostile(arguments.port)
    elif arguments.role:
        os.nice(19)
        asyncio.run(attack(arguments.role, arguments.port, pathlib.Path(arguments.log)))
    else:
        compare(arguments)


def compare(arguments) -> None:
    wanted = [name for name in arguments.attacks.split(",") if name]
    attacks = [a for a in ATTACKS if not wanted or a[0] in wanted]
    work = common.workspace()
    rows = []
    for name, binary in common.binaries(arguments).items():
        if name != "victoria-metrics":
            rows += measure(name, binary, attacks, work / name, arguments)
    shutil.rmtree(work, ignore_errors=True)
    if not arguments.record:
        common.print_table(rows)
        return
    notes = [f"- **{name}**: {what}." for name, what, _ in attacks] + [
        "",
        f"Each attack lasts {arguments.seconds:g} s. Health is asked for on a fresh connection every 10 ms; a probe "
        "without an answer within 10 s counts as lost. Scrapes are due each second; the column is how far the gap "
        "between two of them was from it at most. The attackers run on the same cores with the lowest priority.",
    ]
    common.record(arguments.record, "Under attack", rows, notes)


def child(role: str, port: int, log: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, "--role", role, "--port", str(port), "--log", str(log)])


def measure(name: str, binary: str, attacks: list, work: pathlib.Path, arguments) -> list[dict]:
    work.mkdir()
    port, exporter_port, hostile_port = common.free_port(), common.free_port(), common.free_port()
    scraped = work / "scraped"
    targets = work / "targets.json"
    targets.write_text("[]")
    config = work / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: watched\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]\n"
        "  - job_name: hostile\n"
        "    body_size_limit: 64MB\n"
        f"    file_sd_configs: [{{files: ['{targets}'], refresh_interval: 1s}}]\n"
    )
    helpers = [child("exporter", exporter_port, scraped), child("hostile", hostile_port, scraped)]
    command = common.server_command(name, binary, config, work / "data", port) + ["--query.timeout=20s"]
    server = common.Process(name, command, work / "log")
    rows = []
    try:
        common.wait_for(common.ready_url(name, port))
        # Queries need something to chew on.
        time.sleep(3 * arguments.seconds)
        for attack_name, _, connections in attacks:
            print(f"{name}: {attack_name}", flush=True)
            attackers = []
            counted = work / "counted"
            counted.unlink(missing_ok=True)
            if attack_name == "hostile targets":
                paths = [f"/{kind}" for kind in HOSTILE]
                groups = [
                    {"targets": [f"127.0.0.1:{hostile_port}"], "labels": {"__metrics_path__": p, "kind": p[1:]}}
                    for p in paths
                ]
                targets.write_text(json.dumps(groups))
            elif connections:
                attackers = [child(attack_name, port, counted)]
            time.sleep(3)
            row = {"server": name, "attack": attack_name} | watch(server, port, scraped, arguments.seconds)
            for attacker in attackers:
                attacker.terminate()
                attacker.wait()
            row["answers"] = counted.read_text() if counted.exists() else ""
            targets.write_text("[]")
            rows.append(row)
            settle(port)
        return rows
    finally:
        server.stop()
        for helper in helpers:
            helper.kill()
            helper.wait()


def settle(port: int) -> None:
    """Waits until the server answers a query again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            common.get(f"http://127.0.0.1:{port}/api/v1/query?query=1", timeout=5)
            return
        except OSError:
            time.sleep(0.2)


def watch(server: common.Process, port: int, scraped: pathlib.Path, seconds: float) -> dict:
    latencies, lost, memory = [], 0, server.memory_bytes()
    begun, wall = time.monotonic(), time.time()
    cpu = server.cpu_seconds()
    while time.monotonic() - begun < seconds:
        asked = time.monotonic()
        if probe(port):
            latencies.append((time.monotonic() - asked) * 1000)
        else:
            lost += 1
        if len(latencies) % 20 == 0:
            memory = max(memory, server.memory_bytes())
        time.sleep(max(0.0, 0.01 - (time.monotonic() - asked)))
    elapsed = time.monotonic() - begun
    latencies = sorted(latencies) or [float("inf")]

    def at(part: float) -> str:
        return f"{latencies[min(int(len(latencies) * part), len(latencies) - 1)]:.1f}"

    times = [float(line) for line in scraped.read_text().split()]
    times = [t for t in times if t >= wall - 1]
    drift = max((abs(b - a - 1) for a, b in itertools.pairwise(times)), default=float("inf"))
    return {
        "probes": len(latencies),
        "lost": lost,
        "p50 ms": at(0.5),
        "p99 ms": at(0.99),
        "max ms": at(1),
        "scrapes": f"{sum(t >= wall for t in times)} of {elapsed:.0f}",
        "drift ms": f"{drift * 1000:.0f}",
        "RSS peak MiB": memory >> 20,
        "CPU %": f"{100 * (server.cpu_seconds() - cpu) / elapsed:.0f}",
    }


def probe(port: int) -> bool:
    """Whether health is told on a fresh connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            s.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return s.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


# --- the exporter -----------------------------------------------------------------------------------------------


def exporter(port: int, log: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with open(log, "a") as file:
                file.write(f"{time.time():.4f}\n")
            now = time.time()
            body = "".join(f'm{{i="{i}"}} {(now * (i + 1)) % 1000}\n' for i in range(SERIES)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    pathlib.Path(log).touch()
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


HOSTILE = ["hang", "drip", "endless", "line", "bomb", "junk", "labels", "churn", "loop"]


def hostile(port: int) -> None:
    os.nice(19)
    bomb = gzip.compress(b"a 1\n" * (64 << 20), 1)
    turn = itertools.count()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                self.answer(self.path[1:])
            except OSError:
                pass

        def answer(self, kind: str) -> None:
            if kind == "hang":
                time.sleep(30)
                return
            self.send_response(302 if kind == "loop" else 200)
            if kind == "loop":
                self.send_header("Location", "/loop")
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            if kind == "bomb":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            if kind == "drip":
                for _ in range(60):
                    self.wfile.write(b"a")
                    self.wfile.flush()
                    time.sleep(1)
            elif kind == "endless":
                while True:
                    self.wfile.write(b"".join(b'e{i="%d"} 1\n' % i for i in range(1000)))
            elif kind == "line":
                while True:
                    self.wfile.write(b"a" * 65536)
            elif kind == "bomb":
                self.wfile.write(bomb)
            elif kind == "junk":
                self.wfile.write(os.urandom(1 << 20))
            elif kind == "labels":
                self.wfile.write(b"w{" + b",".join(b'l%d="v"' % i for i in range(100000)) + b"} 1\n")
            elif kind == "churn":
                n = next(turn)
                self.wfile.write(b"".join(b'c{n="%d",i="%d"} 1\n' % (n, i) for i in range(20000)))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


# --- the attackers ----------------------------------------------------------------------------------------------


def get(path: str, **parameters) -> bytes:
    text = f"{path}?{urllib.parse.urlencode(parameters)}" if parameters else path
    return f"GET {text} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def junk() -> list[bytes]:
    return [
        bytes(4096),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"b" * 200000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST /api/v1/query HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzzz",
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        os.urandom(65536),
    ]


def deaths() -> list[bytes]:
    now = int(time.time())
    deep = 5000
    texts = [
        "(" * deep + "1" + ")" * deep,
        "-" * deep + "1",
        "+".join(["m"] * 5000),
        "max_over_time(m[10y:1ms])",
        'count({__name__=~".+"})',
        'm{i=~"(((a{1000}){1000}){1000})"}',
        'm{i=~"(x+x+)+y"}',
        'm{i=~"' + "|".join(str(i) for i in range(9000)) + '"}',
        'label_replace(m, "x", "$1$1$1$1", "i", "(.*)")',
        "m * on () group_left () m",
        "topk(1e9, m)",
        "m @ 1e300",
        "sum_over_time(m[1h] offset -100y)",
        "histogram_quantile(0.9, m)",
        "m" * 1_000_000,
        "absent(absent(absent(m)))",
    ]
    out = []
    for text in texts:
        body = urllib.parse.urlencode({"query": text, "start": now - 3600, "end": now, "step": 1}).encode()
        head = (
            "POST /api/v1/query_range HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        out.append(head.encode() + body)
    return out


def writes() -> list[bytes]:
    bodies = [
        b"\xff\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x04" + os.urandom(20),
        os.urandom(100000),
        b"",
        b"\x10\x3c" + b"\x0a\x0e" * 8,
    ]
    kinds = ["application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "text/html"]
    out = []
    for body, kind in itertools.product(bodies, kinds):
        head = (
            "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: snappy\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        out.append(head.encode() + body)
    return out


class Counts:
    """What attackers were answered, by status."""

    def __init__(self, path: pathlib.Path):
        self.path, self.by_status = path, {}

    def add(self, answer: bytes) -> None:
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.") else "closed"
        self.by_status[status] = self.by_status.get(status, 0) + 1

    def save(self) -> None:
        self.path.write_text(", ".join(f"{k}: {v}" for k, v in sorted(self.by_status.items())))


async def connect(port: int):
    return await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)


async def answer(reader) -> bytes:
    """The head of an answer, its body read and thrown away."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"\r\ncontent-length:" in lower:
        length = int(lower.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])
        while length > 0:
            read = await reader.read(min(length, 65536))
            if not read:
                break
            length -= len(read)
    elif b"chunked" in lower:
        while True:
            size = int((await reader.readline()).strip() or b"0", 16)
            await reader.readexactly(size + 2)
            if size == 0:
                break
    return head


async def hold(port: int, first: bytes, drop: bytes) -> None:
    """A connection that says `first` and then one more piece each five seconds, until it is cut off."""
    reader, writer = await connect(port)
    try:
        if first:
            writer.write(first)
        while not reader.at_eof():
            try:
                await asyncio.wait_for(reader.read(4096), 5)
            except asyncio.TimeoutError:
                if drop:
                    writer.write(drop)
                    await writer.drain()
    finally:
        writer.close()


async def ask(port: int, messages: list[bytes], counts: Counts, wait: float = 30.0) -> None:
    """Fresh connections, each with one message to its end."""
    for message in messages:
        reader, writer = await connect(port)
        try:
            writer.write(message)
            if writer.can_write_eof():
                writer.write_eof()
            counts.add(await asyncio.wait_for(reader.read(4096), wait))
        except asyncio.TimeoutError:
            counts.add(b"")
        finally:
            writer.close()


async def keep_asking(port: int, message: bytes, counts: Counts) -> None:
    """One connection that asks again and again."""
    reader, writer = await connect(port)
    try:
        while True:
            writer.write(message)
            head = await answer(reader)
            counts.add(head)
            if b" 503 " in head:
                return
    finally:
        writer.close()


async def pipeline(port: int, message: bytes, counts: Counts) -> None:
    reader, writer = await connect(port)
    try:
        while True:
            writer.write(message * 200)
            for _ in range(200):
                counts.add(await answer(reader))
    finally:
        writer.close()


async def deaf(port: int, message: bytes) -> None:
    reader, writer = await connect(port)
    try:
        writer.transport.pause_reading()
        writer.write(message)
        await asyncio.sleep(30)
    finally:
        writer.close()


async def attack(name: str, port: int, counted: pathlib.Path) -> None:
    counts = Counts(counted)
    now = int(time.time())
    heavy = get("/api/v1/query_range", query="sum(quantile_over_time(0.9, m[5m]))", start=now - 600, end=now, step=1)
    large = get("/api/v1/query_range", query="m", start=now - 60, end=now, step=1)
    small = get("/api/v1/query", query="sum(m)")
    slow_body = (
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 1000\r\n\r\nquery="
    )
    once = {
        "slow headers": lambda: hold(port, b"GET /-/healthy HTTP/1.1\r\nX-Slow: ", b"a"),
        "silence": lambda: hold(port, b"", b""),
        "slow bodies": lambda: hold(port, slow_body, b"a"),
        "connections": lambda: keep_asking(port, small, counts),
        "handshakes": lambda: ask(port, [get("/metrics")], counts),
        "junk": lambda: ask(port, junk(), counts),
        "pipelines": lambda: pipeline(port, small, counts),
        "heavy queries": lambda: keep_asking(port, heavy, counts),
        "queries of death": lambda: ask(port, deaths(), counts),
        "deaf readers": lambda: deaf(port, large),
        "remote write": lambda: ask(port, writes(), counts),
    }[name]

    async def again() -> None:
        while True:
            try:
                await once()
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                counts.add(b"")
            await asyncio.sleep(0.1)

    async def save() -> None:
        while True:
            await asyncio.sleep(0.5)
            counts.save()

    connections = next(count for attack_name, _, count in ATTACKS if attack_name == name)
    await asyncio.gather(save(), *(again() for _ in range(connections)))


if __name__ == "__main__":
    main()
