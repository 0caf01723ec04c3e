"""Who may reuse whose computed prompts: cached_tokens must tell a client nothing about other tenants."""

import hashlib
import time

import pytest
import requests
from program import MODEL, ServeProcess, needs_model

pytestmark = needs_model

PROMPT = "The quick brown fox jumps over the lazy dog while the band plays on. " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Keys of two tenants, of which one has two, and a place for the packed weights."""
    folder = tmp_path_factory.mktemp("prefix-cache")
    lines = [("alice-1", "alice"), ("alice-2", "alice"), ("bob", "bob")]
    (folder / "keys").write_text("".join(f"{hashlib.sha256(k.encode()).hexdigest()} {t}\n" for k, t in lines))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    process = ServeProcess(MODEL, "--api-keys", str(folder / "keys"), cache=folder)
    yield process
    process.close()


def cached_tokens(server, key, prompt, **fields):
    response = requests.post(
        f"{server.url}/v1/completions",
        json={"prompt": prompt, "max_tokens": 1, **fields},
        headers={"authorization": f"Bearer {key}"},
        timeout=120,
    )
    assert response.status_code == 200, response.text
    assert "x-mlxs-warning" not in response.headers
    return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_tenant_finds_only_its_own_prompts(server):
    assert cached_tokens(server, "alice-1", PROMPT) == 0
    assert cached_tokens(server, "bob", PROMPT) == 0
    assert cached_tokens(server, "alice-1", PROMPT) >= 64
    assert cached_tokens(server, "alice-2", PROMPT) >= 64
    assert cached_tokens(server, "bob", PROMPT) >= 64


def test_a_salt_separates_within_a_tenant(server):
    prompt = "Salted. " + PROMPT
    assert cached_tokens(server, "alice-1", prompt, cache_salt="one") == 0
    assert cached_tokens(server, "alice-1", prompt, cache_salt="two") == 0
    assert cached_tokens(server, "alice-1", prompt) == 0
    assert cached_tokens(server, "alice-1", prompt, cache_salt="one") >= 64
    assert cached_tokens(server, "bob", prompt, cache_salt="one") == 0


def test_a_cache_key_separates_nothing(server):
    prompt = "Keyed. " + PROMPT
    assert cached_tokens(server, "bob", prompt, prompt_cache_key="chat-1") == 0
    assert cached_tokens(server, "bob", prompt, prompt_cache_key="chat-2") >= 64


@pytest.mark.parametrize(("field", "value"), [("cache_salt", ""), ("cache_salt", "x" * 3000), ("prompt_cache_key", 1)])
def test_wrong_values_are_named(server, field, value):
    response = requests.post(
        f"{server.url}/v1/completions",
        json={"prompt": "a", field: value},
        headers={"authorization": "Bearer bob"},
        timeout=60,
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_a_pinned_system_prompt_outlives_its_time_and_others(folder, monkeypatch):
    monkeypatch.setenv("MLXS_PROMPT_CACHE_MAX_ENTRIES", "1")  # whatever nobody uses goes with the next prompt
    server = ServeProcess(MODEL, "--prefix-cache-ttl", "1", cache=folder)
    system = "You answer in one word. " + PROMPT

    def ask(question, **fields):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        body = {"messages": messages, "max_tokens": 2, **fields}
        response = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
        assert response.status_code == 200, response.text
        assert "x-mlxs-warning" not in response.headers
        return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    def pinned():
        stats = requests.get(f"{server.url}/v1/scheduler/stats", timeout=10).json()
        return stats["data"][0]["prefix_cache"]["pinned"]

    try:
        assert ask("Why?", prompt_cache_retention="24h") == 0
        assert pinned()["prompts"] == 1 and pinned()["total"] == 1
        held = 16 * pinned()["pages"]
        assert 100 < held < 300, "the system prompt, not the question"
        for i in range(3):
            requests.post(f"{server.url}/v1/completions", json={"prompt": f"{i} {PROMPT}", "max_tokens": 1}, timeout=60)
        time.sleep(1.1)  # longer than an unpinned prompt is kept
        assert ask("And what else?", prompt_cache_retention="in_memory") == held
        assert pinned()["hits"] >= 1

        model = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]

        def message(question):  # the same in Anthropic's words
            marked = {"type": "text", "text": "Mind this. " + PROMPT, "cache_control": {"type": "ephemeral"}}
            body = {"system": [marked], "messages": [{"role": "user", "content": question}], "max_tokens": 1, "model": model}
            return requests.post(f"{server.url}/v1/messages", json=body, timeout=120).json()["usage"]

        written = message("Why?")["cache_creation_input_tokens"]
        assert written > 100
        for i in range(3):
            requests.post(f"{server.url}/v1/completions", json={"prompt": f"{i} {PROMPT}", "max_tokens": 1}, timeout=60)
        time.sleep(1.1)
        assert message("And what else?")["cache_read_input_tokens"] >= written
        wrong = requests.post(f"{server.url}/v1/completions", json={"prompt": "a", "prompt_cache_retention": "1h"}, timeout=60)
        assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "prompt_cache_retention"
    finally:
        server.close()


def test_tenants_share_where_the_operator_says_so(folder):
    server = ServeProcess(MODEL, "--api-keys", str(folder / "keys"), "--share-prefix-cache", cache=folder)
    try:
        assert cached_tokens(server, "alice-1", PROMPT) == 0
        assert cached_tokens(server, "bob", PROMPT) >= 64
        assert cached_tokens(server, "bob", PROMPT, cache_salt="mine") == 0
    finally:
        server.close()


def test_a_miss_has_a_reason(folder, monkeypatch):
    monkeypatch.setenv("MLXS_PROMPT_CACHE_MAX_ENTRIES", "0")  # 0 entries are none: moved to 1
    server = ServeProcess(MODEL, "--prefix-cache-ttl", "1", cache=folder)
    try:
        assert "MLXS_PROMPT_CACHE_MAX_ENTRIES = 0 is outside" in server.errors()

        def misses():
            stats = requests.get(server.url + "/v1/scheduler/stats", timeout=60).json()["data"][0]["prefix_cache"]
            return stats["misses"], stats["recent_misses"]

        def complete(prompt):
            body = {"prompt": prompt, "max_tokens": 1}
            answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

        first = list(range(100, 150))
        complete(first)
        assert misses() == ({"evicted": 0, "expired": 0, "diverged": 0, "new": 1, "window": 0}, [{"reason": "new", "token": 0}])
        complete(first[:37] + [7] * 20)
        counts, recent = misses()
        assert (counts["diverged"], recent[0]) == (1, {"reason": "diverged", "token": 37})
        time.sleep(1.1)
        assert complete(first) == 0
        counts, recent = misses()
        assert counts["expired"] + counts["evicted"] == 1
        assert f'reason="diverged"}} {counts["diverged"]}' in requests.get(server.url + "/metrics", timeout=60).text
    finally:
        server.close()
