"""Computed prompts on disk: a server that was stopped or killed finds them again, and never a wrong one."""

import hashlib
import signal
import time

import pytest
import requests
from program import MODEL, ServeProcess, needs_model, run

pytestmark = needs_model

PROMPT = [(7 * i * i + 13 * i) % 40000 + 100 for i in range(400)]  # 25 pages, of which 24 can be reused


class Disk:
    """Servers one after another over the same folder of pages."""

    def __init__(self, folder):
        self.folder = folder
        self.server = None

    def start(self, *flags):
        self.server = ServeProcess(MODEL, "--prefix-cache-dir", str(self.folder / "pages"), *flags, cache=self.folder)

    def kill(self):
        self.server.signal(signal.SIGKILL)
        self.server.close()

    def complete(self, prompt, key="none", **fields):
        """The text, and how many of the prompt's tokens were not computed."""
        body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, **fields}
        headers = {"authorization": f"Bearer {key}"}
        response = requests.post(f"{self.server.url}/v1/completions", json=body, headers=headers, timeout=120)
        assert response.status_code == 200, response.text
        answer = response.json()
        return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def stats(self, key="none"):
        headers = {"authorization": f"Bearer {key}"}
        stats = requests.get(self.server.url + "/v1/scheduler/stats", headers=headers, timeout=60)
        return stats.json()["data"][0]["prefix_cache"]["disk"]

    def wait_until_saved(self, pages, key="none"):
        files = self.folder / "pages"
        for _ in range(600):
            if len(list(files.glob("*/*.kv"))) >= pages:
                return
            time.sleep(0.05)
        pytest.fail(f"{self.stats(key)}")


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path)
    yield disk
    if disk.server:
        disk.server.close()


def test_prompts_survive_a_kill(disk):
    disk.start()
    assert disk.complete(PROMPT)[1] == 0
    text, cached = disk.complete(PROMPT)
    assert cached == 399  # all but the last token; from disk come full pages only
    disk.wait_until_saved(25)
    disk.kill()
    disk.start()
    assert disk.complete(PROMPT) == (text, 384)
    stats = disk.stats()
    assert (stats["restored_pages"], stats["damaged_files"]) == (24, 0)
    assert disk.complete(PROMPT) == (text, 399), "from memory now"
    assert disk.stats()["restored_pages"] == 24
    assert disk.complete(PROMPT[:100] + [5] * 50)[1] == 96, "a prompt that only begins so"


def test_killed_in_the_middle_of_writing(disk):
    disk.start()
    texts = []
    prompts = [[i + 1, *PROMPT] for i in range(4)]
    for prompt in prompts:
        texts.append(disk.complete(prompt)[0])
    disk.kill()  # at whatever it was writing
    for round_ in range(2):
        disk.start()
        assert [disk.complete(prompt)[0] for prompt in prompts] == texts, round_
        assert disk.stats()["damaged_files"] == 0
        disk.kill()


def test_damaged_pages_are_computed_again(disk):
    disk.start()
    text, _ = disk.complete(PROMPT)
    disk.wait_until_saved(25)
    disk.kill()
    for file in (disk.folder / "pages").glob("*/*.kv"):
        with file.open("r+b") as damaged:
            damaged.seek(1000)
            damaged.write(b"damage")
    disk.start()
    assert disk.complete(PROMPT) == (text, 0)
    assert disk.stats()["damaged_files"] == 1, "reading ends at the first"


def test_pages_of_another_layout_are_not_taken(disk):
    disk.start()
    disk.complete(PROMPT)
    disk.wait_until_saved(25)
    disk.kill()
    disk.start("--kv-cache-dtype", "int8")
    assert disk.complete(PROMPT)[1] == 0


def test_tenants_stay_apart_on_disk(disk):
    lines = [("alice-key", "alice user"), ("bob-key", "bob admin")]
    keys = disk.folder / "keys"
    keys.write_text("".join(f"{hashlib.sha256(k.encode()).hexdigest()} {t}\n" for k, t in lines))
    disk.start("--api-keys", str(keys))
    text, _ = disk.complete(PROMPT, "alice-key")
    disk.wait_until_saved(25, "bob-key")
    disk.kill()
    disk.start("--api-keys", str(keys))
    assert disk.complete(PROMPT, "bob-key")[1] == 0
    assert disk.complete(PROMPT, "alice-key") == (text, 384)


def test_the_folder_stays_within_its_limit(disk):
    disk.start("--prefix-cache-bytes", "8MiB")
    for i in range(3):
        disk.complete([i + 1, *PROMPT])
    time.sleep(0.5)
    assert disk.stats()["failed_writes"] == 0
    size = sum(file.stat().st_size for file in (disk.folder / "pages").glob("*/*.kv"))
    assert 4 << 20 < size <= 8 << 20


def test_a_folder_is_one_servers(disk):
    disk.start()
    second = run("serve", MODEL, "--port", "0", "--prefix-cache-dir", str(disk.folder / "pages"), cache=disk.folder, timeout=60)
    assert second.status == 1
    assert "another process uses it" in second.err
