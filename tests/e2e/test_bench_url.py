"""`bench` on running servers: quick, compare, ttft, throughput, all and report, and what it says to bad input."""

import json
import xml.etree.ElementTree as ET

import pytest
from other_server import OtherServer
from program import MODEL, ServeProcess, needs_model, needs_program, run

SMALL = ["--max-tokens", "4", "--temp", "0"]


def kinds(result: dict) -> set:
    return {(one["kind"], one["x"], one["side"]) for one in result["runs"]}


@needs_model
class TestMeasuring:
    def test_quick_counts_what_the_server_counts(self, tmp_path, api):
        before = api.stats()
        done = run("bench", "quick", "--url", api.url, "-q", "3", *SMALL, "--json", "--verbose", cache=tmp_path)
        assert done.status == 0, done.err
        result = done.json()
        generated = sum(one["generated_tokens"] for one in result["runs"])
        warm_up = api.stats()["generated_tokens"] - before["generated_tokens"] - generated
        assert 0 < warm_up <= 8
        assert kinds(result) == {("questions", 1, 0)}
        assert result["runs"][0]["success_rate"] == 1
        assert result["sides"][0]["model"] == api.model
        assert result["sides"][0]["throughput_tok_s"] > 0
        assert 0 < result["runs"][0]["ttft_ms"]["p50"] <= result["runs"][0]["e2e_ms"]["p99"]
        assert done.err.count(": request ") == 3

    def test_two_sides_take_turns_and_are_told_apart(self, tmp_path, api):
        folder = tmp_path / "out"
        flags = ["--url", api.url, "--compare", api.url + "/", "-q", "2", "--cycles", "2", *SMALL]
        done = run("bench", "compare", *flags, "-o", str(folder), cache=tmp_path)
        assert done.status == 0, done.err
        assert "A / B" in done.out
        result = json.loads((folder / "result.json").read_text())
        assert [(one["cycle"], one["side"]) for one in result["runs"]] == [(0, 0), (0, 1), (1, 1), (1, 0)]
        report = (folder / "report.md").read_text()
        assert "| tokens/s |" in report and "(report.svg)" in report and " … " in report
        assert ET.fromstring((folder / "report.svg").read_text()).tag.endswith("svg")

    def test_no_prompt_is_served_from_the_cache_of_an_earlier_one(self, tmp_path, api):
        flags = ["--url", api.url, "-q", "2", "--cycles", "3", *SMALL, "--json"]
        result = run("bench", "quick", *flags, cache=tmp_path).json()
        for one in result["runs"]:
            assert one["cached_tokens"] <= 2 * 48  # the template's system prompt, in pages of 16

    def test_all_measures_everything(self, tmp_path, api):
        flags = ["--url", api.url, "-q", "2", *SMALL, "--prompt-words", "8,40", "--clients", "1,2", "--rate", "50"]
        done = run("bench", "all", *flags, "-o", str(tmp_path / "all"), cache=tmp_path)
        assert done.status == 0, done.err
        result = json.loads((tmp_path / "all" / "result.json").read_text())
        assert kinds(result) == {
            ("questions", 1, 0),
            ("first_token", 8, 0),
            ("first_token", 40, 0),
            ("closed_loop", 1, 0),
            ("closed_loop", 2, 0),
            ("open_loop", 50, 0),
        }
        assert {one["requests"] for one in result["runs"] if one["x"] == 2} == {8}
        for title in ("Questions", "Time to first token", "Clients at once", "Arrivals at random"):
            assert title in done.out

    def test_throughput_of_a_server_and_reports_of_stored_results(self, tmp_path, api):
        files = []
        for name in ("a", "b"):
            files.append(str(tmp_path / f"{name}.json"))
            flags = ["--url", api.url, "--model", api.model, "-q", "2", "--clients", "1,2", *SMALL]
            done = run("bench", "throughput", *flags, "-o", files[-1], cache=tmp_path)
            assert done.status == 0, done.err
        both = run("bench", "report", *files, cache=tmp_path)
        assert both.status == 0, both.err
        assert "## Clients at once" in both.out and "tokens/s: A / B" in both.out
        picture = tmp_path / "both.svg"
        assert run("bench", "report", *files, "-o", str(picture), cache=tmp_path).status == 0
        assert ET.fromstring(picture.read_text()).tag.endswith("svg")

    def test_questions_of_a_file(self, tmp_path, api):
        lines = tmp_path / "questions.jsonl"
        lines.write_text('"What is two plus two?"\n\n{"prompt": "Name a colour."}\n')
        flags = ["--url", api.url, "-q", "3", "--question-file", str(lines), *SMALL, "--json"]
        assert run("bench", "quick", *flags, cache=tmp_path).json()["runs"][0]["requests"] == 3


