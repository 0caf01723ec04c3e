"""Tool calls with the openai package. The test model knows no tools, so that what must come is forced by the grammar."""

import json
import re

import jsonschema
import openai
import pytest
import requests
from program import ServeProcess, needs_program
from tiny_llama import write_tiny_llama

WEATHER = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["unit", "days"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "stop_clock": {"type": "object", "properties": {}, "additionalProperties": False}}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "stop_clock"}},
]
ASK = [{"role": "user", "content": "How is the weather?"}]


def ask(api, messages=ASK, **fields):
    return api.openai.chat.completions.create(
        model=api.model, messages=messages, **{"tools": TOOLS, "max_tokens": 600, "temperature": 2, **fields}
    )


@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_obey_their_schemas_at_temperature_2(api, parallel):
    names = set()
    for seed in range(12):
        choice = ask(api, tool_choice="required", parallel_tool_calls=parallel, seed=seed).choices[0]
        if choice.finish_reason == "length":
            continue
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert len(choice.message.tool_calls) == 1 or parallel
        for call in choice.message.tool_calls:
            jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
            assert re.fullmatch("call_[0-9a-f]{24}", call.id)
            names.add(call.function.name)
    assert names == set(SCHEMAS)


def test_a_named_function_is_the_one_called(api):
    for name, schema in SCHEMAS.items():
        choice = ask(api, tool_choice={"type": "function", "function": {"name": name}}, parallel_tool_calls=False).choices[0]
        (call,) = choice.message.tool_calls
        assert call.function.name == name
        jsonschema.validate(json.loads(call.function.arguments), schema)


def test_a_stream_brings_the_same_calls_in_pieces(api):
    fields = {
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    (whole,) = ask(api, **fields).choices[0].message.tool_calls
    chunks = [chunk.choices[0] for chunk in ask(api, stream=True, **fields)]
    deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert deltas[0].function.name == whole.function.name
    assert deltas[0].id
    assert all(delta.index == 0 for delta in deltas)
    assert all(delta.id is None for delta in deltas[1:])
    assert len(deltas) > 4, "arguments come as they are generated"
    assert "".join(delta.function.arguments for delta in deltas) == whole.function.arguments
    assert "".join(chunk.delta.content or "" for chunk in chunks) == ""
    assert chunks[-1].finish_reason == "tool_calls"


def test_results_go_back_to_the_model(api):
    call = ask(api, tool_choice="required", parallel_tool_calls=False, seed=1).choices[0].message
    messages = [*ASK, call, {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "It is snowing."}]
    answer = ask(api, messages, tool_choice="none", max_tokens=40, temperature=0).choices[0]
    assert answer.message.tool_calls is None
    assert answer.message.content
    shorter = ask(api, tool_choice="none", max_tokens=1)
    longer = ask(api, messages, tool_choice="none", max_tokens=1)
    assert longer.usage.prompt_tokens > shorter.usage.prompt_tokens + 10, "the call and its result are in the prompt"


def test_tools_are_in_the_prompt_unless_the_choice_is_none(api):
    without = ask(api, tool_choice="none", max_tokens=1).usage.prompt_tokens
    assert ask(api, max_tokens=1).usage.prompt_tokens > without + 50
    assert api.openai.chat.completions.create(model=api.model, messages=ASK, max_tokens=1).usage.prompt_tokens == without


def allowed(mode, *names):
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_of_allowed_tools_one_is_called_and_all_are_shown(api):
    for name in SCHEMAS:
        for seed in range(4):
            answer = ask(api, tool_choice=allowed("required", name), parallel_tool_calls=False, seed=seed)
            assert answer.choices[0].message.tool_calls[0].function.name == name
    both = ask(api, tool_choice=allowed("required", *SCHEMAS), max_tokens=1)
    assert answer.usage.prompt_tokens == both.usage.prompt_tokens == ask(api, max_tokens=1).usage.prompt_tokens


def test_where_calls_are_free_only_allowed_tools_are_called(api):
    """Asked to repeat a call, the model does, unless that tool is not allowed."""
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"unit": "celsius", "days": 1}}\n</tool_call>'
    messages = [{"role": "user", "content": "Call the tool."}, {"role": "assistant", "content": call}] * 2
    messages.append({"role": "user", "content": "Again, please."})
    fields = {"temperature": 0, "max_tokens": 60}
    free = ask(api, messages, tool_choice=allowed("auto", *SCHEMAS), **fields).choices[0].message
    bound = ask(api, messages, tool_choice=allowed("auto", "stop_clock"), **fields).choices[0].message
    assert free.tool_calls[0].function.name == "get_weather"
    assert all(call.function.name == "stop_clock" for call in bound.tool_calls or [])
    assert "get_weather" not in (bound.content or "").partition("<tool_call>")[2]


