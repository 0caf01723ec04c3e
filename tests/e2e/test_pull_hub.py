"""`pull org/repo` against a hub on this machine: what is fetched and where it goes, every fault, and Python's
huggingface_hub reading the same cache (and writing it)."""

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_server import Hub, Repo
from program import BIN, Result, environment, needs_program

pytestmark = needs_program
WEIGHTS = random.Random(7).randbytes(1 << 20)


def gguf_files():
    names = ["tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "big/tiny-BF16-00001-of-00002.gguf", "big/tiny-BF16-00002-of-00002.gguf"]
    return {name: random.Random(name).randbytes(50_000) for name in names} | {
        "mmproj-F16.gguf": b"x" * 5000,
        "README.md": b"# tiny",
    }


def folder_files():
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "README.md": b"---\nlicense: mit\n---\n",
        "model.safetensors": WEIGHTS,
        "original/consolidated.00.pth": b"y" * 9000,
        "pytorch_model.bin": b"z" * 9000,
        "onnx/model.safetensors": b"o" * 9000,
    }


@pytest.fixture
def hub():
    with Hub() as hub:
        hub.repos["org/tiny"] = Repo(folder_files())
        hub.repos["org/tiny-GGUF"] = Repo(gguf_files(), commit="b" * 40)
        yield hub


