"""The anthropic package, unchanged, against the server: messages, streams, token counts, errors."""

import json

import anthropic
import jsonschema
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
GREEDY = {"temperature": 0}  # the package has no argument for it, older ones do
LONG = [{"role": "user", "content": "Count from one to one hundred in words."}]


@pytest.fixture(scope="module")
def client(api):
    return anthropic.Anthropic(base_url=api.url, api_key="none", max_retries=0, timeout=120)


def create(client, api, messages=FRANCE, **fields):
    return client.messages.create(**{"model": api.model, "messages": messages, "max_tokens": 20, **fields})


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens


def test_a_message_says_what_the_openai_route_says(client, api):
    message = create(client, api, extra_body=GREEDY)
    openai_answer = api.chat(FRANCE[0]["content"], temperature=0, max_tokens=20)
    assert message.type == "message"
    assert message.role == "assistant"
    assert message.model == api.model
    assert message.stop_reason == "end_turn"
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == openai_answer["choices"][0]["message"]["content"]
    assert "Paris" in message.content[0].text
    assert prompt_tokens(message.usage) == openai_answer["usage"]["prompt_tokens"]
    assert message.usage.output_tokens == openai_answer["usage"]["completion_tokens"]


def test_max_tokens_ends_an_answer(client, api):
    message = create(client, api, LONG, max_tokens=3)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3


def test_a_stop_sequence_cuts_the_text(client, api):
    whole = create(client, api, LONG, extra_body=GREEDY, max_tokens=30).content[0].text
    stop = whole[5:9]
    cut = create(client, api, LONG, extra_body=GREEDY, max_tokens=30, stop_sequences=[stop])
    assert cut.content[0].text == whole[: whole.index(stop)]
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    fields = {"model": api.model, "messages": LONG, "max_tokens": 30, "extra_body": GREEDY}
    with client.messages.stream(**fields, stop_sequences=["no such text", stop]) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", stop)


def test_a_stream_says_the_same_as_the_message(client, api):
    fields = {"model": api.model, "messages": LONG, "max_tokens": 8, "extra_body": GREEDY}
    whole = client.messages.create(**fields)
    with client.messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason == "max_tokens"
    assert final.usage.output_tokens == whole.usage.output_tokens == 8
    assert prompt_tokens(final.usage) == prompt_tokens(whole.usage)


def test_events_come_in_their_order(client, api):
    events = list(create(client, api, LONG, max_tokens=4, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0].message.usage.input_tokens == client.messages.count_tokens(model=api.model, messages=LONG).input_tokens


def test_system_and_blocks_are_the_chat_templates_messages(client, api):
    blocks = [{"role": "user", "content": [{"type": "text", "text": part} for part in ("Say ", "hello.")]}]
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        message = create(client, api, blocks, system=system, max_tokens=1)
        same = api.post(
            "/v1/chat/completions",
            {
                "model": api.model,
                "max_tokens": 1,
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Say hello."},
                ],
            },
        ).json()
        assert prompt_tokens(message.usage) == same["usage"]["prompt_tokens"]


def test_what_cache_control_marks_is_counted_once_and_then_read(client, api):
    story = "Once there was a fox who counted every stone on the hill, and a dog who did not care. " * 6
    for ttl in ("5m", "1h"):
        mark = {"type": "ephemeral", "ttl": ttl}
        system = [
            {"type": "text", "text": f"Kept for {ttl}. {story}", "cache_control": mark},
            {"type": "text", "text": "Be brief."},
        ]
        pinned = api.stats()["prefix_cache"]["pinned"]["prompts"]
        first = create(client, api, system=system, max_tokens=1).usage
        assert api.stats()["prefix_cache"]["pinned"]["prompts"] == pinned + 1
        written = first.cache_creation_input_tokens
        assert written >= 112 and (written + first.cache_read_input_tokens) % 16 == 0
        by_time = (first.cache_creation.ephemeral_5m_input_tokens, first.cache_creation.ephemeral_1h_input_tokens)
        assert by_time == ((written, 0) if ttl == "5m" else (0, written))
        assert prompt_tokens(first) == client.messages.count_tokens(model=api.model, messages=FRANCE, system=system).input_tokens

        system[1]["text"] = "Never mind."
        other = create(client, api, LONG, system=system, max_tokens=1).usage
        assert other.cache_creation_input_tokens == 0
        assert other.cache_read_input_tokens >= first.cache_read_input_tokens + written


def test_a_conversation_is_marked_turn_by_turn(client, api):
    def ask(turns, **fields):
        turns[-1] = {
            **turns[-1],
            "content": [{"type": "text", "text": turns[-1]["content"], "cache_control": {"type": "ephemeral"}}],
        }
        with client.messages.stream(model=api.model, messages=turns, max_tokens=1, tools=[WEATHER], **fields) as stream:
            return stream.get_final_message().usage

    turns = [{"role": "user", "content": "Tell me of the sea. " + "It is wide and deep and blue. " * 12}]
    first = ask(list(turns))
    assert first.cache_creation_input_tokens > 64
    turns += [
        {"role": "assistant", "content": "It is."},
        {"role": "user", "content": "And of the hills: " + "they are green. " * 12},
    ]
    second = ask(list(turns))
    assert second.cache_read_input_tokens >= first.cache_creation_input_tokens
    assert 0 < second.cache_creation_input_tokens < second.cache_read_input_tokens
    whole = create(client, api, turns, tools=[WEATHER], max_tokens=1, extra_body={"cache_control": {"type": "ephemeral"}}).usage
    assert whole.cache_creation_input_tokens <= 16, "all but its end was there"
    plain = create(client, api, [{"role": "user", "content": "Nobody marked this. " * 20}], max_tokens=1).usage
    assert plain.cache_creation_input_tokens == 0


