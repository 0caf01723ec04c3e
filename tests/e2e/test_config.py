"""The configuration of the built program: `config`, and a server that follows file, variables and flags."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from program import BIN, MODEL, ServeProcess, environment, needs_model, needs_program, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "runtime.yaml"
        path.write_text(text)
        return str(path)

    return write


@needs_program
class TestCommand:
    def test_explains_everything_a_section_and_a_key(self, tmp_path):
        everything = run("config", "--explain", cache=tmp_path)
        assert everything.status == 0
        assert "gpu_scheduler.batch_window_ms: 0.75 … 5 ms (default: 1)" in everything.out
        section = run("config", "--explain", "gpu_scheduler.auto_tune", cache=tmp_path).out
        assert "MLX_AUTO_TUNE_MIN_BATCH" in section and "server.port" not in section
        key = run("config", "--explain", "server.port", cache=tmp_path).out
        assert "--port, MLXS_SERVER_PORT" in key and "sets server.port" in key
        assert "not in this build" in run("config", "--explain", "json_rpc.retry", cache=tmp_path).out
        wrong = run("config", "--explain", "server.prot", cache=tmp_path)
        assert (wrong.status, wrong.out) == (1, "")
        assert "server.port" in wrong.err

    def test_the_files_of_the_repository_are_what_the_program_says(self, tmp_path):
        """Fails where a key changed and `make docs` was not run."""
        written = (ROOT / "config" / "runtime.yaml").read_text()
        assert written == run("config", "--defaults", cache=tmp_path).out
        keys = run("config", "--explain", "--json", cache=tmp_path).json()["keys"]
        documented = (ROOT / "docs" / "config.md").read_text()
        assert [key["key"] for key in keys if f"`{key['key']}`" not in documented] == []

    def test_the_file_of_the_repository_is_yaml_of_the_keys(self):
        """Read by a parser of others, with every key's comment sign taken away."""
        text = (ROOT / "config" / "runtime.yaml").read_text()
        read = yaml.safe_load(re.sub(r"^( +)# (\w+: )", r"\1\2", text, flags=re.MULTILINE))
        assert read["server"]["port"] == 8000
        assert read["gpu_scheduler"]["adaptive_window"]["hysteresis_count"] == 3
        assert read["scheduling"]["tenant_weights"] == {}

    def test_checks_a_file(self, tmp_path, file):
        good = run("config", "--check", file("server:\n  port: 9000\n"), cache=tmp_path)
        assert (good.status, good.err) == (0, "")
        assert "1 key, 0 warnings" in good.out
        path = file("gpu_scheduler:\n  batch_window_ms: 9\njson_rpc:\n  retry: {max_attempts: 3}\n")
        warned = run("config", "--check", path, cache=tmp_path)
        assert warned.status == 0
        assert f"{path}:2: gpu_scheduler.batch_window_ms = 9 is outside" in warned.err
        assert f"{path}:4: json_rpc.retry.max_attempts: not in this build" in warned.err
        assert run("config", "--check", path, "--strict", cache=tmp_path).status == 1
        path = file("server:\n  prot: 9000\n  host: {a: b}\n")
        wrong = run("config", "--check", path, cache=tmp_path)
        assert (wrong.status, wrong.out) == (1, "")
        assert f"{path}:2: no key 'server.prot' (did you mean server.port" in wrong.err
        assert f"{path}:3: server.host = '{{a: b}}' is not one text" in wrong.err
        absent = run("config", "--check", str(tmp_path / "none.yaml"), cache=tmp_path)
        assert absent.status == 1 and "none.yaml" in absent.err

    def test_shows_what_holds_and_why(self, tmp_path, file, monkeypatch):
        monkeypatch.setenv("MLX_FAST_PATH", "OFF")
        monkeypatch.setenv("MLXS_API_KEY", "very-secret-key")
        path = file("server:\n  port: 9001\nmlx:\n  concurrency_limit: 7\n")
        shown = run("config", "show", "--config", path, "--port", "9002", "--json", cache=tmp_path)
        assert "very-secret-key" not in shown.out
        values = shown.json()["values"]
        assert values["server.port"] == {"value": 9002, "from": "flag", "where": "--port"}
        assert values["mlx.concurrency_limit"] == {"value": 7, "from": "file", "where": f"{path}:4"}
        assert values["gpu_scheduler.fast_path.enabled"] == {"value": False, "from": "environment", "where": "MLX_FAST_PATH"}
        assert values["server.host"]["from"] == "default"
        table = run("config", "show", "--config", path, "--changed", cache=tmp_path).out
        assert "very-secret-key" not in table
        assert "mlx.concurrency_limit" in table and "server.host" not in table

    def test_telemetry_is_of_the_configuration_too(self, tmp_path, file, monkeypatch):
        monkeypatch.setenv("OTEL_SERVICE_NAME", "llm")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=very-secret-key")
        monkeypatch.setenv("MLXS_LOG_FORMAT", "json")
        path = file("telemetry:\n  service_name: other\n  trace_sample: 0.5\nlog:\n  format: pretty\n  prompts: on\n")
        flags = ["--log-level", "warn", "--stall-timeout", "2.5", "--no-metrics", "--otlp-endpoint", "http://c:4318"]
        shown = run("config", "show", "--config", path, *flags, "--json", cache=tmp_path)
        assert "very-secret-key" not in shown.out
        values = shown.json()["values"]
        assert values["telemetry.service_name"] == {"value": "llm", "from": "environment", "where": "OTEL_SERVICE_NAME"}
        assert values["telemetry.trace_sample"] == {"value": 0.5, "from": "file", "where": f"{path}:3"}
        assert values["log.format"] == {"value": "json", "from": "environment", "where": "MLXS_LOG_FORMAT"}
        assert values["log.level"] == {"value": "warn", "from": "flag", "where": "--log-level"}  # MLXS_LOG_LEVEL is set, too
        assert values["log.prompts"]["value"] is True
        assert values["telemetry.stall_timeout_ms"] == {"value": 2500, "from": "flag", "where": "--stall-timeout"}
        assert values["telemetry.metrics"] == {"value": False, "from": "flag", "where": "--no-metrics"}
        assert values["telemetry.otlp_endpoint"]["value"] == "http://c:4318"
        wrong = run("serve", "m", *flags, cache=tmp_path)
        assert wrong.status == 1
        assert "telemetry.metrics is off (--no-metrics), but metrics are to be sent over OTLP" in wrong.err

    def test_finds_the_file_of_the_folder_and_of_the_user(self, tmp_path, monkeypatch):
        user = tmp_path / "home" / "mlx-serving" / "runtime.yaml"
        user.parent.mkdir(parents=True)
        user.write_text("server: {port: 9001}\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
        work = tmp_path / "work"
        work.mkdir()

        def port(*more: str) -> int:
            command = [BIN, "config", "show", "--json", *more]
            done = subprocess.run(command, cwd=work, env=environment(tmp_path), capture_output=True, text=True, check=True)
            return json.loads(done.stdout)["values"]["server.port"]["value"]

        assert port() == 9001
        (work / "config").mkdir()
        (work / "config" / "runtime.yaml").write_text("server: {port: 9002}\n")
        assert port() == 9002
        assert port("--no-config") == 8000

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["config"], "--explain"),
            (["serve", "m", "--config", "a", "--no-config"], "--no-config"),
            (["serve", "m", "--prefix-cache-ttl", "-1"], "--prefix-cache-ttl"),
            (["serve", "m", "--tenant-weight", "alice"], "--tenant-weight"),
            (["serve", "m", "--scheduler-preset", "fast"], "latency_sensitive"),
        ],
    )
    def test_wrong_usage(self, tmp_path, arguments, named):
        result = run(*arguments, cache=tmp_path)
        assert (result.status, result.out) == (2, "")
        assert named in result.err

    def test_a_wrong_header_is_refused_under_the_name_it_was_given_by(self, tmp_path, file, monkeypatch):
        wrong = run("serve", "mock", "--otlp-header", "foo", cache=tmp_path)
        assert (wrong.status, wrong.out) == (1, "")
        assert "--otlp-header" in wrong.err
        assert "OTEL_EXPORTER_OTLP_HEADERS" not in wrong.err
        wrong = run("serve", "mock", "--config", str(file("telemetry: {otlp_headers: [foo]}\n")), cache=tmp_path)
        assert "runtime.yaml:1 = " in wrong.err
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "foo")
        assert "OTEL_EXPORTER_OTLP_HEADERS = " in run("serve", "mock", cache=tmp_path).err


