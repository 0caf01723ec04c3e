"""What the packages build on top of their calls: typed streams, parsed answers, runners of tools, asynchronous clients."""

import asyncio
import json
from typing import Literal

import anthropic
import ollama
import openai
import pydantic
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
ASK = [{"role": "user", "content": "How is the weather in Rome?"}]
GREEDY = {"temperature": 0}


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    unit: str = pydantic.Field(pattern="^(celsius|fahrenheit)$")
    days: int = pydantic.Field(ge=1, le=9)


@pytest.fixture(scope="module")
def claude(api):
    return anthropic.Anthropic(base_url=api.url, api_key="none", max_retries=0, timeout=120)


def test_openai_streams_a_class(api):
    fields = {"model": api.model, "messages": ASK, "temperature": 2, "seed": 5, "max_tokens": 300}
    with api.openai.chat.completions.stream(**fields, response_format=Weather) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(final.choices[0].message.parsed, Weather)


def test_openai_streams_a_call_with_parsed_arguments(api):
    tool = openai.pydantic_function_tool(Weather)
    fields = {"model": api.model, "messages": ASK, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    with api.openai.chat.completions.stream(**fields, temperature=1, max_tokens=300) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    deltas = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert "".join(deltas) == done.arguments
    assert isinstance(final.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)


def test_openai_parses_responses(api):
    fields = {"model": api.model, "input": ASK[0]["content"], "temperature": 2, "max_output_tokens": 300}
    assert isinstance(api.openai.responses.parse(**fields, text_format=Weather).output_parsed, Weather)
    with api.openai.responses.stream(**fields, text_format=Weather) as stream:
        kinds = [event.type for event in stream]
        assert isinstance(stream.get_final_response().output_parsed, Weather)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    tool = openai.pydantic_function_tool(Weather)
    call = api.openai.responses.parse(**fields, tools=[tool], tool_choice="required", parallel_tool_calls=False)
    assert isinstance(call.output[0].parsed_arguments, Weather)


def test_anthropic_parses_a_class(claude, api):
    class Place(pydantic.BaseModel):
        city: Literal["Paris", "Rome"]
        capital: bool

    message = claude.messages.parse(model=api.model, messages=ASK, max_tokens=300, output_format=Place)
    assert isinstance(message.parsed_output, Place)


def test_anthropics_runner_calls_the_tool_and_sends_its_result(claude, api):
    asked = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
          city: The city's name
        """
        asked.append(city)
        return "It is snowing."

    runner = claude.beta.messages.tool_runner(
        model=api.model,
        messages=ASK,
        max_tokens=200,
        tools=[get_weather],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        max_iterations=2,
        extra_body=GREEDY,
    )
    messages = list(runner)  # its threads are refused in words that it knows: it sends the whole conversation
    assert [message.stop_reason for message in messages] == ["tool_use"] * 2
    assert asked[0] == messages[0].content[0].input["city"]
    assert messages[1].usage.input_tokens + messages[1].usage.cache_read_input_tokens > (
        messages[0].usage.input_tokens + messages[0].usage.cache_read_input_tokens
    )


def test_asynchronous_clients(api):
    """Eight at once with each package, streamed, say what one says."""
    expected = api.chat(FRANCE[0]["content"], temperature=0, max_tokens=8)["choices"][0]["message"]["content"]
    gpt = openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=120)
    claude = anthropic.AsyncAnthropic(base_url=api.url, api_key="none", max_retries=0, timeout=120)
    llama = ollama.AsyncClient(host=api.url, timeout=120)

    async def by_openai():
        stream = await gpt.chat.completions.create(model=api.model, messages=FRANCE, stream=True, max_tokens=8, **GREEDY)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def by_anthropic():
        async with claude.messages.stream(model=api.model, messages=FRANCE, max_tokens=8, extra_body=GREEDY) as stream:
            return "".join([text async for text in stream.text_stream])

    async def by_ollama():
        stream = await llama.chat(api.model, FRANCE, stream=True, options={**GREEDY, "num_predict": 8})
        return "".join([part.message.content async for part in stream])

    async def all_at_once():
        return await asyncio.gather(*[ask() for ask in (by_openai, by_anthropic, by_ollama) for _ in range(8)])

    assert set(asyncio.run(all_at_once())) == {expected}


def test_ollamas_functions_are_called_with_what_the_model_sends(api):
    """As the package's own loop does it: a function as the tool, its call's arguments as keyword arguments."""
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
    turns = [{"role": "user", "content": "Call the tool."}, {"role": "assistant", "content": call}] * 2
    turns.append({"role": "user", "content": "Again, please."})

    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
          a: One number
          b: Another
        """
        return a + b

    client = ollama.Client(host=api.url, timeout=120)
    for stream in (False, True):
        answer = client.chat(api.model, turns, tools=[add], stream=stream, options={**GREEDY, "num_predict": 80})
        calls = [c for part in (answer if stream else [answer]) for c in part.message.tool_calls or []]
        assert [add(**found.function.arguments) for found in calls] == [5], json.dumps([str(c) for c in calls])
