"""/v1/responses with the openai package: input in every form, conversations by id, tools, schemas, events, what is kept."""

import json

import jsonschema
import openai
import pytest

FRANCE = "What is the capital of France? Answer with one word."
LONG = "Count from one to one hundred in words."
SCHEMA = {
    "type": "object",
    "properties": {"zip": {"type": "integer", "minimum": 1, "maximum": 99}, "city": {"enum": ["Paris", "Rome"]}},
    "required": ["zip", "city"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def create(api):
    def create(said=FRANCE, **fields):
        return api.openai.responses.create(
            **{"model": api.model, "input": said, "temperature": 0, "max_output_tokens": 20, **fields}
        )

    return create


def test_a_response_says_what_the_chat_route_says(create, api):
    response = create()
    chat = api.chat(FRANCE, temperature=0, max_tokens=20)
    assert response.status == "completed"
    assert response.object == "response"
    assert response.output_text == chat["choices"][0]["message"]["content"]
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert response.usage.output_tokens == chat["usage"]["completion_tokens"]
    assert response.usage.total_tokens == chat["usage"]["total_tokens"]
    assert (response.model, response.temperature, response.max_output_tokens) == (api.model, 0, 20)
    assert response.completed_at >= response.created_at


def test_instructions_and_items_are_the_chats_messages(create, api):
    chat = api.post(
        "/v1/chat/completions",
        {
            "model": api.model,
            "temperature": 0,
            "max_tokens": 8,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": "Who are you?"},
            ],
        },
    ).json()
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi.", "annotations": []}]},
        {"role": "user", "content": "Who are you?"},
    ]
    told = create(items, instructions="Be brief.", max_output_tokens=8)
    assert told.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert told.output_text == chat["choices"][0]["message"]["content"]
    assert told.instructions == "Be brief."
    system = create([{"role": "developer", "content": "Be brief."}, *items], max_output_tokens=8)
    assert system.output_text == told.output_text


def test_a_conversation_goes_on_by_id(create):
    first = create(LONG, max_output_tokens=6, instructions="Be brief.")
    second = create("Go on.", previous_response_id=first.id)
    items = [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Go on."},
    ]
    stateless = create(items, store=False)
    assert second.previous_response_id == first.id
    assert second.output_text == stateless.output_text
    assert second.usage.input_tokens == stateless.usage.input_tokens, "instructions do not go on"
    third = create("And on.", previous_response_id=second.id, max_output_tokens=1)
    assert third.usage.input_tokens > second.usage.input_tokens + second.usage.output_tokens


def test_responses_are_kept_read_and_deleted(create, api):
    made = create(metadata={"who": "me"})
    kept = api.openai.responses.retrieve(made.id)
    assert kept == made
    assert kept.metadata == {"who": "me"}
    (item,) = api.openai.responses.input_items.list(made.id).data
    assert (item.type, item.role, item.content[0].text) == ("message", "user", FRANCE)
    api.openai.responses.delete(made.id)
    for gone in (api.openai.responses.retrieve, api.openai.responses.delete, api.openai.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match=made.id):
            list(gone(made.id))
    with pytest.raises(openai.BadRequestError, match=made.id) as refused:
        create(previous_response_id=made.id)
    assert refused.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        api.openai.responses.retrieve(create(store=False).id)


def test_an_answer_that_is_cut_is_incomplete(create):
    response = create(LONG, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    assert response.usage.output_tokens == 3


def test_events_come_in_their_order(create, api):
    whole = create()
    events = list(create(stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == whole.output_text
    final = events[-1].response
    assert final.output_text == whole.output_text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert {event.item_id for event in events[3:-2]} == {final.output[0].id}
    assert events[0].response.status == "in_progress"
    assert events[0].response.usage is None
    assert api.openai.responses.retrieve(final.id) == final


def test_the_packages_own_stream_helper(create, api):
    fields = {"model": api.model, "input": LONG, "temperature": 0, "max_output_tokens": 8}
    with api.openai.responses.stream(**fields) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == create(LONG, max_output_tokens=8).output_text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_a_schema(create, stream):
    form = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
    response = create(FRANCE, temperature=2, max_output_tokens=200, stream=stream, text=form)
    if stream:
        response = list(response)[-1].response
    value = json.loads(response.output_text)
    jsonschema.validate(value, SCHEMA)
    assert list(value) == ["zip", "city"], "in the order of the schema"


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_result(create, stream):
    choice = {"type": "function", "name": "get_weather"}
    fields = {"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": False, "max_output_tokens": 200, "temperature": 1}
    if stream:
        events = list(create("How is the weather in Rome?", stream=True, **fields))
        kinds = [event.type for event in events]
        assert kinds[2] == "response.output_item.added"
        assert events[2].item.arguments == ""
        deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
        assert "".join(deltas) == events[-3].arguments
        response = events[-1].response
    else:
        response = create("How is the weather in Rome?", **fields)
    (call,) = response.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    jsonschema.validate(json.loads(call.arguments), TOOL["parameters"])
    assert response.tools[0].name == "get_weather"
    assert response.tool_choice.name == "get_weather"

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It is snowing."}
    by_id = create([result], previous_response_id=response.id, tools=[TOOL], tool_choice="none")
    turns = [{"role": "user", "content": "How is the weather in Rome?"}, call.to_dict(), result]
    stateless = create(turns, tools=[TOOL], tool_choice="none")
    assert by_id.output_text == stateless.output_text != ""
    assert by_id.usage.input_tokens == stateless.usage.input_tokens


def test_of_allowed_tools_one_is_called(create):
    other = {"type": "function", "name": "stop_clock", "parameters": {"type": "object", "properties": {}}}
    for name in ("get_weather", "stop_clock"):
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": name}]}
        fields = {"tool_choice": choice, "parallel_tool_calls": False, "max_output_tokens": 200}
        response = create("How is the weather?", tools=[TOOL, other], **fields)
        assert [call.name for call in response.output] == [name]
        assert response.tool_choice.to_dict() == choice


def test_log_probabilities(create, api):
    response = create(max_output_tokens=3, top_logprobs=2, include=["message.output_text.logprobs"])
    expected = api.chat(FRANCE, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    tokens = response.output[0].content[0].logprobs
    assert [token.token for token in tokens] == [token["token"] for token in expected]
    assert [[other.token for other in token.top_logprobs] for token in tokens] == [
        [other["token"] for other in token["top_logprobs"]] for token in expected
    ]
    streamed = [
        token
        for event in create(max_output_tokens=3, top_logprobs=2, stream=True)
        if event.type == "response.output_text.delta"
        for token in event.logprobs
    ]
    assert [token.token for token in streamed] == [token["token"] for token in expected]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": 3}, "temperature"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1 << 20}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type"),
        ({"input": "word " * 20000}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.function.name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "x"}}}}, "text.format"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"metadata": {"a": "b" * 600}}, "metadata"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_wrong_requests_are_refused_with_the_name(api, fields, named):
    response = api.post("/v1/responses", {"model": api.model, "input": FRANCE, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == named


def test_fields_that_change_nothing_are_named(create, api):
    raw = api.openai.responses.with_raw_response.create(
        model=api.model,
        input=FRANCE,
        max_output_tokens=1,
        reasoning={"effort": "low"},
        extra_body={"no_such_field": 1, "text": {"verbosity": "low"}},
    )
    for name in ("no_such_field", "text.verbosity", "reasoning"):
        assert name in raw.headers["x-mlxs-warning"]
    assert raw.parse().reasoning.effort == "low"
