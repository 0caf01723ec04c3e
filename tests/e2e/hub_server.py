"""A small Hugging Face hub on this machine: the API that clients use, large files behind a redirect to a second server
(the CDN), ranges, and faults that a test switches on. Also what Python's huggingface_hub needs, to check the server itself."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1 << 12  # from here on a file is kept beside git, named by its SHA-256


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Seen:
    server: str  # "hub" or "cdn"
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Repo:
    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False
    token: str | None = None  # needed to see it at all

    def etag(self, path):
        data = self.files[path]
        return hashlib.sha256(data).hexdigest() if len(data) >= LARGE else git_sha1(data)


@dataclass
class Faults:
    cut_after: list[int] = field(default_factory=list)  # the next answers with bytes end after so many
    busy: int = 0  # so many answers are 429, Retry-After: 1
    broken: int = 0  # so many answers are 503
    ranges: bool = True
    instead: dict[str, bytes] = field(default_factory=dict)  # what is sent under a path
    hold: threading.Event | None = None  # bytes wait for it


class Hub:
    """`with Hub() as hub: hub.repos["org/repo"] = Repo({...})`; hub.url is HF_ENDPOINT."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), self._handler(name)) for name in ("hub", "cdn")}
        for server in self.servers.values():
            server.daemon_threads = True

    def url_of(self, name):
        return f"http://127.0.0.1:{self.servers[name].server_port}"

    @property
    def url(self):
        return self.url_of("hub")

    def __enter__(self):
        for server in self.servers.values():
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def transfers(self, path):
        """Requests for a file's bytes, wherever they went."""
        return [
            s for s in self.seen if s.method == "GET" and s.path.endswith(path) and ("/resolve/" in s.path or s.server == "cdn")
        ]

    def _take(self, name):
        with self.lock:
            count = getattr(self.faults, name)
            setattr(self.faults, name, max(0, count - 1))
            return count > 0

    def _handler(hub, name):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def answer(self):
                token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
                with hub.lock:
                    hub.seen.append(Seen(name, self.command, self.path, self.headers.get("Range"), token))
                url = urlsplit(self.path)
                path = unquote(url.path)
                if self.command == "GET" and hub._take("busy"):
                    return self.status(429, {"Retry-After": "1"})
                if self.command == "GET" and hub._take("broken"):
                    return self.status(503)
                if name == "cdn":
                    repo, _, file = path.removeprefix("/").partition("/-/")
                    return self.send_file(hub.repos[repo], file)
                if path == "/api/models":
                    query = parse_qs(url.query)
                    author, search = query.get("author", [""])[0], query.get("search", [""])[0].lower()
                    return self.send_json(
                        [{"id": r} for r in hub.repos if r.startswith(f"{author}/") or (search and search in r.lower())]
                    )
                if path.startswith("/api/models/"):
                    return self.api(path.removeprefix("/api/models/"), token)
                repo, _, rest = path.removeprefix("/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                found = self.find(repo, revision, token)
                return None if found is None else self.resolve(found, repo, file)

            def find(self, repo, revision, token):
                found = hub.repos.get(repo)
                if found is None or (found.token and token != found.token):
                    return self.status(401, {"X-Error-Code": "RepoNotFound"})
                if found.gated and token is None:
                    return self.status(401, {"X-Error-Code": "GatedRepo"})
                if revision not in ("main", "v1/stable", found.commit):
                    return self.status(404, {"X-Error-Code": "RevisionNotFound"})
                return found

            def api(self, path, token):
                repo, kind, revision = path, "revision", "main"
                for kind_ in ("revision", "tree"):
                    if f"/{kind_}/" in path:
                        repo, kind, revision = path.partition(f"/{kind_}/")[0], kind_, path.partition(f"/{kind_}/")[2]
                found = self.find(repo, revision, token)
                if found is None:
                    return
                entries = []
                for file, data in found.files.items():
                    large = len(data) >= LARGE
                    sha256 = hashlib.sha256(data).hexdigest()
                    if kind == "tree":
                        entry = {"type": "file", "path": file, "size": len(data), "oid": git_sha1(data)}
                        lfs = {"oid": sha256, "size": len(data), "pointerSize": 134}
                    else:
                        entry = {"rfilename": file, "size": len(data), "blobId": git_sha1(data)}
                        lfs = {"sha256": sha256, "size": len(data), "pointerSize": 134}
                    entries.append({**entry, **({"lfs": lfs} if large else {})})
                self.send_json(
                    entries if kind == "tree" else {"id": repo, "modelId": repo, "sha": found.commit, "siblings": entries}
                )

            def resolve(self, repo, name, file):
                if file not in repo.files:
                    return self.status(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
                size, etag = len(repo.files[file]), f'"{repo.etag(file)}"'
                if size < LARGE:
                    return self.send_file(repo, file, {"ETag": etag, "X-Repo-Commit": repo.commit})
                return self.status(
                    302,
                    {
                        "Location": f"{hub.url_of('cdn')}/{name}/-/{file}",
                        "X-Repo-Commit": repo.commit,
                        "X-Linked-Etag": etag,
                        "X-Linked-Size": str(size),
                    },
                )

            def send_file(self, repo, file, headers=None):
                data = hub.faults.instead.get(file, repo.files[file])
                begin = 0
                wanted = self.headers.get("Range")
                if wanted and hub.faults.ranges:
                    begin = int(wanted.removeprefix("bytes=").partition("-")[0])
                    if begin >= len(data):
                        return self.status(416, {"Content-Range": f"bytes */{len(data)}"})
                self.send_response(206 if begin else 200)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                if self.command == "HEAD":
                    return None
                if hub.faults.hold is not None:
                    hub.faults.hold.wait(60)
                with hub.lock:
                    cut = hub.faults.cut_after.pop(0) if hub.faults.cut_after and len(data) >= LARGE else None
                self.wfile.write(data[begin:] if cut is None else data[begin : begin + cut])
                if cut is not None:
                    self.close_connection = True
                return None

            def send_json(self, value):
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def status(self, code, headers=None):
                self.send_response(code)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
