"""Our rendering of chat templates against transformers', character by character.

templates/ holds templates in the manner of well-known ones, written for this test; SmolLM2's own comes from the model.
"""

import calendar
import datetime
import json
import os
import subprocess
import time
from pathlib import Path

import jinja2
import pytest
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
BUILD = Path(os.environ["MLXS_BUILD_DIR"])
NOW = calendar.timegm((2031, 3, 9, 22, 7, 5))
BOS, EOS = "<s>", "</s>"


def turns(count, system=None):
    """A conversation of `count` messages of user and assistant in turn, with text that templates could trip over."""
    said = [
        "What's 2 + 2?",
        "  It's **4**.\n",
        'And «naïve» "quotes" <b>&amp;</b>?',
        "日本語 🦀\n\n",
        "{{ braces }} {% raw %} \\n",
    ]
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [{"role": ("user", "assistant")[i % 2], "content": said[i]} for i in range(count)]


CONVERSATIONS = {
    f"{count}-turn{'-system' if system else ''}": turns(count, system)
    for count in (1, 2, 5)
    for system in (None, " You are terse.\n")
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Wetter für <Ort> & Zeit",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "enum": ["Zürich", "東京"]},
                    "days": {"type": ["integer", "null"], "default": 1.0},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
ARGUMENTS = {"place": "東京", "days": 1e-7, "big": 12345678901234567890, "ok": True, "no": None, "x": 1e22}
CALLS = [
    {"role": "system", "content": "Use tools."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}],
    },
    {"role": "tool", "content": {"b": "warm", "a": [1, -0.0]}},
    {"role": "tool", "content": "cold"},
]
THOUGHTS = [
    {"role": "user", "content": "Think."},
    {"role": "assistant", "content": "<think>\nfirst\n</think>\n\nOne."},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": "\nTwo.", "reasoning_content": "\nsecond\n"},
    {"role": "assistant", "content": "Three."},
]
REASONING = [
    {"role": "user", "content": "a", "reasoning": None},
    {"role": "assistant", "content": "b", "reasoning": "r"},
    {"role": "assistant", "content": "c", "thinking": "t", "reasoning": "r"},
    {"role": "assistant", "content": "d", "thinking": "t", "reasoning_content": "rc"},
]
IMAGES = [{"type": "image"}, {"type": "text", "text": " What is this?\n"}, {"type": "image_url", "image_url": {"url": "x"}}]
PARTS = [
    {"role": "system", "content": [{"type": "text", "text": "See."}]},
    {"role": "user", "content": IMAGES},
    {"role": "assistant", "content": None},
]


def source_of(name):
    return (HERE / "templates" / f"{name}.jinja").read_text()


def ours(jobs, zone="UTC"):
    given = [{"template": source, "bos": BOS, "eos": EOS, "now": NOW, "context": context} for source, context in jobs]
    result = subprocess.run(
        [BUILD / "tests" / "render_templates"],
        input=json.dumps(given).encode(),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "TZ": zone},
    )
    return json.loads(result.stdout)


def transformers_says(source, context):
    context = {"bos_token": BOS, "eos_token": EOS, **context}
    messages = context.pop("messages")
    return chat_template_utils.render_jinja_template([messages], chat_template=source, **context)[0][0]


@pytest.fixture(autouse=True)
def frozen_clock(monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls):
            return cls.fromtimestamp(NOW)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def assert_same(source, contexts, zone="UTC"):
    results = ours([(source, context) for context in contexts], zone)
    for context, result in zip(contexts, results, strict=True):
        try:
            expected = {"text": transformers_says(source, context)}
        except (jinja2.TemplateError, TypeError) as error:
            if type(error) is not jinja2.TemplateError:  # not the template's own: only that it fails
                assert result.get("code") == "invalid_argument", (error, context)
                continue
            expected = {"error": error.message}
            result.pop("code", None)
        assert result == expected, json.dumps(context, ensure_ascii=False)


def conversations(**more):
    return [{"messages": messages, **more} for messages in CONVERSATIONS.values()]


def smollm2_template():
    model = os.environ.get("MLXS_TEST_MODEL")
    if not model:
        pytest.skip("MLXS_TEST_MODEL is not set")
    import gguf

    return gguf.GGUFReader(model).fields["tokenizer.chat_template"].contents()


@pytest.mark.parametrize("prompt", [False, True])
def test_smollm2(prompt):
    source = smollm2_template()
    contexts = conversations(add_generation_prompt=prompt)
    assert_same(source, contexts)
    default_system = "You are a helpful AI assistant named SmolLM"
    shown = [default_system in result["text"] for result in ours([(source, context) for context in contexts])]
    assert shown == ["system" not in name for name in CONVERSATIONS], "the oracle and we rendered what we think we did"


