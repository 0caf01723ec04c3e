"""What watching costs: one server with metrics, access log, records, flight recorder and OTLP export of every trace, against
one with none of them, in alternating rounds of the same load. Prints ratios of throughput and of p95 between tokens.

usage: telemetry_cost.py BINARY MODEL [--rounds 10] [--streams 8] [--tokens 64] [--out bench/results]
Both servers run at once and take turns under load, so that what else the machine does hits both alike.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

OFF = ["--no-metrics", "--no-access-log", "--keep-requests", "0", "--flight-steps", "0"]
ON = ["--log-format", "json", "--trace-sample", "1", "--otlp-metrics-interval-ms", "1000"]


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def start(binary, model, flags, folder):
    process = subprocess.Popen(
        [binary, "serve", model, "--port", "0", "--flight-dir", folder, *flags],
        stdout=subprocess.PIPE,
        stderr=open(os.path.join(folder, f"{len(flags)}.log"), "w"),  # noqa: SIM115 - lives as long as the process
        text=True,
    )
    line = process.stdout.readline()
    if " on http" not in line:
        sys.exit(f"the server did not start: {folder}")
    return process, line.split(" on ")[1].split()[0]


def stream(url, tokens, gaps):
    """One streamed answer; appends the seconds between its events."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    body = {"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    last = None
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        if last is not None:
            gaps.append(now - last)
        last = now
    connection.close()


def round_of(url, streams, tokens):
    gaps = []
    threads = [threading.Thread(target=stream, args=(url, tokens, gaps)) for _ in range(streams)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return streams * tokens / seconds, statistics.quantiles(gaps, n=20)[18]


def spread(values):
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    args = parser.parse_args()
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        on, on_url = start(args.binary, args.model, [*ON, "--otlp-endpoint", f"http://127.0.0.1:{sink.server_port}"], folder)
        off, off_url = start(args.binary, args.model, OFF, folder)
        try:
            for url in (on_url, off_url):
                round_of(url, args.streams, args.tokens)
            pairs = []
            for number in range(args.rounds):
                sides = [("on", on_url), ("off", off_url)]
                result = {name: round_of(url, args.streams, args.tokens) for name, url in sides[:: 1 if number % 2 else -1]}
                pairs.append((result["on"], result["off"]))
                ratio = result["on"][0] / result["off"][0]
                print(
                    f"  round {number + 1}: {result['on'][0]:.0f} vs {result['off'][0]:.0f} tok/s = {ratio:.3f}", file=sys.stderr
                )
        finally:
            for process in (on, off):
                process.terminate()
                process.wait()
    report = {
        "streams": args.streams,
        "throughput_ratio": spread([a[0] / b[0] for a, b in pairs]),
        "p95_inter_token_ratio": spread([a[1] / b[1] for a, b in pairs]),
        "tokens_per_second_on": statistics.median(a[0] for a, _ in pairs),
        "tokens_per_second_off": statistics.median(b[0] for _, b in pairs),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "telemetry_cost.json").write_text(json.dumps(report, indent=1) + "\n")
    for name in ("throughput_ratio", "p95_inter_token_ratio"):
        r = report[name]
        print(f"telemetry on / off, {name}: {r['median']:.3f} ({r['min']:.3f} … {r['max']:.3f})")


if __name__ == "__main__":
    main()