@pytest.fixture(params=[(True, "\n\n"), (False, "\r\n\r\n")], ids=["usage", "no-usage"])
def other(request):
    usage, end = request.param
    server = OtherServer(usage=usage, end=end)
    yield server
    server.close()


@needs_program
class TestAnothersServer:
    def test_every_mode(self, tmp_path, other):
        load = ["--clients", "1,3", "--rate", "200", "--prompt-words", "5,50", "-q", "4"]
        done = run("bench", "all", "--url", other.url, *load, "-o", str(tmp_path / "out"), "-v", cache=tmp_path)
        assert done.status == 0, done.err
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        assert result["sides"][0]["model"] == "other-model"
        assert {(one["kind"], one["x"]) for one in result["runs"]} == {
            ("questions", 1),
            ("first_token", 5),
            ("first_token", 50),
            ("closed_loop", 1),
            ("closed_loop", 3),
            ("open_loop", 200),
        }
        for one in result["runs"]:
            assert (one["failed"], one["success_rate"]) == (0, 1)
            assert one["generated_tokens"] == 5 * one["requests"]
            assert one["ttft_ms"]["p50"] <= one["e2e_ms"]["p50"]
        assert {len(prompt.split()) for prompt in other.prompts} > {5, 50}
        assert (tmp_path / "out" / "report.md").exists() and (tmp_path / "out" / "report.svg").exists()

    def test_beside_ours(self, tmp_path, other):
        ours = ServeProcess("mock", cache=tmp_path)
        try:
            flags = [
                "--url",
                ours.url,
                "--compare",
                other.url + "/v1",
                "-q",
                "3",
                "--cycles",
                "2",
                "--max-tokens",
                "5",
                "--temp",
                "0.5",
            ]
            done = run("bench", "compare", *flags, "--json", cache=tmp_path)
        finally:
            ours.close()
        assert done.status == 0, done.err
        result = done.json()
        assert [side["model"] for side in result["sides"]][1] == "other-model"
        assert {one["side"]: one["generated_tokens"] for one in result["runs"]} == {0: 15, 1: 15}
        assert all(asked["max_tokens"] == 5 and asked["temperature"] == 0.5 for asked in other.fields[1:])


@needs_model
class TestBadServers:
    def test_a_model_that_is_not_there(self, tmp_path, api):
        done = run("bench", "quick", "--url", api.url, "--model", api.model + "x", cache=tmp_path)
        assert (done.status, done.out) == (1, "")
        assert api.model + "x" in done.err and f"it has {api.model}" in done.err

    def test_a_key_that_is_missing_or_wrong(self, tmp_path, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.setenv("MLXS_API_KEY", "the-right-key")
        server = ServeProcess(MODEL, cache=tmp_path)
        try:
            missing = run("bench", "quick", "--url", server.url, cache=tmp_path)
            assert (missing.status, missing.out) == (1, "")
            assert "401" in missing.err and "--api-key" in missing.err
            wrong = run("bench", "quick", "--url", server.url, "--api-key", "other", cache=tmp_path)
            assert wrong.status == 1 and "not one of its keys" in wrong.err
            right = ["--url", server.url, "--api-key", "the-right-key", "-q", "1", *SMALL]
            assert run("bench", "quick", *right, cache=tmp_path).status == 0
        finally:
            server.close()


@needs_program
class TestBadInput:
    def test_nobody_there(self, tmp_path):
        done = run("bench", "quick", "--url", "http://127.0.0.1:1", cache=tmp_path)
        assert (done.status, done.out) == (1, "")
        assert "127.0.0.1:1" in done.err and "start a server" in done.err

    @pytest.mark.parametrize(
        ("name", "text", "named"), [("a.txt", "\n  \n", "no question"), ("a.jsonl", '"a"\n{"x": 1}\n', "a.jsonl:2")]
    )
    def test_files_without_questions(self, tmp_path, name, text, named):
        (tmp_path / name).write_text(text)
        done = run("bench", "quick", "--question-file", str(tmp_path / name), cache=tmp_path)
        assert (done.status, done.out) == (1, "")
        assert named in done.err

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"sides": [], "runs": []}', '{"sides": [{"url": 1}], "runs": [{"kind": 1}]}']
    )
    def test_files_that_are_no_result(self, tmp_path, text):
        (tmp_path / "r.json").write_text(text)
        done = run("bench", "report", str(tmp_path / "r.json"), cache=tmp_path)
        assert (done.status, done.out) == (1, "")
        assert "r.json" in done.err and "bug" not in done.err

    def test_a_comparison_with_nothing(self, tmp_path):
        done = run("bench", "compare", cache=tmp_path)
        assert (done.status, done.out) == (2, "")
        assert "--compare" in done.err
