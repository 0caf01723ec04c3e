"""The switches of metal_optimizations from the configuration to what they do, what they count, and what happens to those that a
backend cannot have."""

import re

import pytest
from conftest import Api
from program import MODEL, ServeProcess, needs_model, needs_program, run

ALL = """metal_optimizations:
  enabled: true
  memory_pool: {enabled: true, heap_size_mb: 64, num_heaps: 3, warmup_buffer_sizes_mb: [8, 16]}
  blit_queue: {enabled: true}
  command_buffer_ring: {enabled: true, ring_size: 3}
"""
OFF = {"enabled": False}


@pytest.fixture
def start(tmp_path):
    servers = []

    def starting(text):
        path = tmp_path / "runtime.yaml"
        path.write_text(text)
        servers.append(ServeProcess(MODEL, "--config", str(path), cache=tmp_path))
        return Api(servers[-1])

    yield starting
    for server in servers:
        server.close()


def counted(api):
    text = api.get("/metrics").text
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if re.match(r"mlxs_(pool|blit|ring)_", line)}


def counts(api):
    return api.get("/v1/scheduler/stats").json()["metal_optimizations"]


@needs_model
class TestServer:
    def test_what_is_on_works_and_is_counted(self, start, api):
        served = start(ALL)
        answer = served.chat(temperature=0, max_tokens=12)["choices"][0]["message"]["content"]
        assert answer == api.chat(temperature=0, max_tokens=12)["choices"][0]["message"]["content"]

        stats = counts(served)
        pool, ring = stats["memory_pool"], stats["command_buffer_ring"]
        assert (pool["enabled"], pool["pool_size"]) == (True, 3)
        assert pool["total_acquired"] - pool["total_released"] == pool["pool_size"] - pool["available_count"]
        assert pool["total_acquired"] > 0
        assert pool["utilization"] == pytest.approx(1 - pool["available_count"] / 3)
        assert (pool["exhaustion_events"], pool["fallback_events"]) == (0, 0)
        assert (ring["enabled"], ring["ring_size"]) == (True, 3)
        assert ring["total_acquired"] - ring["total_released"] == ring["in_flight_count"] == 3 - ring["available_count"]
        assert ring["total_acquired"] >= 12  # a step a token
        assert ring["timeout_events"] == 0

        metrics = counted(served)
        assert metrics["mlxs_pool_acquired_total"] >= pool["total_acquired"]
        assert metrics["mlxs_pool_released_total"] >= pool["total_released"]
        assert metrics["mlxs_pool_exhausted_total"] == metrics["mlxs_pool_fallbacks_total"] == 0
        assert metrics['mlxs_pool_heaps{state="free"}'] + metrics['mlxs_pool_heaps{state="used"}'] == 3
        assert metrics['mlxs_ring_places{state="free"}'] + metrics['mlxs_ring_places{state="used"}'] == 3
        assert metrics["mlxs_ring_acquired_total"] >= ring["total_acquired"]

        # The CPU computes where the weights lie: left out, said once, counted nowhere.
        assert stats["blit_queue"] == OFF
        assert not any(name.startswith("mlxs_blit_") for name in metrics)
        log = served.process.errors()
        assert len(re.findall(r" warning metal_optimizations\.blit_queue is left out: the cpu backend", log)) == 1, log

    def test_a_step_that_needs_more_takes_it_from_the_system(self, start):
        served = start("metal_optimizations: {enabled: true, memory_pool: {enabled: true, heap_size_mb: 64, num_heaps: 2}}\n")
        served.complete("word " * 1500, max_tokens=1)
        pool = counts(served)["memory_pool"]
        assert pool["total_acquired"] + pool["fallback_events"] > 0
        assert pool["fallback_events"] == pool["exhaustion_events"]
        assert counts(served)["command_buffer_ring"] == OFF

    def test_the_master_switch_is_off_unless_given(self, start):
        served = start(ALL.replace("  enabled: true\n", "", 1))
        served.chat(max_tokens=2)
        assert counts(served) == {"memory_pool": OFF, "blit_queue": OFF, "command_buffer_ring": OFF}
        assert counted(served) == {}
        assert "metal_optimizations.enabled is off, so its memory_pool" in served.process.errors()

    def test_metrics_can_be_off_alone_and_fallbacks_be_quiet(self, start):
        served = start(
            ALL.replace("  enabled: true\n", "  enabled: true\n  expose_metrics: false\n  fallback_log_level: debug\n", 1)
        )
        served.chat(max_tokens=2)
        assert counted(served) == {}
        assert counts(served)["memory_pool"]["total_acquired"] > 0
        assert "is left out" not in served.process.errors()

    def test_without_graceful_fallback_the_server_does_not_start(self, tmp_path):
        path = tmp_path / "strict.yaml"
        path.write_text(ALL.replace("  enabled: true\n", "  enabled: true\n  graceful_fallback: false\n", 1))
        result = run("serve", MODEL, "--port", "0", "--config", str(path), cache=tmp_path)
        assert (result.status, result.out) == (1, "")
        assert "metal_optimizations.blit_queue is left out" in result.err and "graceful_fallback" in result.err