def test_turns_are_counted_as_they_are_run(client, api):
    turns = [*FRANCE, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    counted = client.messages.count_tokens(model=api.model, messages=turns).input_tokens
    assert counted == prompt_tokens(create(client, api, turns, max_tokens=1).usage)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type"),
        ({"messages": [*FRANCE, {"role": "assistant", "content": "Pa"}]}, "assistant"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"stop_sequences": ["a"] * 17}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]}, "messages[0].content[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": 1}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tools"),
        ({"thinking": {"type": "much"}}, "thinking.type"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"extra_body": {"thread": {"type": "create"}}}, "thread"),
        ({"system": [{"type": "text", "text": "a", "cache_control": {"type": "for ever"}}]}, "system[0].cache_control.type"),
        ({"extra_body": {"cache_control": {"type": "ephemeral", "ttl": "2h"}}}, "cache_control.ttl"),
        ({"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5}, "system[4].cache_control"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"messages": [{"role": "user", "content": "word " * 20000}]}, "context"),
    ],
)
def test_wrong_requests_are_refused_with_the_name(client, api, fields, named):
    with pytest.raises(anthropic.BadRequestError) as refused:
        create(client, api, **fields)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert named in refused.value.body["error"]["message"]


def test_required_fields_and_an_unknown_model(client, api):
    for missing in ("model", "messages", "max_tokens"):
        body = {"model": api.model, "messages": FRANCE, "max_tokens": 1}
        del body[missing]
        response = api.post("/v1/messages", body)
        assert response.status_code == 400
        assert f"{missing} is missing" in response.json()["error"]["message"]
    with pytest.raises(anthropic.NotFoundError) as refused:
        create(client, api, model="no-such-model")
    assert refused.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="no-such-model", messages=FRANCE)


def test_an_answer_follows_a_schema(client, api):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    config = {"format": {"type": "json_schema", "schema": schema}}
    message = create(client, api, output_config=config, max_tokens=60)
    jsonschema.validate(json.loads(message.content[0].text), schema)


def test_fields_that_nothing_reads_are_named(client, api):
    raw = client.messages.with_raw_response.create(
        model=api.model, messages=FRANCE, max_tokens=1, extra_body={"no_such_field": 1}
    )
    assert "no_such_field" in raw.headers["x-mlxs-warning"]


def test_tiers_are_read(client, api):
    for tier in ("auto", "standard_only"):
        raw = client.messages.with_raw_response.create(model=api.model, messages=FRANCE, max_tokens=1, service_tier=tier)
        assert "x-mlxs-warning" not in raw.headers
    with pytest.raises(anthropic.BadRequestError, match="service_tier"):
        client.messages.create(model=api.model, messages=FRANCE, max_tokens=1, service_tier="gold")


WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
}
ASK = [{"role": "user", "content": "How is the weather in Rome?"}]
FORCED = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}}


def test_a_tool_is_used_and_its_result_goes_back(client, api):
    message = create(client, api, ASK, max_tokens=200, **FORCED)
    (call,) = message.content
    assert (call.type, call.name, message.stop_reason) == ("tool_use", "get_weather", "tool_use")
    jsonschema.validate(call.input, WEATHER["input_schema"])

    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "It is snowing."}]}
    turns = [
        *ASK,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    answer = create(client, api, turns, tools=[WEATHER], tool_choice={"type": "none"}, extra_body=GREEDY)
    as_chat = [
        *ASK,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.input, separators=(",", ":"))},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "It is snowing."},
        {"role": "user", "content": "So?"},
    ]
    # Computed as the other was, from its first token: what the cache holds is as good, but rounds differently.
    chat = {"messages": as_chat, "temperature": 0, "max_tokens": 20, "cache_salt": "alone"}
    same = api.post("/v1/chat/completions", chat).json()
    assert answer.content[0].text == same["choices"][0]["message"]["content"]
    assert prompt_tokens(answer.usage) == same["usage"]["prompt_tokens"]


def test_a_call_is_streamed_as_pieces_of_its_input(client, api):
    fields = {"model": api.model, "messages": ASK, "max_tokens": 200, "extra_body": GREEDY, **FORCED}
    whole = client.messages.create(**fields)
    with client.messages.stream(**fields) as stream:
        events = list(stream)
        final = stream.get_final_message()
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == final.content[0].input == whole.content[0].input
    assert final.stop_reason == "tool_use"
    kinds = [event.type for event in events]
    assert kinds.index("content_block_start") < kinds.index("input_json") < kinds.index("content_block_stop")


def test_any_tool_and_tools_are_counted(client, api):
    message = create(client, api, ASK, max_tokens=400, tools=[WEATHER], tool_choice={"type": "any"}, extra_body=GREEDY)
    assert {block.type for block in message.content} == {"tool_use"}
    plain = client.messages.count_tokens(model=api.model, messages=ASK).input_tokens
    counted = client.messages.count_tokens(model=api.model, messages=ASK, tools=[WEATHER]).input_tokens
    assert counted == prompt_tokens(message.usage) > plain + 20
