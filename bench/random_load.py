#!/usr/bin/env python3
"""Random requests to a running server for a while, then a look at what it still holds: nothing, or the exit status is 1.

Lengths, sampling and moments of the clients' going away are random; half of the prompts begin like others.
usage: bench/random_load.py http://127.0.0.1:8000 [--seconds 120] [--clients 48] [--seed 1]
"""

import argparse
import collections
import http.client
import json
import random
import re
import statistics
import threading
import time
import urllib.parse
import urllib.request

WORDS = ("ask", "tell", "say", "show")
PREFIXES = [" ".join(f"{word}-{number}" for word in WORDS for number in range(12 + 8 * i)) for i in range(5)]


def request_of(rng, model):
    prompt = rng.choice(PREFIXES) + " " if rng.random() < 0.5 else ""
    prompt += " ".join(str(rng.randrange(10**6)) for _ in range(rng.choice([1, 5, 20, 100, 200])))
    body = {"model": model, "prompt": prompt, "max_tokens": rng.choice([1, 4, 16, 64, 200]), "stream": True, "ignore_eos": True}
    if rng.random() < 0.5:
        body |= {"temperature": rng.uniform(0.3, 1.2), "top_p": rng.uniform(0.5, 1), "seed": rng.randrange(2**31)}
    else:
        body["temperature"] = 0
    return body


class Client(threading.Thread):
    def __init__(self, args, address, model, number):
        super().__init__(daemon=True)
        self.args, self.address, self.model = args, address, model
        self.random = random.Random(args.seed * 1000 + number)
        self.counts, self.first, self.tokens, self.failures = collections.Counter(), [], 0, []

    def run(self):
        end = time.monotonic() + self.args.seconds
        while time.monotonic() < end:
            try:
                self.one()
            except Exception as error:  # whatever it is, the server is to blame
                self.counts["failed"] += 1
                self.failures.append(repr(error))
                if len(self.failures) > 20:
                    return

    def one(self):
        body = request_of(self.random, self.model)
        leaves_after = self.random.randrange(1, 30) if self.random.random() < 0.2 else None
        connection = http.client.HTTPConnection(self.address, timeout=60)
        started = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read(300)!r}")
        events = 0
        for line in answer:
            if not line.startswith(b"data:"):
                continue
            if line.strip() == b"data: [DONE]":
                self.counts["completed"] += 1
                break
            if b'"error"' in line:
                raise RuntimeError(line.decode())
            events += 1
            if events == 1:
                self.first.append(time.monotonic() - started)
            if leaves_after is not None and events >= leaves_after:
                self.counts["left"] += 1
                break
        else:
            raise RuntimeError("the stream ended without [DONE]")
        self.tokens += events
        connection.close()


def pages(url):
    metrics = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
    found = dict(re.findall(r'mlxs_kv_pages\{[^}]*state="(\w+)"[^}]*\} (\S+)', metrics))
    running = re.findall(r"^mlxs_(?:running|waiting)\w*(?:\{[^}]*\})? (\S+)", metrics, re.M)
    return {state: float(value) for state, value in found.items()}, [float(value) for value in running]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = json.load(urllib.request.urlopen(args.url + "/v1/models", timeout=10))["data"][0]["id"]
    clients = [Client(args, urllib.parse.urlsplit(args.url).netloc, model, i) for i in range(args.clients)]
    started = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join(args.seconds + 120)
    took = time.monotonic() - started
    counts = sum((client.counts for client in clients), collections.Counter())
    first = sorted(value for client in clients for value in client.first)
    tokens = sum(client.tokens for client in clients)
    for _ in range(100):
        held, active = pages(args.url)
        if held.get("held") == 0 and not any(active):
            break
        time.sleep(0.1)
    failures = [text for client in clients for text in client.failures]
    middle = statistics.median(first) * 1e3
    print(f"{took:.0f} s: {dict(counts)}, {tokens / took:.0f} events/s, first token {middle:.1f} ms (p50)")
    print(f"pages: {held}")
    for text in failures[:5]:
        print(text)
    raise SystemExit(0 if held.get("held") == 0 and not failures and counts["completed"] > 0 else 1)


if __name__ == "__main__":
    main()