def test_with_a_schema_the_answer_is_calls_or_json_of_it(api):
    """Agents send both. Asked to repeat a call the model calls; asked to repeat an answer, it answers in the schema."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}}

    def again(said):
        turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": said}] * 2
        messages = [*turns, {"role": "user", "content": "Again, please."}]
        return ask(api, messages, temperature=0, max_tokens=80, parallel_tool_calls=False, **form).choices[0]

    called = again('<tool_call>\n{"name": "get_weather", "arguments": {"unit": "celsius", "days": 1}}\n</tool_call>')
    assert called.message.tool_calls, called
    assert (called.finish_reason, called.message.tool_calls[0].function.name) == ("tool_calls", "get_weather")
    answered = again('{"city": "Rome"}')
    assert answered.finish_reason == "stop", answered
    jsonschema.validate(json.loads(answered.message.content), schema)
    body = {"messages": ASK, "tools": TOOLS, "max_tokens": 600, "tool_choice": "required", "parallel_tool_calls": False, **form}
    forced = api.post("/v1/chat/completions", body)
    assert forced.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] in SCHEMAS
    warning = forced.headers["x-mlxs-warning"]
    assert "response_format" in warning and "tool_choice" in warning, "what does not hold is said"


FORMATS = {  # how a chat template tells
    "llama3": ("<|python_tag|>", "plain JSON"),
    "mistral": ("[TOOL_CALLS]", "control token"),
    "gemma": ("<start_function_call>", "control token"),
    "harmony": ("<|channel|><|message|>", "control token"),
}


@needs_program
def test_where_calls_and_a_schema_exclude_each_other_it_says_why(tmp_path):
    paths = []
    for name, (mark, _) in FORMATS.items():
        paths.append(write_tiny_llama(tmp_path / name))
        settings = tmp_path / name / "tokenizer_config.json"
        template = "{# " + mark + " #}{% for m in messages %}{{ m.content }}{% endfor %}"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    server = ServeProcess(*paths, "--kv-cache-bytes", "1MiB", cache=tmp_path)
    url = f"{server.url}/v1/chat/completions"
    try:
        for name, (_, why) in FORMATS.items():
            body = {"model": name, "messages": ASK, "tools": TOOLS, "response_format": {"type": "json_object"}, "max_tokens": 4}
            answer = requests.post(url, json=body, timeout=120)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert error["param"] == "response_format"
            for said in ("response_format and tools", name, why, "tool_choice none"):
                assert said in error["message"], error
            for choice in ("none", "required"):
                answer = requests.post(url, json={**body, "tool_choice": choice}, timeout=120)
                assert answer.status_code == 200, answer.text
    finally:
        server.close()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": TOOLS + TOOLS}, "tools[2].function.name"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function.name"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": allowed("auto", "f")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "f")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("none", "get_weather")}, "tool_choice.allowed_tools.mode"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "structured_outputs": {"regex": "a+"}}, "structured_outputs"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"messages": [{"role": "tool", "content": None}]}, "messages[0].content"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(api, fields, param):
    response = api.post("/v1/chat/completions", {"model": api.model, "messages": ASK, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_a_parameter_keyword_that_cannot_be_forced_is_named(api):
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"a": {"type": "array", "uniqueItems": True}}}},
    }
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        ask(api, tools=[tool], tool_choice="required")
    assert caught.value.param == "tools"


def test_strict_binds_the_arguments_of_a_call_that_the_model_chose(api):
    """Shown a call with wrong arguments and asked to repeat it, the model does, unless the tool is strict."""
    wrong = '<tool_call>\n{"name": "get_weather", "arguments": {"unit": "kelvin", "days": 77}}\n</tool_call>'
    messages = [
        {"role": "user", "content": "Call the tool."},
        {"role": "assistant", "content": wrong},
        {"role": "user", "content": "Again, please."},
        {"role": "assistant", "content": wrong},
        {"role": "user", "content": "Again, please."},
    ]
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    free = ask(api, messages, tools=TOOLS[:1], temperature=0, max_tokens=80).choices[0].message
    bound = ask(api, messages, tools=strict, temperature=0, max_tokens=80).choices[0].message
    assert json.loads(free.tool_calls[0].function.arguments)["unit"] == "kelvin"
    jsonschema.validate(json.loads(bound.tool_calls[0].function.arguments), WEATHER)
