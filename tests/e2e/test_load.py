"""Many clients at once, clients that leave, clients that do not read: nobody else notices and nothing is lost."""

import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

CHAT = "/v1/chat/completions"


def request_bytes(api, path=CHAT, **fields) -> bytes:
    body = {"model": api.model, "temperature": 1, "ignore_eos": True, **fields}
    if path == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "Tell me a long story."}])
    text = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(text)) + text


def wait_until_idle(api, seconds=60) -> dict:
    deadline = time.monotonic() + seconds
    while True:
        stats = api.stats()
        if stats["running"] + stats["waiting"] + stats["paused"] + stats["kv_pages"]["held"] == 0:
            return stats
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)


def test_five_hundred_clients_leave_and_no_page_stays_in_use(api):
    wait_until_idle(api)
    before = api.stats()
    rng = random.Random(500)

    def leave(index: int) -> None:
        # At any moment: half a request, right after it, before the first token, in the middle of a stream.
        choice = random.Random(index)
        fields = {"max_tokens": choice.choice([50, 500, 2000]), "stream": choice.random() < 0.6, "n": choice.choice([1, 1, 3])}
        fields["messages"] = [{"role": "user", "content": "word " * choice.choice([1, 100, 600])}]
        data = request_bytes(api, **fields)
        with api.connect() as connection:
            if choice.random() < 0.1:
                connection.sendall(data[: choice.randrange(len(data))])
                return
            connection.sendall(data)
            if fields["stream"] and choice.random() < 0.5:
                for _ in range(choice.randrange(1, 4)):
                    connection.recv(choice.choice([100, 5000]))
            else:
                time.sleep(choice.random() * 0.1)
            if choice.random() < 0.3:  # a reset instead of a goodbye
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    order = list(range(500))
    rng.shuffle(order)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(leave, order))
    after = wait_until_idle(api)
    assert after["kv_pages"]["held"] == 0
    assert after["kv_pages"]["free"] + after["kv_pages"]["cached"] == after["kv_pages"]["total"]
    assert after["admitted"] > before["admitted"]
    assert "The" in api.complete("Repeat: The The The The", max_tokens=8, temperature=0)["choices"][0]["text"]


def test_sixteen_at_once_all_finish(api):
    def ask(index: int) -> dict:
        return api.chat(f"Write {index} words.", max_tokens=10 + 5 * index, ignore_eos=True, temperature=0)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    for index, answer in enumerate(answers):
        assert answer["usage"]["completion_tokens"] == 10 + 5 * index
        assert answer["choices"][0]["finish_reason"] == "length"


def test_a_reader_that_stops_holds_up_nobody(api):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.settimeout(120)
    slow.connect(("127.0.0.1", api.port))
    slow.sendall(request_bytes(api, stream=True, max_tokens=400, logprobs=True, top_logprobs=20))
    received = slow.recv(100)
    deadline = time.monotonic() + 120
    while api.stats()["paused"] == 0:
        assert api.chat(max_tokens=3)["choices"]
        assert time.monotonic() < deadline, api.stats()
    assert api.chat(max_tokens=20)["choices"]
    while b"data: [DONE]" not in received[-200:]:
        more = slow.recv(65536)
        assert more, "the stream ended early"
        received += more
    slow.close()
    assert received.count(b'"top_logprobs":') == 400
    wait_until_idle(api)


def test_health_answers_while_everything_is_busy(api):
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            api.chat("word " * 1000, max_tokens=2)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(keep_busy)
        for _ in range(20):
            assert api.get("/health/ready").status_code == 200
            assert api.get("/metrics").status_code == 200
        stop.set()
