"""A small server of the OpenAI API that is not ours: models, and chats as streams the way others write them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class OtherServer:
    """Each answer: a chunk with the role, then `words`; with usage if `usage`. `prompts`: what it was asked."""

    def __init__(self, words: int = 5, usage: bool = False, end: str = "\n\n"):
        self.prompts, self.fields = [], []
        other = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = json.dumps({"object": "list", "data": [{"id": "other-model"}]}).encode()
                self.send_response(200 if self.path == "/v1/models" else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                other.prompts.append(asked["messages"][-1]["content"])
                other.fields.append(asked)
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.event(": a comment")
                self.delta({"role": "assistant", "content": ""})
                for word in range(words):
                    self.delta({"content": f" w{word}"})
                self.delta({}, finish="stop")
                if usage:
                    self.data(
                        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": words, "total_tokens": 7 + words}}
                    )
                self.event("data: [DONE]")
                self.wfile.write(b"0\r\n\r\n")

            def delta(self, delta, finish=None):
                self.data({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

            def data(self, value):
                self.event("data: " + json.dumps(value))

            def event(self, text):
                event = (text + end).encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
