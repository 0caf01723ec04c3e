"""Quality of service as a client sees it: priorities and targets in headers and bodies, refusals that say when to return."""

import threading

import pytest
from test_load import wait_until_idle

PROMPT = [{"role": "user", "content": "word " * 300}]


def ask(api, headers=None, **fields):
    body = {"model": api.model, "messages": PROMPT, "max_tokens": 2, "ignore_eos": True, **fields}
    return api.post("/v1/chat/completions", body, headers=headers or {})


@pytest.fixture
def measured(api):
    """The scheduler has seen prompts of several lengths, so that it can predict."""
    wait_until_idle(api)
    for words in (20, 120, 220):
        api.chat("measure " * words, max_tokens=3)
    return api


def test_a_target_that_nothing_can_meet_is_refused_at_once(measured):
    api = measured
    before = api.stats()
    for headers, fields in (({"x-slo-ttft-ms": "1"}, {}), ({}, {"slo_ttft_ms": 1})):
        response = ask(api, headers, messages=[{"role": "user", "content": "never seen " * 300}], **fields)
        assert response.status_code == 429, response.text
        assert "within 1" in response.json()["error"]["message"]
        assert "retry-after" not in response.headers, "waiting would not help"
        assert response.headers["x-should-retry"] == "false"
    after = api.stats()
    assert after["slo"]["refused"] == before["slo"]["refused"] + 2
    assert after["steps"] == before["steps"], "no work was done for them"


def test_a_target_with_room_is_met_and_counted(measured):
    api = measured
    before = api.stats()["slo"]
    response = ask(api, {"x-slo-ttft-ms": "60000", "x-slo-tpot-ms": "60000", "x-priority": "high"})
    assert response.status_code == 200, response.text
    after = wait_until_idle(api)["slo"]
    assert after["requests"] == before["requests"] + 1
    assert after["met"] == before["met"] + 1
    assert after["goodput_tokens"] == before["goodput_tokens"] + 2


def test_behind_a_backlog_text_and_header_name_the_same_time(measured):
    api = measured
    own = ask(api, messages=[{"role": "user", "content": "alone " * 250}], max_tokens=1, stream=False)
    assert own.status_code == 200
    prompts = [[{"role": "user", "content": f"backlog {i} " * 500}] for i in range(12)]
    threads = [
        threading.Thread(target=ask, args=(api, {"x-priority": "critical"}), kwargs={"messages": p, "max_tokens": 1})
        for p in prompts
    ]
    for thread in threads:
        thread.start()
    while api.stats()["waiting"] + api.stats()["running"] < len(prompts):
        pass
    cost = api.stats()["step_cost_ms"]
    target = 2 * (cost["fixed"] * 2 + cost["per_token"] * 300)  # enough for itself, not for the twelve before it
    response = ask(api, {"x-slo-ttft-ms": str(target)}, messages=[{"role": "user", "content": "mine " * 200}], max_tokens=1)
    for thread in threads:
        thread.join()
    assert response.status_code == 429, response.text
    seconds = response.headers["retry-after"]
    assert f"try again in {seconds} s" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"x-priority": "urgent"}, "x-priority"),
        ({"x-slo-ttft-ms": "soon"}, "x-slo-ttft-ms"),
        ({"x-slo-ttft-ms": "0"}, "x-slo-ttft-ms"),
        ({"x-slo-tpot-ms": "1e9"}, "x-slo-tpot-ms"),
        ({"x-slo-tpot-ms": "nan"}, "x-slo-tpot-ms"),
    ],
)
def test_a_wrong_header_is_named(api, headers, named):
    response = ask(api, headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == named


def test_a_wrong_field_is_named(api):
    assert ask(api, slo_ttft_ms=0).json()["error"]["param"] == "slo_ttft_ms"
    assert ask(api, slo_tpot_ms="fast").json()["error"]["param"] == "slo_tpot_ms"