@pytest.mark.parametrize("name", ["turns", "tools", "thinking", "parts", "date", "blocks", "filters", "reasoning"])
@pytest.mark.parametrize("prompt", [False, True])
def test_conversations(name, prompt):
    assert_same(source_of(name), conversations(add_generation_prompt=prompt))


def test_tools():
    assert_same(
        source_of("tools"), conversations(tools=TOOLS) + [{"messages": CALLS, "tools": tools} for tools in (TOOLS, None, [])]
    )


def test_thinking():
    contexts = [{"messages": THOUGHTS, "add_generation_prompt": True, "enable_thinking": enable} for enable in (True, False)]
    contexts += [{"messages": THOUGHTS[:count]} for count in range(1, len(THOUGHTS))]
    assert_same(source_of("thinking"), contexts)
    assert_same(source_of("reasoning"), [{"messages": REASONING}])


def test_parts():
    unknown = {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}
    assert_same(source_of("parts"), [{"messages": PARTS}, unknown, {"messages": [{"role": "user", "content": 3}]}])


def test_raise_exception():
    wrong = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    tool = [{"role": "tool", "content": "x"}]
    results = ours([(source_of("turns"), {"messages": messages}) for messages in (wrong, tool)])
    assert [result["code"] for result in results] == ["invalid_argument"] * 2
    assert results[1]["error"] == "Only user and assistant turns are known, not tool!"
    assert_same(source_of("turns"), [{"messages": wrong}, {"messages": tool}])


# Of each family, written afresh with the constructs of the published one.
FAMILIES = sorted(path.stem for path in (HERE / "templates" / "families").glob("*.jinja"))
CALLED = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}],
    },
    {"role": "tool", "content": "cold", "tool_call_id": "abcdef123", "name": "weather"},
    {"role": "assistant", "content": "<think>\nso\n</think>\n\nIt is cold."},
    {"role": "user", "content": "And now?"},
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("prompt", [False, True])
def test_families(name, prompt):
    contexts = conversations(add_generation_prompt=prompt)
    contexts += conversations(add_generation_prompt=prompt, tools=TOOLS)
    contexts += [{"messages": CALLED[:count], "add_generation_prompt": prompt} for count in range(1, 6)]
    contexts += [{"messages": messages, "tools": TOOLS, "add_generation_prompt": prompt} for messages in (CALLED, CALLS)]
    contexts += [{"messages": messages, "add_generation_prompt": prompt} for messages in (THOUGHTS, PARTS, CALLED[2:])]
    for switches in ({"enable_thinking": False}, {"thinking": True}, {"reasoning_effort": "high"}, {"date_string": "then"}):
        contexts.append({"messages": CALLED, "add_generation_prompt": prompt, **switches})
    contexts.append({"messages": turns(3), "tools": TOOLS, "tools_in_user_message": False})
    assert_same(source_of(f"families/{name}"), contexts)


@pytest.mark.parametrize("zone", ["UTC", "JST-9", "America/New_York"])
def test_local_time(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert_same(source_of("date"), [{"messages": turns(1)}, {"messages": turns(1), "date_string": "given"}], zone)


TESTS = [
    "boolean",
    "defined",
    "false",
    "float",
    "integer",
    "iterable",
    "mapping",
    "none",
    "number",
    "sequence",
    "string",
    "true",
    "undefined",
]
VALUES = ["none", "true", "1", "1.5", "'a'", "''", "[]", "[1]", "{}", "{'a': 1}", "messages", "nothing", "namespace(a=1)"]


def test_tests_of_values():
    """What a template may ask of a value; a namespace is asked only what templates ask it."""
    for value in VALUES:
        tests = TESTS if "namespace" not in value else ["defined", "none", "string"]
        assert_same(f"{value}:" + "".join(f" {test}={{{{ ({value}) is {test} }}}}" for test in tests), [{"messages": turns(1)}])


@pytest.mark.parametrize("source", ["{{ missing.field }}", "{{ messages[9].role }}", "{{ no_such() }}", "{{ 1 + 'a' }}"])
def test_what_fails_there_fails_here(source):
    with pytest.raises((jinja2.TemplateError, TypeError)):
        transformers_says(source, {"messages": turns(1)})
    (result,) = ours([(source, {"messages": turns(1)})])
    assert result["code"] == "invalid_argument" and "line 1" in result["error"]


def test_syntax_errors_are_the_models_fault():
    (result,) = ours([("a\n{% if %}", {"messages": []})])
    assert result["code"] == "model_load_failed"
    assert "line 2" in result["error"]
