"""What the side-by-side runs share: starting servers, reading their cost from /proc, printing tables."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url: str, timeout: float = 30.0, data: bytes | None = None, headers: dict | None = None) -> bytes:
    request = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return response.read()


def query(base: str, expression: str, at: float | None = None) -> list:
    params = {"query": expression}
    if at is not None:
        params["time"] = f"{at:.3f}"
    body = get(f"{base}/api/v1/query?{urllib.parse.urlencode(params)}")
    return json.loads(body)["data"]["result"]


def wait_for(url: str, seconds: float = 60.0) -> float:
    """Polls until the URL answers with 200; returns the seconds it took."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            get(url, timeout=2.0)
            return time.monotonic() - started
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer within {seconds} s")


class Process:
    """A child process with its log in a file and its cost read from /proc."""

    def __init__(self, name: str, command: list[str], log: pathlib.Path):
        self.name = name
        self.log = log
        self.child = subprocess.Popen(command, stdout=log.open("ab"), stderr=subprocess.STDOUT)

    def cpu_seconds(self) -> float:
        try:
            # The clock of that process counts nanoseconds (clock_getcpuclockid(3)); /proc counts hundredths.
            return time.clock_gettime(~self.child.pid << 3 | 2)
        except OSError:
            return self.cpu_ticks()

    def cpu_ticks(self) -> float:
        """The same from /proc, which still knows it of a process that has ended and not been waited for."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_bytes(self, key: str = "VmRSS") -> int:
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self, sig: int = signal.SIGTERM, seconds: float = 120.0) -> float:
        started = time.monotonic()
        if self.child.poll() is None:
            self.child.send_signal(sig)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return time.monotonic() - started


def directory_bytes(path: pathlib.Path) -> int:
    """Bytes allocated below a directory; a file with several links counts once."""
    seen, total = set(), 0
    for item in path.rglob("*"):
        try:
            stat = item.lstat()
        except FileNotFoundError:
            continue
        if stat.st_ino not in seen:
            seen.add(stat.st_ino)
            total += stat.st_blocks * 512
    return total


def binaries(arguments) -> dict[str, str]:
    """Paths of the servers to compare; those that are missing are named and left out."""
    peers = pathlib.Path(arguments.peers)
    wanted = {
        "prometheus": peers / "usr/bin/prometheus",
        "victoria-metrics": peers / "usr/bin/victoria-metrics",
        "meerkat": pathlib.Path(arguments.meerkat),
    }
    found = {}
    for name, path in wanted.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        if path.exists():
            found[name] = str(path)
        else:
            print(f"skipped: {name} ({path} is missing)")
    return found


def server_command(name: str, binary: str, config: pathlib.Path, data: pathlib.Path, port: int) -> list[str]:
    if name == "victoria-metrics":
        return [
            binary,
            f"-promscrape.config={config}",
            f"-storageDataPath={data}",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=10y",
        ]
    return [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=10y",
    ]


def ready_url(name: str, port: int) -> str:
    return f"http://127.0.0.1:{port}/" + ("health" if name == "victoria-metrics" else "-/ready")


def print_table(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(str(row.get(c, "")) for c in columns) + " |")
    text = "\n".join(lines)
    print(text)
    return text


def record(name: str, title: str, rows: list[dict], notes: list[str]) -> None:
    """Writes the table to benches/record/NAME.md with what is needed to repeat the run."""
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    cpu = next(
        (l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown CPU"
    )
    path = ROOT / "benches/record" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    lines = [
        f"# {title}",
        "",
        f"{time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores, {cpu}.",
        "",
        print_table(rows),
        "",
        *notes,
        "",
    ]
    path.write_text("\n".join(lines))
    print(f"written to {path.relative_to(ROOT)}")


def workspace() -> pathlib.Path:
    return pathlib.Path(tempfile.mkdtemp(prefix="meerkat-bench-"))
