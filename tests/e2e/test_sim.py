"""`mlx-serving sim`: the simulator's figures, from outside."""

import json

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
        assert [p["policy"] for p in out["policies"]] == ["fcfs-whole", "fcfs", "priority", "ours"]
        for policy in out["policies"]:
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
        assert [p["policy"] for p in out["policies"]] == ["fcfs", "ours"]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [(["--scenario", "storm"], "storm"), (["--policies", "magic"], "magic"), (["--rate", "0"], "--rate")],
    )
    def test_wrong_usage_names_the_culprit(self, cache, arguments, named):
        result = run("sim", *arguments, cache=cache)
        assert result.status == 2
        assert named in result.err