@needs_model
class TestServer:
    def test_follows_its_file(self, tmp_path, file):
        path = file(
            f"model: {{memory_cache: {{warmup_on_start: [{MODEL}]}}}}\n"
            "server: {keep_requests: 3, max_body_bytes: 2KiB, cors_origins: ['https://chat.example']}\n"
            "gpu_scheduler: {preset: throughput_optimized, max_batch_size: 6}\n"
            "engine: {context_length: 512}\n"
            "json_rpc: {default_timeout_ms: 1}\n"
        )
        server = ServeProcess("--config", path, cache=tmp_path)
        try:
            model = requests.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]
            page = requests.get(f"{server.url}/v1/models", headers={"Origin": "https://chat.example"}, timeout=60)
            assert page.headers["access-control-allow-origin"] == "https://chat.example"
            window = requests.get(f"{server.url}/v1/scheduler/stats", timeout=60).json()["data"][0]["gpu_scheduler"]
            assert (window["enabled"], window["current_batch_size"]) == (True, 6)
            body = {"model": model["id"], "prompt": "word " * 600, "max_tokens": 1}
            assert requests.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 413  # over 2 KiB
            errors = server.errors()
            assert f"configuration: {path}" in errors
            assert "json_rpc.default_timeout_ms: not in this build" in errors
        finally:
            server.close()

    def test_tells_of_itself_as_its_file_says(self, tmp_path, file, monkeypatch):
        path = file("log: {format: json, access: off}\ntelemetry: {metrics: off, flight_steps: 0}\n")
        server = ServeProcess("mock:tokens=3", "--config", path, "--log-level", "debug", cache=tmp_path)
        try:
            assert requests.get(f"{server.url}/v1/log", timeout=60).json() == {"level": "debug", "format": "json"}
            assert requests.get(f"{server.url}/metrics", timeout=60).status_code == 404
            assert requests.get(f"{server.url}/v1/flight", timeout=60).status_code == 404
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            lines = [json.loads(line) for line in server.errors().splitlines()]
            assert lines and not any("event" in line for line in lines)
        finally:
            server.close()

    def test_refuses_to_start_on_a_wrong_one(self, tmp_path, file, monkeypatch):
        monkeypatch.setenv("MLX_AUTO_TUNE", "perhaps")
        result = run("serve", MODEL, "--config", file("server: {port: eighty}\n"), cache=tmp_path)
        assert (result.status, result.out) == (1, "")
        assert "server.port = 'eighty'" in result.err
        assert "MLX_AUTO_TUNE = 'perhaps' is not on or off" in result.err