@needs_program
class TestConfiguration:
    def show(self, tmp_path, text):
        path = tmp_path / "runtime.yaml"
        path.write_text(text)
        shown = run("config", "show", "--json", "--config", str(path), cache=tmp_path).json()
        prefix = "metal_optimizations."
        values = {key.removeprefix(prefix): entry["value"] for key, entry in shown["values"].items() if key.startswith(prefix)}
        return values, "\n".join(shown["warnings"])

    def test_defaults_are_off(self, tmp_path):
        values, warnings = self.show(tmp_path, "metal_optimizations: {enabled: false}\n")
        expected = {
            "enabled": False,
            "graceful_fallback": True,
            "memory_pool.enabled": False,
            "memory_pool.heap_size_mb": 256,
            "memory_pool.num_heaps": 4,
            "memory_pool.warmup_buffer_sizes_mb": [32, 64, 128],
            "blit_queue.enabled": False,
            "blit_queue.max_pending_ops": 8,
            "blit_queue.queue_priority": 1,
            "blit_queue.use_shared_events": True,
            "command_buffer_ring.enabled": False,
            "command_buffer_ring.ring_size": 2,
            "command_buffer_ring.timeout_ms": 0,
        }
        assert {key: values[key] for key in expected} == expected
        assert warnings == ""

    @pytest.mark.parametrize(
        ("key", "given", "used"),
        [
            ("memory_pool.heap_size_mb", 32, 64),
            ("memory_pool.num_heaps", 99, 16),
            ("memory_pool.max_heap_size_mb", 100000, 4096),
            ("memory_pool.min_heaps", 0, 1),
            ("memory_pool.warmup_buffer_sizes_mb", [0, 64, 9000], [1, 64, 4096]),
            ("blit_queue.max_pending_ops", 0, 1),
            ("blit_queue.staging_buffer_size_mb", 4096, 1024),
            ("blit_queue.queue_priority", 9, 2),
            ("command_buffer_ring.ring_size", 5, 3),
            ("command_buffer_ring.timeout_ms", -1, 0),
        ],
    )
    def test_ranges(self, tmp_path, key, given, used):
        part, name = key.split(".")
        values, warnings = self.show(tmp_path, f"metal_optimizations: {{{part}: {{{name}: {given}}}}}\n")
        assert values[key] == used
        assert f"metal_optimizations.{key}" in warnings and "is outside" in warnings

    def test_other_names_and_names_that_do_not_act(self, tmp_path):
        text = "metal_optimizations: {memory_pool: {log_pool_exhaustion: false, pool_size: 32, warmup_sizes: [1024]}, "
        values, warnings = self.show(tmp_path, text + "blit_queue: {max_concurrent_ops: 4}}\n")
        assert values["memory_pool.log_exhaustion"] is False
        assert values["blit_queue.max_pending_ops"] == 4
        assert "memory_pool.pool_size" in warnings and "memory_pool.warmup_sizes" in warnings

    def test_a_list_of_sizes_holds_whole_numbers(self, tmp_path):
        path = tmp_path / "wrong.yaml"
        path.write_text("metal_optimizations: {memory_pool: {warmup_buffer_sizes_mb: [32, large]}}\n")
        result = run("config", "show", "--config", str(path), cache=tmp_path)
        assert result.status == 1
        assert "warmup_buffer_sizes_mb = '[32, large]' is not a list of whole numbers, each 1 … 4096 MB" in result.err
