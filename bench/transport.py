"""What the server costs without a model behind it: streamed tokens a second of a core, HTTP/1.1 beside HTTP/2,
memory of a stream and of an idle connection.

usage: transport.py BINARY [--rounds 3] [--only NAME] [--out bench/results]
The client is h2load. Processor time is the server's own (/proc, in nanoseconds), so that neither the client nor what else the
machine does counts.
Writes transport.json and transport.md. Every figure is measured in this run.
"""

import argparse
import datetime
import json
import math
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
IDLE = 10_000
PER_CONNECTION = 100  # streams of one HTTP/2 connection, the server's default
BODY = {"model": "mock", "messages": [{"role": "user", "content": "Say something."}], "stream": True}


class Server:
    def __init__(self, binary: str, model: str, *flags: str):
        command = [binary, "serve", model, "--port", "0", "--threads", "1", "--keep-requests", "0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = re.search(r"http://\S+", self.process.stdout.readline())
        if not found:
            sys.exit(f"{' '.join(command)} does not start")
        self.url = found[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def seconds(self) -> dict[str, float]:
        """Processor time so far, by the name of the thread; "all": of the process."""
        times = {"all": 0.0}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                used = int((task / "schedstat").read_text().split()[0]) / 1e9
            except FileNotFoundError:
                continue
            times["all"] += used
            times[name] = times.get(name, 0.0) + used
        return times

    def memory(self) -> int:
        """Bytes of this process alone; what its files hold in the page cache does not count."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024


def h2load(url: str, body: Path, streams: int, requests: int, version: str) -> list[str]:
    connections = streams if version == "1.1" else math.ceil(streams / PER_CONNECTION)
    protocol = ["--h1"] if version == "1.1" else [f"-m{math.ceil(streams / connections)}"]
    command = [
        "h2load",
        f"-c{connections}",
        *protocol,
        f"-n{requests}",
        "-t1",
        "-d",
        str(body),
        "-H",
        "content-type: application/json",
    ]
    return [*command, f"{url}/v1/chat/completions"]


def load(server: Server, body: Path, streams: int, requests: int, tokens: int, version: str) -> dict:
    before, started = server.seconds(), time.perf_counter()
    done = subprocess.run(h2load(server.url, body, streams, requests, version), capture_output=True, text=True)
    wall, after = time.perf_counter() - started, server.seconds()
    succeeded = int(re.search(r"(\d+) succeeded", done.stdout)[1])
    if succeeded != requests:
        sys.exit(f"{requests - succeeded} of {requests} requests failed:\n{done.stdout}{done.stderr}")
    total = requests * tokens
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    return {
        "tokens_per_second": total / wall,
        "tokens_per_core_second": total / used["all"],
        "io_tokens_per_core_second": total / used["mlxs-io"],
        "io_microseconds_per_token": 1e6 * used["mlxs-io"] / total,
        "microseconds_per_token": 1e6 * used["all"] / total,
        "bytes_per_token": int(re.search(r"traffic: .*?\((\d+)\) total", done.stdout)[1]) / total,
    }


def spread(rows: list[dict]) -> dict:
    return {
        key: {
            "median": statistics.median(r[key] for r in rows),
            "min": min(r[key] for r in rows),
            "max": max(r[key] for r in rows),
        }
        for key in rows[0]
    }


def saturated(args, body: Path) -> list[dict]:
    """100 clients that take tokens as fast as they come."""
    rows = []
    for batch in (1, 10):
        flags = ["--max-running", "128", "--token-batch", str(batch)]
        with Server(args.binary, "mock:tokens=512", *flags) as server:
            runs = {"1.1": [], "2": []}
            for version in runs:
                load(server, body, 100, 200, 512, version)  # warm
            for _ in range(args.rounds):
                for version in runs:
                    runs[version].append(load(server, body, 100, 2000, 512, version))
        rows += [
            {"case": "as fast as it goes", "streams": 100, "batch": batch, "version": v, **spread(r)} for v, r in runs.items()
        ]
    return rows


def paced(args, body: Path) -> list[dict]:
    """Every stream gets a token each 20 ms, as from a model: what the connections alone cost."""
    rows = []
    for streams in (50, 75, 100, 1000):
        flags = ["--max-running", "1024"]
        with Server(args.binary, "mock:tokens=128,delay=20", *flags) as server:
            runs = {"1.1": [], "2": []}
            for _ in range(args.rounds):
                for version in runs:
                    runs[version].append(load(server, body, streams, max(streams * 2, 200), 128, version))
        rows += [
            {"case": "a token each 20 ms", "streams": streams, "batch": 1, "version": v, **spread(r)} for v, r in runs.items()
        ]
    return rows


def memory(args, body: Path) -> list[dict]:
    """What a stream that waits for its next token holds, beyond the server without it."""
    rows = []
    for version in ("1.1", "2"):
        with Server(args.binary, "mock:tokens=64,delay=1000", "--max-running", "1024") as server:
            load(server, body, 8, 8, 64, version) if args.warm else None
            before = server.memory()
            client = subprocess.Popen(h2load(server.url, body, 1000, 1000, version), stdout=subprocess.DEVNULL)
            time.sleep(8)  # all of them have had tokens
            held = server.memory() - before
            client.kill()
            client.wait()
        rows.append({"case": "memory of a waiting stream", "streams": 1000, "version": version, "bytes": held / 1000})
    return rows


def idle(args, body: Path) -> list[dict]:
    """Connections that have had an answer and wait: what each holds, and what a request among them takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = IDLE if hard == resource.RLIM_INFINITY else min(IDLE, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
    ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"

    def request(client: socket.socket) -> float:
        started = time.perf_counter()
        client.sendall(ask)
        if not client.recv(4096).startswith(b"HTTP/1.1 200"):
            sys.exit("a connection got no answer")
        return time.perf_counter() - started

    with Server(args.binary, "mock:tokens=3", "--idle-timeout", "600") as server:
        address = re.search(r"//([^:/]+):(\d+)", server.url)
        clients = [socket.create_connection((address[1], int(address[2]))) for _ in range(2)]
        alone = statistics.median(request(clients[i % 2]) for i in range(200))
        before = server.memory()
        for _ in range(count):
            clients.append(socket.create_connection((address[1], int(address[2]))))
            request(clients[-1])
        held = server.memory() - before
        among = statistics.median(request(clients[i * 7919 % len(clients)]) for i in range(200))
        for client in clients:
            client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [{"connections": count, "bytes": held / count, "request_us": among * 1e6, "request_us_without": alone * 1e6}]


def markdown(results: dict, header: str) -> str:
    lines = [header, ""]
    if rows := results.get("saturated"):
        lines += [
            "| 100 streams, as fast as it goes | tokens/s of a core, whole server | of a core, I/O thread alone "
            "| tokens/s, client on the same machine |"
        ]
        lines += ["|---|---:|---:|---:|"]
        for r in rows:
            batch = "a token an event" if r["batch"] == 1 else f"{r['batch']} tokens an event"
            name = f"HTTP/{r['version']}, {batch}"
            cell = lambda key: f"{r[key]['median'] / 1e3:.0f}k ({r[key]['min'] / 1e3:.0f} … {r[key]['max'] / 1e3:.0f})"  # noqa: B023, E731
            keys = ("tokens_per_core_second", "io_tokens_per_core_second", "tokens_per_second")
            lines.append(f"| {name} | " + " | ".join(cell(key) for key in keys) + " |")
    if rows := results.get("paced"):
        lines += ["", "| a token each 20 ms: I/O thread, a token | HTTP/1.1 | HTTP/2 | less |", "|---|---:|---:|---:|"]
        for one, two in zip(rows[::2], rows[1::2], strict=True):
            a, b = (r["io_microseconds_per_token"] for r in (one, two))
            n = one["streams"]
            cost = " | ".join(f"{c['median']:.1f} µs ({c['min']:.1f} … {c['max']:.1f})" for c in (a, b))
            less = f"**{1 - b['median'] / a['median']:.0%}**"
            lines.append(f"| {n:,} streams on {n:,} / {math.ceil(n / PER_CONNECTION)} connections | {cost} | {less} |")
    if rows := results.get("memory"):
        sizes = ", ".join(f"HTTP/{r['version']}: {r['bytes'] / 1024:.1f} KiB" for r in rows)
        lines += ["", sizes + " of memory a waiting stream, of 1,000."]
    if rows := results.get("idle"):
        r = rows[0]
        lines += [
            "",
            f"{r['connections']:,} idle HTTP/1.1 connections: {r['bytes'] / 1024:.1f} KiB each; a request on one of them takes "
            f"{r['request_us']:.0f} µs (with two connections {r['request_us_without']:.0f}).",
        ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="saturated, paced, memory or idle")
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("h2load is missing (Debian and Ubuntu: apt-get install nghttp2-client)")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body.json"
        body.write_text(json.dumps(BODY))
        results = {f.__name__: f(args, body) for f in (saturated, paced, memory, idle) if re.search(args.only, f.__name__)}
    header = (
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} processors shared with h2load, {args.rounds} rounds."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    table = markdown(results, header)
    (args.out / "transport.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.out / "transport.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
