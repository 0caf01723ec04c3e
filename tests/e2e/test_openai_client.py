"""The openai package, unchanged, against the server: chat and completions, streaming and not, every parameter."""

import math

import openai
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]


def chat(api, messages=FRANCE, **fields):
    return api.openai.chat.completions.create(model=api.model, messages=messages, **fields)


def test_models_are_listed_and_found(api):
    listed = [model.id for model in api.openai.models.list()]
    assert listed == [api.model]
    assert api.openai.models.retrieve(api.model).owned_by == "mlx-serving"
    with pytest.raises(openai.NotFoundError):
        api.openai.models.retrieve("no-such-model")


def test_a_chat_answer_with_usage(api):
    answer = chat(api, temperature=0, max_tokens=20)
    assert answer.object == "chat.completion"
    assert answer.model == api.model
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.completion_tokens >= 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.system_fingerprint.startswith("fp_")


def test_a_stream_says_the_same_as_the_document(api):
    fields = {"temperature": 0, "max_tokens": 40}
    messages = [{"role": "user", "content": "Name three colours."}]
    whole = chat(api, messages, **fields)
    chunks = list(chat(api, messages, stream=True, stream_options={"include_usage": True}, **fields))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) == {None}
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_has_no_usage_unless_asked_for(api):
    chunks = list(chat(api, stream=True, max_tokens=3))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_max_tokens_under_both_names(api):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = chat(api, [{"role": "user", "content": "Count to one hundred."}], temperature=0, **{field: 5})
        assert answer.usage.completion_tokens == 5
        assert answer.choices[0].finish_reason == "length"


def test_content_may_be_text_parts(api):
    parts = [{"type": "text", "text": "What is the capital of France? "}, {"type": "text", "text": "Answer with one word."}]
    joined = chat(api, [{"role": "user", "content": parts}], temperature=0, max_tokens=10)
    plain = chat(api, temperature=0, max_tokens=10)
    assert joined.choices[0].message.content == plain.choices[0].message.content
    assert joined.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_conversation_goes_on_with_the_answer_as_the_client_got_it(api):
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "My name is Alice. Hello!"}]
    first = chat(api, messages, temperature=0, max_tokens=30).choices[0].message
    question = {"role": "user", "content": "What is my name?"}
    answer = chat(api, [*messages, first, question], temperature=0, max_tokens=30)
    plain = chat(api, [*messages, {"role": "assistant", "content": first.content}, question], temperature=0, max_tokens=30)
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens
    assert answer.usage.prompt_tokens > chat(api, [*messages, question], max_tokens=1).usage.prompt_tokens
    assert answer.choices[0].message.content == plain.choices[0].message.content


def test_stop_strings_cut_before_the_match_also_across_tokens(api):
    messages = [{"role": "user", "content": "Count from one to ten in digits, separated by commas."}]
    whole = chat(api, messages, temperature=0, max_tokens=60).choices[0].message.content
    middle = len(whole) // 2
    stop = whole[middle : middle + 7]  # several tokens, from the middle of one to the middle of another
    expected = whole[: whole.index(stop)]
    for given in (stop, ["never in there", stop]):
        answer = chat(api, messages, temperature=0, max_tokens=60, stop=given)
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 60
        stream = chat(api, messages, temperature=0, max_tokens=60, stop=given, stream=True)
        text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
        assert text == expected


def test_equal_seeds_give_equal_answers(api):
    messages = [{"role": "user", "content": "Invent a word."}]

    def ask(seed, **more):
        return chat(api, messages, temperature=1.5, seed=seed, max_tokens=24, **more).choices[0].message.content

    # From here on the prompt is in the cache. One that is computed has other batch shapes, so its rounding differs,
    # and at this temperature a draw between thousands of tokens can see that.
    ask(0)
    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(5)}) > 1


