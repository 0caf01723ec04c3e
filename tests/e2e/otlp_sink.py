"""A small OTLP/HTTP receiver in this process: what a collector hears, and how it can misbehave."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class OtlpSink:
    """Keeps every body it accepts. `answers`: statuses for the next posts, before it accepts again."""

    def __init__(self):
        self.changed = threading.Condition()
        self.bodies = {"/v1/traces": [], "/v1/metrics": []}
        self.headers, self.paths = [], []  # of what it accepted
        self.answers = []
        self.refused = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with sink.changed:
                    status = sink.answers.pop(0) if sink.answers else 200
                    if status == 200:
                        sink.bodies[self.path].append(json.loads(body))
                        sink.headers.append(dict(self.headers))
                        sink.paths.append(self.path)
                    else:
                        sink.refused += 1
                    sink.changed.notify_all()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, condition, timeout=120):
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "the sink never heard it"

    def spans(self) -> list[dict]:
        return [
            {**span, "resource": attributes(resource["resource"])}
            for body in self.bodies["/v1/traces"]
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def metrics(self) -> dict[str, dict]:
        """The last export, by name."""
        last = self.bodies["/v1/metrics"][-1]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
        return {metric["name"]: metric for metric in last}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def attributes(thing: dict) -> dict:
    return {entry["key"]: plain(entry["value"]) for entry in thing.get("attributes", [])}


def plain(value: dict):
    kind, content = next(iter(value.items()))
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [plain(entry) for entry in content.get("values", [])]
    return content
