"""`mlx-serving sim`: the simulator's figures, from outside."""

import json
from xml.etree import ElementTree

import pytest
from program import needs_program, run


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def simulate(cache, *arguments) -> dict:
    result = run("sim", "--json", *arguments, cache=cache)
    assert result.status == 0, result.err
    return json.loads(result.out)


@needs_program
class TestSim:
    def test_a_table_with_a_column_for_each_policy(self, cache):
        result = run("sim", "--scenario", "steady", "--seconds", "20", cache=cache)
        assert result.status == 0, result.err
        heading = result.out.splitlines()[0]
        for policy in ["FCFS, whole prompts", "FCFS, chunks", "priority, chunks", "ours"]:
            assert policy in heading
        for row in ["goodput", "TTFT p99", "ITL p99", "fairness gap", "preemptions", "prefix hit rate"]:
            assert f"\n{row}" in result.out

    @pytest.mark.parametrize("scenario", ["steady", "bursty", "chat", "long", "flood", "mixed"])
    def test_every_request_ends_once_under_every_policy(self, cache, scenario):
        out = simulate(cache, "--scenario", scenario, "--seconds", "60", "--rate", "5")
        assert [p["policy"] for p in out["runs"]] == ["fcfs-whole", "fcfs", "priority", "ours"]
        for policy in out["runs"]:
            assert policy["submitted"] > 100
            assert policy["submitted"] == policy["finished"] + policy["cancelled"] + policy["refused"]
            assert policy["within_slo"] <= policy["finished"]
            assert sum(t["submitted"] for t in policy["tenants"]) == policy["submitted"]

    def test_same_seed_same_figures_another_seed_others(self, cache):
        flags = ["--scenario", "mixed", "--seconds", "30"]
        first = simulate(cache, *flags, "--seed", "7")
        assert simulate(cache, *flags, "--seed", "7") == first
        assert simulate(cache, *flags, "--seed", "8") != first

    def test_chosen_policies_only(self, cache):
        out = simulate(cache, "--seconds", "10", "--policies", "ours,fcfs")
        assert [p["policy"] for p in out["runs"]] == ["fcfs", "ours"]

    def test_several_rates_and_a_figure_of_them(self, cache, tmp_path):
        figure = tmp_path / "goodput.svg"
        flags = ["--seconds", "20", "--rate", "1,4", "--policies", "fcfs,ours"]
        result = run("sim", *flags, "--svg", str(figure), cache=cache)
        assert result.status == 0, result.err
        assert [line.split("  ")[0] for line in result.out.splitlines()[1:3]] == ["1 requests/s", "4 requests/s"]
        lines = [e for e in ElementTree.parse(figure).iter() if e.tag.endswith("polyline")]
        assert len(lines) == 4, "two policies in two charts"
        assert [r["requests_per_s"] for r in simulate(cache, *flags)["runs"]] == [1, 1, 4, 4]

    def test_a_figure_of_latencies_by_tenant(self, cache, tmp_path):
        figure = tmp_path / "flood.svg"
        simulate(cache, "--scenario", "flood", "--seconds", "30", "--rate", "2", "--svg", str(figure))
        text = " ".join(e.text or "" for e in ElementTree.parse(figure).iter())
        for words in ["flood, 2 requests/s", "alice: first tokens", "gaps between tokens", "ours"]:
            assert words in text

    def test_a_trace(self, cache, tmp_path):
        trace = tmp_path / "trace.jsonl"
        row = {"timestamp": 500, "input_length": 2000, "output_length": 10, "hash_ids": [1, 2, 3]}
        rows = [row, {**row, "timestamp": 2500, "tenant": "b"}, {**row, "timestamp": 4500}]
        trace.write_text("".join(json.dumps(r) + "\n" for r in rows))
        for ours in simulate(cache, "--trace", str(trace))["runs"]:
            assert (ours["submitted"], ours["finished"], ours["generated_tokens"]) == (3, 3, 30)
            assert ours["cached_prompt_tokens"] == 1536, "the third begins like the first; the second is b's"
            assert 4 < ours["seconds"] < 5
        assert simulate(cache, "--trace", str(trace), "--speed", "4")["runs"][0]["seconds"] < 1.5

    def test_a_wrong_trace_is_named_with_its_line(self, cache, tmp_path):
        trace = tmp_path / "trace.jsonl"
        trace.write_text('{"timestamp": 0, "input_length": 0, "output_length": 1}\n')
        result = run("sim", "--trace", str(trace), cache=cache)
        assert result.status == 1
        assert "trace.jsonl:1: input_length = 0" in result.err

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--scenario", "storm"], "storm"),
            (["--policies", "magic"], "magic"),
            (["--rate", "0"], "--rate"),
            (["--trace", "/no/such/file"], "/no/such/file"),
            (["--speed", "2"], "--trace"),
        ],
    )
    def test_wrong_usage_names_the_culprit(self, cache, arguments, named):
        result = run("sim", *arguments, cache=cache)
        assert result.status == 2
        assert named in result.err