def test_n_choices_with_a_seed_differ_and_repeat(api):
    def ask(**more):
        return chat(api, [{"role": "user", "content": "Invent a word."}], n=3, temperature=1.5, seed=3, max_tokens=16, **more)

    ask()  # the prompt is in the cache from here on
    answer = ask()
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer.usage.completion_tokens <= 48
    single = chat(api, [{"role": "user", "content": "Invent a word."}], max_tokens=1)
    assert answer.usage.prompt_tokens == single.usage.prompt_tokens  # counted once

    streamed = ["", "", ""]
    for chunk in ask(stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_chat_logprobs(api):
    answer = chat(api, temperature=0, max_tokens=8, logprobs=True, top_logprobs=4)
    content = answer.choices[0].logprobs.content
    assert bytes(b for token in content for b in token.bytes).decode() == answer.choices[0].message.content
    for token in content:
        assert len(token.top_logprobs) == 4
        assert token.logprob <= 0
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.top_logprobs[0].token == token.token  # greedy
        assert math.isclose(token.top_logprobs[0].logprob, token.logprob, abs_tol=1e-5)
        assert sum(math.exp(value) for value in values) <= 1.001
    streamed = [
        token
        for chunk in chat(api, temperature=0, max_tokens=8, logprobs=True, top_logprobs=4, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in content]


def test_logit_bias_bans_and_forces(api):
    plain = chat(api, temperature=0, max_tokens=1, logprobs=True)
    tokens = api.complete("x", max_tokens=1, temperature=0, logprobs=0)
    assert tokens["choices"][0]["logprobs"]["tokens"]
    forced = chat(api, temperature=0, max_tokens=4, logit_bias={"100": 100})
    banned = chat(api, temperature=0, max_tokens=4, logit_bias={"100": -100})
    words = forced.choices[0].message.content
    assert words[: len(words) // 4] * 4 == words  # the one token, four times
    assert forced.choices[0].message.content != banned.choices[0].message.content
    assert banned.choices[0].message.content.startswith(plain.choices[0].message.content)


def test_penalties_and_samplers_are_used(api):
    messages = [{"role": "user", "content": "Write the word tree again and again."}]

    def ask(**fields):
        return chat(api, messages, max_tokens=32, **{"temperature": 0, **fields}).choices[0].message.content

    plain = ask()
    assert ask(frequency_penalty=2.0) != plain
    assert ask(presence_penalty=2.0) != plain
    assert ask(extra_body={"repetition_penalty": 1.5}) != plain
    # All of these leave one token to choose from: they are greedy at any temperature.
    assert ask(temperature=1.9, extra_body={"top_k": 1}) == plain
    assert ask(temperature=1.9, top_p=0.0001) == plain
    assert ask(temperature=1.9, extra_body={"min_p": 0.9999}) == plain


def test_unicode_survives_streaming(api):
    text = "Repeat exactly: naïve 漢字 🦙🚀"
    stream = chat(api, [{"role": "user", "content": text}], temperature=0, max_tokens=40, stream=True)
    joined = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    whole = chat(api, [{"role": "user", "content": text}], temperature=0, max_tokens=40)
    assert joined == whole.choices[0].message.content


def test_completions_of_every_prompt_kind(api):
    def texts(prompt, **more):
        answer = api.openai.completions.create(model=api.model, prompt=prompt, temperature=0, max_tokens=6, **more)
        return [choice.text for choice in answer.choices]

    paris, berlin = "The capital of France is", "The capital of Germany is"
    single = texts(paris)
    assert "Paris" in single[0]
    both = texts([paris, berlin])
    assert both[0] == single[0]
    assert "Berlin" in both[1]
    # Token ids: those of the text again, found through the API's own echo of what it chose.
    ids = [504, 253]
    assert texts(ids) == texts([ids])
    assert len(texts([ids, ids], n=2)) == 4


def test_completions_default_to_sixteen_tokens(api):
    answer = api.openai.completions.create(model=api.model, prompt="One two three", extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16
    assert answer.object == "text_completion"


def test_completion_stream_and_logprobs(api):
    fields = {"model": api.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, "logprobs": 2}
    whole = api.openai.completions.create(**fields).choices[0]
    assert "".join(whole.logprobs.tokens) == whole.text
    assert len(whole.logprobs.token_logprobs) == len(whole.logprobs.tokens) == len(whole.logprobs.text_offset)
    assert whole.logprobs.text_offset == [len("".join(whole.logprobs.tokens[:i])) for i in range(len(whole.logprobs.tokens))]
    assert all(len(top) == 2 for top in whole.logprobs.top_logprobs)
    chunks = list(api.openai.completions.create(**fields, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_an_echo_stands_before_every_answer(api):
    prompts = ["The capital of France is", "The capital of Germany is"]
    fields = {"model": api.model, "prompt": prompts, "temperature": 0, "max_tokens": 4, "n": 2}
    plain = [choice.text for choice in api.openai.completions.create(**fields).choices]
    expected = [prompts[i // 2] + text for i, text in enumerate(plain)]
    assert [choice.text for choice in api.openai.completions.create(**fields, echo=True).choices] == expected
    streamed = [""] * 4
    for chunk in api.openai.completions.create(**fields, echo=True, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == expected
    ids = api.post("/tokenize", {"prompt": prompts[0]}).json()["tokens"]
    assert api.complete(ids, temperature=0, max_tokens=4, echo=True)["choices"][0]["text"] == expected[0]


def test_a_repeated_prompt_comes_from_the_cache(api):
    text = "Summarize this: " + "the quick brown fox jumps over the lazy dog. " * 20
    first = api.chat(text, max_tokens=1)
    again = api.chat(text, max_tokens=1)
    assert again["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128
