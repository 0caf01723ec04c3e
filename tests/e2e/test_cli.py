"""The commands that end by themselves: exit statuses, messages, JSON, run's streaming and flags."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ENCODER
from program import BIN, MODEL, environment, needs_model, needs_program, run

COMMANDS = [
    "serve",
    "run",
    "chat",
    "pull",
    "ls",
    "show",
    "plan",
    "rm",
    "ps",
    "config",
    "bench",
    "sim",
    "doctor",
    "collect-env",
    "version",
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache for the file: the model's weights are packed once."""
    return tmp_path_factory.mktemp("cache")


@needs_program
class TestUsage:
    def test_help_lists_every_command(self, cache):
        result = run("--help", cache=cache)
        assert result.status == 0
        for command in COMMANDS:
            assert f"\n  {command} " in result.out

    @pytest.mark.parametrize("command", [name for name in COMMANDS if name != "version"])
    def test_help_of_each_command_has_examples(self, cache, command):
        result = run(command, "--help", cache=cache)
        assert result.status == 0
        assert "Examples:" in result.out
        assert f"mlx-serving {command}" in result.out

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ([], "subcommand"),
            (["fly"], "fly"),
            (["chta", "m"], "did you mean chat"),
            (["run"], "MODEL"),
            (["serve"], "MODEL"),
            (["ps"], "--registry"),
            (["run", "m", "p", "--temperature", "3"], "--temperature"),
            (["run", "m", "p", "--temperature", "warm"], "--temperature"),
            (["run", "m", "p", "--top-p", "0"], "--top-p"),
            (["run", "m", "p", "--min-p", "1"], "--min-p"),
            (["run", "m", "p", "--max-tokens", "0"], "--max-tokens"),
            (["run", "m", "p", "--frobnicate"], "--frobnicate"),
            (["bench", "quick", "--frobnicate"], "see: mlx-serving bench quick --help"),
            (["run", "m", "p", "--kv-cache-bytes", "2XiB"], "2XiB"),
            (["serve", "m", "--port", "70000"], "--port"),
            (["serve", "m", "--max-running", "0"], "--max-running"),
            (["run", "m", "p", "--prefix-cache-ttl", "100000"], "100000 is neither 0 nor 1 … 86400 s"),
            (["run", "m", "p", "--prefix-cache-ttl", "0.5"], "0.5 is neither 0 nor 1 … 86400 s"),
            (["config", "show", "--prefix-cache-ttl", "100000"], "outside 1 … 86400 s"),
        ],
    )
    def test_wrong_usage_is_status_2_and_names_the_culprit(self, cache, arguments, named):
        result = run(*arguments, cache=cache)
        assert result.status == 2
        assert result.out == ""
        assert result.err.startswith("error: ")
        assert named in result.err
        assert "--help" in result.err

    def test_an_empty_prompt_is_wrong_usage(self, cache):
        result = run("run", "m", cache=cache, stdin="")
        assert (result.status, result.out) == (2, "")
        assert "PROMPT" in result.err

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            ["version"],
            ["doctor"],
            ["collect-env"],
            ["metrics"],
            ["config", "--defaults"],
            ["config", "--explain"],
            ["config", "show"],
            *([["show", MODEL], ["plan", MODEL], ["run", MODEL, "Hi", "--max-tokens", "2"]] if MODEL else []),
            *([["run", MODEL, "Hi", "--max-tokens", "2", "--json"]] if MODEL else []),
        ],
        ids=" ".join,
    )
    def test_a_full_disk_behind_stdout_is_a_failure(self, cache, arguments):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [BIN, *arguments],
                env=environment(cache),
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=300,
                check=False,
            )
        assert done.returncode == 1
        assert "error: stdout cannot be written: No space left on device\n" in done.stderr
        assert "bug" not in done.stderr

    def test_version_both_ways(self, cache):
        assert run("version", cache=cache).out == run("--version", cache=cache).out
        assert run("version", cache=cache).out.startswith("mlx-serving 0.")

    def test_doctor_names_the_device_and_obeys_the_isa_switch(self, cache, monkeypatch):
        monkeypatch.setenv("MLXS_CPU_ISA", "portable")
        result = run("doctor", cache=cache)
        assert result.status == 0
        assert "portable" in result.out
        assert "unset MLXS_CPU_ISA" in result.out
        assert str(cache) in result.out

    def test_doctor_fails_if_the_cache_cannot_be_written(self, tmp_path):
        blocked = tmp_path / "file"
        blocked.write_text("")
        proc = [Path("/proc/none")] if Path("/proc/self").exists() else []  # which takes no files, not even root's
        for folder in (blocked / "cache", *proc):
            result = run("doctor", "--json", cache=folder)
            finding = next(f for f in result.json()["findings"] if f["subject"] == "cache")
            assert (result.status, finding["level"]) == (1, "failure")
            assert "MLXS_CACHE_DIR" in finding["remedy"]

    def test_doctor_reads_the_configuration(self, cache, tmp_path, monkeypatch):
        (tmp_path / "mlx-serving").mkdir()
        (tmp_path / "mlx-serving" / "runtime.yaml").write_text("server: {port: many}\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        result = run("doctor", "--json", cache=cache)
        finding = next(f for f in result.json()["findings"] if f["subject"] == "configuration")
        assert (result.status, finding["level"]) == (1, "failure")
        assert "server.port" in finding["found"] and "config --explain" in finding["remedy"]

    def test_doctor_says_whose_port_it_is(self, cache):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            findings = run("doctor", "--json", "--port", port, cache=cache).json()["findings"]
        assert "another program" in next(f["found"] for f in findings if f["subject"] == "port")

    def test_collect_env_shows_no_secret(self, cache, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
        monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy:1")
        result = run("collect-env", cache=cache)
        assert result.status == 0
        assert "HF_TOKEN" in result.out and "(hidden)@proxy:1" in result.out
        assert "secret" not in result.out and "password" not in result.out


@needs_program
class TestModels:
    def test_an_empty_cache_lists_nothing(self, tmp_path):
        assert run("ls", "--json", cache=tmp_path).json() == []
        plain = run("ls", cache=tmp_path)
        assert (plain.status, plain.out) == (0, "")
        assert "pull smollm2" in plain.err

    @pytest.mark.parametrize("command", ["run", "show", "rm", "pull", "serve", "chat"])
    def test_an_unknown_model_suggests_a_near_name(self, cache, command):
        prompt = ["hello"] if command == "run" else []
        port = ["--port", "0"] if command == "serve" else []
        result = run(command, "smolm2", *prompt, *port, cache=cache)
        assert (result.status, result.out) == (1, "")
        assert "error: " in result.err
        assert "smolm2" in result.err
        assert "smollm2" in result.err

    def test_a_file_that_is_no_model(self, cache, tmp_path):
        path = tmp_path / "notes.gguf"
        path.write_text("these are my notes")
        for command in (["show", path], ["run", path, "hello"]):
            result = run(*map(str, command), cache=cache)
            assert (result.status, result.out) == (1, "")
            assert "notes.gguf" in result.err

    @needs_model
    def test_a_truncated_model(self, cache, tmp_path):
        path = tmp_path / "cut.gguf"
        with open(MODEL, "rb") as whole:
            path.write_bytes(whole.read(50_000_000))
        result = run("run", str(path), "hello", cache=cache)
        assert (result.status, result.out) == (1, "")
        assert "cut.gguf" in result.err

    @needs_model
    def test_show_describes_the_file(self, cache):
        shown = run("show", MODEL, "--json", cache=cache).json()
        assert shown["architecture"] == "llama"
        assert shown["parameters"] == 134515008
        assert shown["format"] == "gguf"
        assert shown["has_chat_template"] is True
        assert shown["tensor_types"]["Q4_1"] > 100
        assert shown["metadata"]["llama.block_count"] == 30
        assert shown["quantization"] == "Q4_1, 5.7 bits a weight"
        assert shown["licence"] == "apache-2.0"
        assert (shown["layers"], shown["heads"], shown["kv_heads"], shown["vocabulary"]) == (30, 9, 3, 49152)
        assert shown["context_length"] == 8192
        plain = run("show", MODEL, cache=cache).out
        assert "134.5M" in plain
        assert "llama" in plain

    @needs_model
    def test_a_file_of_ones_own_stays_when_its_packed_weights_go(self, tmp_path):
        own = tmp_path / "ö own.gguf"
        shutil.copy(MODEL, own)
        assert run("run", str(own), "Hi", "--max-tokens", "1", cache=tmp_path).status == 0
        packed = list(tmp_path.glob("packed/*"))
        result = run("rm", str(own), cache=tmp_path)
        assert result.status == 0
        assert result.out.endswith(f"{own} itself stays\n")
        assert own.exists() and not any(path.exists() for path in packed)
        own.unlink()
        assert "no file or folder" in run("rm", str(own), cache=tmp_path).err

    @needs_model
    def test_a_folder_with_one_model_is_a_model(self, cache, tmp_path):
        shutil.copy(MODEL, tmp_path / "only.gguf")
        assert run("show", str(tmp_path), "--json", cache=cache).json()["parameters"] == 134515008

    @pytest.mark.skipif(not ENCODER, reason="MLXS_TEST_ENCODER is not set: run through make test")
    def test_an_encoder_is_recommended_what_it_can_do(self, cache):
        for command in (["run", ENCODER, "hi"], ["run", ENCODER, "hi", "--raw"], ["chat", ENCODER]):
            result = run(*command, cache=cache)
            assert (result.status, result.out) == (1, "")
            assert "is an encoder and generates no text" in result.err
            assert "/v1/embeddings" in result.err and "--raw" not in result.err
        assert "--raw" not in run("show", ENCODER, cache=cache).out


@needs_model
class TestRun:
    GREEDY = ["--temperature", "0", "--max-tokens", "24"]

    def test_answers_a_question(self, cache):
        result = run("run", MODEL, "What is the capital of France?", *self.GREEDY, cache=cache)
        assert result.status == 0
        assert "Paris" in result.out
        assert result.out.endswith("\n")

    def test_words_pipe_and_dash_are_the_same_prompt(self, cache):
        words = run("run", MODEL, "What", "is", "2+2?", *self.GREEDY, cache=cache)
        pipe = run("run", MODEL, *self.GREEDY, cache=cache, stdin="What is 2+2?\n")
        dash = run("run", MODEL, "-", *self.GREEDY, cache=cache, stdin="What is 2+2?\n")
        assert words.status == pipe.status == dash.status == 0
        assert words.out == pipe.out == dash.out

    def test_a_pipe_follows_the_words(self, cache, tmp_path):
        text = "Answer with the capital of:\n\nFrance"
        whole = run("run", MODEL, text, *self.GREEDY, cache=cache)
        words = ["run", MODEL, "Answer with the", "capital of:"]
        for dash in ([], ["-"]):
            assert run(*words, *dash, *self.GREEDY, cache=cache, stdin="France\n").out == whole.out
        (tmp_path / "text").write_text("France\n")
        with open(tmp_path / "text") as file:
            command = [BIN, *words, *self.GREEDY]
            assert subprocess.check_output(command, env=environment(cache), stdin=file, text=True) == whole.out

    def test_a_stdin_without_text_leaves_the_prompt_alone(self, cache):
        command = [BIN, "run", MODEL, "Hi", *self.GREEDY]
        alone = run(*command[1:], cache=cache).out
        assert run(*command[1:], cache=cache, stdin="").out == alone
        closed = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *command],
            env=environment(cache),
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        assert closed.stdout == alone
        reader, writer = os.pipe()  # held open, never written to
        try:
            idle = subprocess.run(
                command, env=environment(cache), stdin=reader, capture_output=True, text=True, timeout=300, check=True
            )
        finally:
            os.close(reader)
            os.close(writer)
        assert idle.stdout == alone
        assert "nothing came through the pipe" in idle.stderr

    def test_dash_waits_for_a_slow_pipe(self, cache):
        command = [BIN, "run", MODEL, "Hi", "-", *self.GREEDY]
        pipe = subprocess.PIPE
        slow = subprocess.Popen(command, env=environment(cache), stdin=pipe, stdout=pipe, text=True)
        time.sleep(6)
        out, _ = slow.communicate("there\n", timeout=300)
        assert out == run("run", MODEL, "Hi\n\nthere", *self.GREEDY, cache=cache).out

    def test_json_is_one_object_with_usage_and_timings(self, cache):
        result = run("run", MODEL, "Count to one hundred.", *self.GREEDY, "--json", cache=cache)
        answer = result.json()
        assert answer["finish_reason"] == "length"
        assert answer["usage"]["generated_tokens"] == 24
        assert answer["usage"]["prompt_tokens"] > 5
        assert answer["timings"]["ttft_seconds"] > 0
        streamed = run("run", MODEL, "Count to one hundred.", *self.GREEDY, cache=cache)
        assert streamed.out == answer["text"] + "\n"

    def test_raw_continues_the_text(self, cache):
        result = run("run", MODEL, "--raw", "The capital of France is", *self.GREEDY, cache=cache)
        assert result.out.startswith(" Paris")

    @pytest.mark.parametrize("flags", [[], ["--json"]])
    def test_bytes_that_are_no_utf8_are_named(self, cache, flags):
        def run_bytes(*arguments: str | bytes, stdin: bytes = b""):
            command = [BIN, "run", MODEL, *arguments, *self.GREEDY, *flags]
            return subprocess.run(command, env=environment(cache), input=stdin, capture_output=True, timeout=300, check=False)

        for result in (
            run_bytes(stdin=b"caf\xe9 au lait"),
            run_bytes(b"caf\xe9"),
            run_bytes("Hi", "--system", b"caf\xe9"),
        ):
            assert (result.returncode, result.stdout) == (1, b"")
            assert b"is not UTF-8: byte 0xe9 at offset 3" in result.stderr
            assert b"iconv" in result.stderr and b"bug" not in result.stderr
        assert run_bytes("--raw", stdin=b"caf\xe9 au lait").returncode == 0

    def test_stop_text_ends_the_answer_and_is_not_shown(self, cache):
        whole = run("run", MODEL, "--raw", "one two three four", *self.GREEDY, cache=cache).out
        stop = whole.split()[2]
        cut = run("run", MODEL, "--raw", "one two three four", *self.GREEDY, "--stop", stop, "--json", cache=cache)
        assert cut.json()["finish_reason"] == "stop"
        assert cut.json()["text"] == whole[: whole.index(stop)]

    def test_a_seed_repeats_and_another_differs(self, cache):
        def answer(seed: int) -> str:
            flags = ["--seed", str(seed), "--temperature", "1.2", "--max-tokens", "24"]
            return run("run", MODEL, "Invent a word and explain it.", *flags, cache=cache).out

        assert answer(1) == answer(1)
        assert len({answer(seed) for seed in (1, 2, 3)}) > 1

    def test_the_system_message_counts(self, cache):
        def prompt_tokens(*flags: str) -> int:
            result = run("run", MODEL, "Hi", *self.GREEDY, "--json", *flags, cache=cache)
            return result.json()["usage"]["prompt_tokens"]

        words = "Speak only about the weather in the mountains of central Switzerland in the month of May please."
        assert prompt_tokens("--system", words) != prompt_tokens()

    def test_stats_go_to_stderr(self, cache):
        result = run("run", MODEL, "Hi", *self.GREEDY, "--stats", cache=cache)
        assert "tokens/s" in result.err
        assert "tokens/s" not in result.out

    def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(self, cache):
        result = run("run", MODEL, "-", "--context", "128", cache=cache, stdin="word " * 400)
        assert (result.status, result.out) == (1, "")
        assert "128" in result.err
        assert "4" in result.err

    def test_a_context_beyond_the_models_own_is_refused(self, cache):
        result = run("run", MODEL, "Hi", "--context", "1000000", cache=cache)
        assert result.status == 1
        assert "1000000" in result.err

    def test_an_unknown_backend_lists_the_known(self, cache):
        result = run("run", MODEL, "Hi", "--backend", "abacus", cache=cache)
        assert result.status == 1
        assert "abacus" in result.err
        assert "cpu" in result.err


@needs_model
class TestPlan:
    def test_what_it_says_is_what_loading_takes(self, cache):
        plan = run("plan", MODEL, "--json", cache=cache).json()
        assert plan["fits"] is True
        assert plan["needed_bytes"] == plan["weight_bytes"] + plan["batch_bytes"] + plan["kv_bytes"]
        assert plan["kv_bytes_per_token"] == 30 * 3 * (64 + 64) * 2
        assert plan["users"][0] == {"users": 1, "tokens_each": 8192}
        table = run("plan", MODEL, "--users", "3", "--context", "4096", cache=cache)
        assert table.status == 0
        assert "3      4096 (all)" in table.out

    def test_what_does_not_fit_is_refused_with_the_figures(self, cache):
        huge = ["--kv-cache-bytes", "100TiB"]
        plan = run("plan", MODEL, "--json", *huge, cache=cache)
        assert plan.status == 1
        assert plan.json()["fits"] is False
        assert plan.json()["kv_bytes"] == 100 << 40
        loaded = run("run", MODEL, "hello", *huge, cache=cache)
        assert loaded.status == 1
        assert "does not fit: 97 MB of weights + 109951163 MB of KV cache + " in loaded.err
        assert "--force" in loaded.err

    def test_force_loads_it_all_the_same(self, cache):
        # All memory but a little: less than this is free in any case, and what is not touched costs nothing.
        most = str(run("plan", MODEL, "--json", cache=cache).json()["memory_bytes"] - (64 << 20))
        arguments = ["run", MODEL, "hello", "--max-tokens", "1", "--kv-cache-bytes", most]
        assert "does not fit" in run(*arguments, cache=cache).err
        assert run(*arguments, "--force", cache=cache).status == 0

    def test_a_cache_of_a_given_size_is_what_users_share(self, cache):
        small = ["--kv-cache-bytes", "20MiB"]
        plan = run("plan", MODEL, "--json", *small, cache=cache).json()
        assert plan["kv_bytes"] == 20 << 20
        assert plan["kv_tokens"] == 896
        assert plan["users"][0] == {"users": 1, "tokens_each": 896}
        table = run("plan", MODEL, "--users", "8", *small, cache=cache)
        assert (table.status, "8      112\n" in table.out, "896 tokens" in table.out) == (0, True, True), table.out
        result = run("plan", MODEL, "--users", "8", "--context", "8192", *small, cache=cache)
        assert result.status == 1
        assert "8 users can have 112 tokens each, not 8192" in result.err

    def test_more_users_than_memory_has_tokens_for(self, cache):
        result = run("plan", MODEL, "--users", "4096", "--context", "8192", cache=cache)
        assert result.status == 1
        assert "4096 users can have" in result.err