class Puller:
    def __init__(self, hub, folder):
        self.cache = folder / "hub"
        self.environment = {
            **{k: v for k, v in environment(folder / "mlxs").items() if not k.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder),
            "NO_PROXY": "127.0.0.1",
        }

    def start(self, *arguments, **more):
        return subprocess.Popen(
            [BIN, *arguments],
            env={**self.environment, **more.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def __call__(self, *arguments, **more):
        process = self.start("pull", *arguments, **more)
        out, err = process.communicate(timeout=120)
        return Result(process.returncode, out, err)

    def command(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return Result(process.returncode, out, err)

    def incomplete(self):
        return list(self.cache.rglob("*.incomplete"))


@pytest.fixture
def pull(hub, tmp_path):
    return Puller(hub, tmp_path)


def error_of(result):
    assert result.status == 1, result
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.err
    return lines[0]


class TestLayout:
    def test_a_folder_model_comes_with_what_it_needs_only(self, hub, pull):
        result = pull("org/tiny")
        assert result.status == 0, result.err
        snapshot = pull.cache / "models--org--tiny" / "snapshots" / ("a" * 40)
        assert result.out == f"{snapshot}\n"
        assert sorted(p.name for p in snapshot.iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
        link = snapshot / "model.safetensors"
        assert os.readlink(link) == f"../../blobs/{hashlib.sha256(WEIGHTS).hexdigest()}"
        assert link.read_bytes() == WEIGHTS
        assert (pull.cache / "models--org--tiny" / "refs" / "main").read_text() == "a" * 40
        assert not pull.incomplete()

    def test_python_reads_what_we_wrote(self, hub, pull):
        from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

        assert pull("org/tiny").status == 0
        info = scan_cache_dir(pull.cache)
        assert not info.warnings
        (repo,) = info.repos
        assert (repo.repo_id, repo.repo_type, repo.nb_files) == ("org/tiny", "model", 4)
        (revision,) = repo.revisions
        assert revision.commit_hash == "a" * 40
        assert revision.refs == {"main"}
        before = len(hub.seen)
        folder = snapshot_download("org/tiny", cache_dir=pull.cache, local_files_only=True)
        assert Path(folder, "model.safetensors").read_bytes() == WEIGHTS
        file = hf_hub_download("org/tiny", "config.json", cache_dir=pull.cache, local_files_only=True)
        assert Path(file).read_bytes() == b'{"model_type": "llama"}'
        assert len(hub.seen) == before

    def test_what_python_wrote_is_used_as_it_is(self, hub, pull):
        code = "import sys; from huggingface_hub import snapshot_download; snapshot_download('org/tiny', cache_dir=sys.argv[1])"
        subprocess.run(
            [sys.executable, "-c", code, str(pull.cache)],
            check=True,
            env={**pull.environment, "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
        )
        assert hub.transfers("model.safetensors")
        hub.seen.clear()
        assert pull("org/tiny").status == 0
        assert not hub.transfers("")  # the API was asked, no bytes were
        names = [entry["name"] for entry in json.loads(pull.command("ls", "--json").out)]
        assert names == ["org/tiny"]

    @pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
    def test_the_cache_can_be_elsewhere_than_in_hf_home(self, hub, pull, tmp_path, variable):
        elsewhere = {variable: str(tmp_path / "elsewhere")}
        result = pull("org/tiny", env=elsewhere)
        assert result.status == 0, result.err
        assert result.out == f"{tmp_path}/elsewhere/models--org--tiny/snapshots/{'a' * 40}\n"
        assert not pull.cache.exists()
        # Python's package, told the same, finds it; without the variable neither does.
        script = "from huggingface_hub import snapshot_download as find; print(find('org/tiny', local_files_only=True))"
        python = [sys.executable, "-c", script]
        found = subprocess.run(python, env={**pull.environment, **elsewhere}, capture_output=True, text=True, check=True)
        assert found.stdout == result.out
        assert subprocess.run(python, env=pull.environment, capture_output=True, check=False).returncode != 0
        assert pull("org/tiny", env={"HF_HUB_OFFLINE": "1"}).status == 1
        assert pull("org/tiny", env={"HF_HUB_OFFLINE": "1", **elsewhere}).out == result.out

    def test_a_quantization_is_picked_with_all_its_parts(self, hub, pull):
        result = pull("org/tiny-GGUF:q8_0")
        assert result.status == 0, result.err
        assert result.out.endswith("/tiny-Q8_0.gguf\n")
        assert Path(result.out.strip()).read_bytes() == gguf_files()["tiny-Q8_0.gguf"]
        split = pull("org/tiny-GGUF:BF16", "--json")
        assert split.json()["path"].endswith("/big/tiny-BF16-00001-of-00002.gguf")
        assert split.json()["bytes"] == 100_000
        assert not hub.transfers("Q4_K_M.gguf")
        assert not hub.transfers("mmproj-F16.gguf")
        assert pull("org/tiny-GGUF").out.endswith("/tiny-Q4_K_M.gguf\n")  # the usual one, where none is named

    def test_revisions(self, hub, pull):
        assert pull("org/tiny@v1/stable").status == 0
        assert (pull.cache / "models--org--tiny" / "refs" / "v1" / "stable").read_text() == "a" * 40
        assert pull("org/tiny@" + "a" * 40).status == 0
        assert not (pull.cache / "models--org--tiny" / "refs" / ("a" * 40)).exists()

    def test_ls_show_and_rm_know_the_cache(self, hub, pull):
        for name in ("org/tiny", "org/tiny-GGUF:Q8_0", "org/tiny-GGUF:Q4_K_M"):
            assert pull(name).status == 0
        entries = {entry["name"]: entry for entry in pull.command("ls", "--json").json()}
        assert set(entries) == {"org/tiny", "org/tiny-GGUF:Q8_0", "org/tiny-GGUF:Q4_K_M"}
        assert entries["org/tiny-GGUF:Q8_0"]["bytes"] == 50_000
        removed = pull.command("rm", "org/tiny-GGUF:Q8_0")
        assert removed.out == "removed org/tiny-GGUF:Q8_0, freed 50.0 kB\n"
        assert pull.command("rm", "org/tiny").status == 0
        assert not (pull.cache / "models--org--tiny").exists()
        assert [entry["name"] for entry in pull.command("ls", "--json").json()] == ["org/tiny-GGUF:Q4_K_M"]
        assert "there is no model" in error_of(pull.command("rm", "org/other")) or "not downloaded" in error_of(
            pull.command("rm", "org/other")
        )

    def test_offline_the_cache_alone_counts(self, hub, pull):
        offline = {"HF_HUB_OFFLINE": "1"}
        assert "is not in" in error_of(pull("org/tiny", env=offline))
        assert pull("org/tiny").status == 0
        hub.seen.clear()
        assert pull("org/tiny", env=offline).status == 0
        assert hub.seen == []

    def test_an_unreachable_hub_does_not_take_away_what_is_here(self, hub, pull):
        assert pull("org/tiny").status == 0
        hub.faults.broken = 100
        result = pull("org/tiny")
        assert result.status == 0
        assert "using what was downloaded before" in result.err


class TestRefusals:
    def test_a_name_that_does_not_exist_gets_near_ones(self, pull):
        message = error_of(pull("org/tinny"))
        assert "org/tinny: does not exist on http://127.0.0.1" in message
        assert "did you mean org/tiny?" in message
        assert "set HF_TOKEN" in message

    def test_a_revision_that_does_not_exist(self, pull):
        assert "org/tiny@v9: there is no such revision" in error_of(pull("org/tiny@v9"))

    def test_a_quantization_that_does_not_exist(self, pull):
        message = error_of(pull("org/tiny-GGUF:Q4_K_S"))
        assert "has no quantization 'Q4_K_S'" in message
        assert "did you mean Q4_K_M" in message
        assert "there are: BF16, Q4_K_M, Q8_0" in message

    def test_several_quantizations_and_none_usual(self, hub, pull):
        hub.repos["org/odd"] = Repo({"a-Q3_K_L.gguf": b"1" * 5000, "a-Q6_K.gguf": b"2" * 5000})
        assert "holds 2 models in GGUF form, one must be chosen (for example org/odd:Q3_K_L" in error_of(pull("org/odd"))

    def test_a_repository_without_a_model(self, hub, pull):
        hub.repos["org/torch"] = Repo({"pytorch_model.bin": b"z" * 9000})
        assert "holds no model that can be read, only PyTorch files" in error_of(pull("org/torch"))

    def test_private_and_gated_repositories_say_what_to_do(self, hub, pull):
        hub.repos["org/secret"] = Repo(folder_files(), token="hf_right")
        hub.repos["org/gated"] = Repo(folder_files(), gated=True)
        message = error_of(pull("org/secret"))
        assert "if it is private, set HF_TOKEN" in message
        assert "did you mean org/secret" not in message
        assert "check the name, and that HF_TOKEN may read it" in error_of(pull("org/secret", env={"HF_TOKEN": "hf_wrong"}))
        assert f"accept the conditions at {hub.url}/org/gated with your account, then set HF_TOKEN" in error_of(pull("org/gated"))
        assert pull("org/secret", env={"HF_TOKEN": "hf_right\n"}).status == 0

    def test_the_token_stays_with_the_hub(self, hub, pull):
        (pull.cache.parent / "token").write_text("hf_stored\n")
        assert pull("org/tiny").status == 0
        assert {seen.token for seen in hub.seen if seen.server == "hub"} == {"hf_stored"}
        assert {seen.token for seen in hub.seen if seen.server == "cdn"} == {None}

    def test_file_names_that_leave_the_folder(self, hub, pull):
        hub.repos["org/evil"] = Repo({**folder_files(), "../../escape/model.safetensors": b"e" * 5000})
        assert "'../../escape/model.safetensors' without a usable name" in error_of(pull("org/evil"))
        assert not list(pull.cache.parent.rglob("escape"))


class TestFaults:
    @pytest.mark.parametrize("percent", range(0, 100, 10))
    def test_a_cut_connection_is_taken_up_again(self, hub, pull, percent):
        hub.faults.cut_after = [len(WEIGHTS) * percent // 100]
        result = pull("org/tiny")
        assert result.status == 0, result.err
        transfers = [seen.range for seen in hub.transfers("model.safetensors") if seen.server == "cdn"]
        assert len(transfers) == 2
        # What had arrived was not asked for again (the client may not have got all that was sent).
        begun = int(transfers[1].removeprefix("bytes=").rstrip("-")) if transfers[1] else 0
        assert begun <= len(WEIGHTS) * percent // 100
        assert begun > 0 or percent == 0

    def test_cut_at_every_tenth_of_one_download(self, hub, pull):
        hub.faults.cut_after = [len(WEIGHTS) // 10] * 9
        result = pull("org/tiny")
        assert result.status == 0, result.err
        assert Path(result.out.strip(), "model.safetensors").read_bytes() == WEIGHTS

    def test_a_later_pull_resumes_what_an_earlier_one_left(self, hub, pull):
        blob = pull.cache / "models--org--tiny" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
        blob.parent.mkdir(parents=True)
        Path(f"{blob}.incomplete").write_bytes(WEIGHTS[:700_000])
        assert pull("org/tiny").status == 0
        assert [s.range for s in hub.transfers("model.safetensors") if s.server == "cdn"] == ["bytes=700000-"]
        assert blob.read_bytes() == WEIGHTS

    def test_a_damaged_beginning_is_downloaded_again(self, hub, pull):
        blob = pull.cache / "models--org--tiny" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
        blob.parent.mkdir(parents=True)
        Path(f"{blob}.incomplete").write_bytes(b"\0" * 700_000)
        result = pull("org/tiny")
        assert result.status == 0
        assert "what an earlier pull left is damaged" in result.err
        assert blob.read_bytes() == WEIGHTS

    def test_a_server_without_ranges(self, hub, pull):
        hub.faults.ranges = False
        hub.faults.cut_after = [300_000]
        assert pull("org/tiny").status == 0

    def test_429_waits_as_long_as_it_is_asked_to(self, hub, pull):
        hub.faults.busy = 1
        result = pull("org/tiny")
        assert result.status == 0, result.err
        assert "status 429; trying again in 1000 ms" in result.err

    def test_503_is_tried_again(self, hub, pull):
        hub.faults.broken = 2
        assert pull("org/tiny").status == 0

    def test_a_shorter_file_than_listed(self, hub, pull):
        hub.faults.instead["model.safetensors"] = WEIGHTS[:1000]
        assert f"model.safetensors: the server ends after 1000 of {len(WEIGHTS)} bytes" in error_of(pull("org/tiny"))

    def test_a_longer_file_than_listed(self, hub, pull):
        hub.faults.instead["model.safetensors"] = WEIGHTS + b"more"
        assert f"the server sends more than the {len(WEIGHTS)} bytes that the hub lists" in error_of(pull("org/tiny"))

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_another_content_than_listed(self, hub, pull, name):
        content = folder_files()[name]
        hub.faults.instead[name] = content[:-1] + bytes([content[-1] ^ 1])
        message = error_of(pull("org/tiny"))
        assert f"{name}: its {'SHA-256' if name.startswith('model') else 'git SHA-1'} is" in message
        assert "do not use it" in message
        assert not [path for path in pull.incomplete() if path.name.startswith(Repo(folder_files()).etag(name))]
        assert not (pull.cache / "models--org--tiny" / "refs").exists()

    def test_a_full_disk_says_so_and_the_next_pull_goes_on(self, hub, pull):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

        message = error_of(pull("org/tiny", preexec_fn=limit))
        assert f"cannot be written past 500000 of {len(WEIGHTS)} bytes: File too large" in message
        assert "free space there" in message
        assert max(p.stat().st_size for p in pull.incomplete()) == 500_000
        hub.seen.clear()
        assert pull("org/tiny").status == 0
        assert [s.range for s in hub.transfers("model.safetensors") if s.server == "cdn"] == ["bytes=500000-"]

    def test_two_pulls_at_once_download_once(self, hub, pull):
        hub.faults.hold = threading.Event()
        both = [pull.start("pull", "org/tiny") for _ in range(2)]
        while not any("another pull" in line for line in [both[0].stderr.readline(), both[1].stderr.readline()]):
            pass
        hub.faults.hold.set()
        outs = [process.communicate(timeout=60)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert outs[0] == outs[1]
        assert len([s for s in hub.transfers("model.safetensors") if s.server == "cdn"]) == 1
