"""Structured output: whatever the model would rather say, the answer is what was asked for. Checked with Python's jsonschema."""

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest

SEED = 20261121


def random_schema(rng: random.Random, depth: int = 0) -> dict:
    """Schemas of many shapes that are small enough to answer in a few hundred tokens."""
    kinds = [
        "string",
        "integer",
        "number",
        "boolean",
        "null",
        "enum",
        "const",
        "format",
        "pattern",
        "bounds",
        "multiple",
        "types",
    ]
    if depth < 2:
        kinds += ["object", "object", "array", "tuple", "anyOf", "oneOf", "allOf", "ref", "map", "patternProperties", "tree"]
    kind = rng.choice(kinds)
    child = lambda: random_schema(rng, depth + 1)  # noqa: E731
    if kind == "string":
        low = rng.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(1, 12)}
    if kind == "integer":
        low = rng.randrange(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(100)}
    if kind == "number":
        return {"type": "number", "minimum": 0, "maximum": rng.randrange(1, 1000)}
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        return {"enum": rng.sample(["red", "green", 5, None, True, {"a": 1}, "blue light"], 3)}
    if kind == "const":
        return {"const": rng.choice(["fixed", 42, [1, 2], {"k": "v"}])}
    if kind == "bounds":
        low = rng.randrange(-9, 9)
        return {
            "type": rng.choice(["integer", "number"]),
            "exclusiveMinimum": low,
            "exclusiveMaximum": low + rng.randrange(2, 50),
        }
    if kind == "multiple":
        return {"type": "integer", "multipleOf": rng.choice([2, 5, 10]), "minimum": 0, "maximum": 1000}
    if kind == "types":
        return {"type": rng.sample(["boolean", "null", "integer"], 2)}
    if kind == "format":
        formats = ["date", "uuid", "ipv4", "time", "date-time", "duration", "email", "hostname", "ipv6"]
        return {"type": "string", "format": rng.choice(formats)}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-c]{2,5}$", "^v[0-9]+\\.[0-9]$", "^(yes|no)$"])}
    if kind == "object":
        names = rng.sample(["name", "age", "city", "x", "long key", "tags"], rng.randrange(1, 4))
        required = [name for name in names if rng.random() < 0.7]
        properties = {name: child() for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        low = rng.randrange(3)
        return {"type": "array", "items": child(), "minItems": low, "maxItems": low + rng.randrange(3)}
    if kind == "tuple":
        return {"type": "array", "prefixItems": [child(), child()], "items": False, "minItems": 2}
    if kind == "anyOf":
        return {"anyOf": [child(), child()]}
    if kind == "oneOf":  # of types that exclude one another
        return {"oneOf": [{"type": "string", "maxLength": 8}, {"type": "integer", "minimum": 0, "maximum": 99}, {"type": "null"}]}
    if kind == "map":
        properties = {"id": {"type": "integer", "minimum": 0, "maximum": 9}}
        return {"type": "object", "properties": properties, "required": ["id"], "additionalProperties": {"type": "boolean"}}
    if kind == "patternProperties":
        return {"type": "object", "patternProperties": {"^[a-z]{1,3}$": {"type": "boolean"}}, "additionalProperties": False}
    if kind == "allOf":
        low = rng.randrange(10)
        return {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + 20}]}
    if depth > 0:
        return {"type": "boolean"}
    if kind == "tree":  # refers to itself
        below = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}
        node = {"type": "object", "properties": {"leaf": {"type": "boolean"}, "below": below}, "additionalProperties": False}
        return {"$defs": {"node": {**node, "required": ["leaf"]}}, "$ref": "#/$defs/node"}
    return {"$defs": {"part": child()}, "$ref": "#/$defs/part"}


def as_root(schema: dict) -> dict:
    if "$defs" in schema:
        return schema
    return {"type": "object", "properties": {"answer": schema}, "required": ["answer"], "additionalProperties": False}


def different_schemas(count: int) -> list[dict]:
    rng = random.Random(SEED)
    found: dict[str, dict] = {}
    while len(found) < count:
        schema = random_schema(rng)
        if len(found) % 2:
            schema = as_root(schema)
        found.setdefault(json.dumps(schema), schema)
    return list(found.values())


def test_300_schemas_at_temperature_2(api):
    schemas = different_schemas(300)

    def answer(i: int) -> dict:
        fields = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schemas[i]}}}
        return api.chat("Answer.", temperature=2, seed=i, max_tokens=250, **fields)["choices"][0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(answer, range(len(schemas))))
    for schema, choice in zip(schemas, answers, strict=True):
        if choice["finish_reason"] == "stop":  # else cut short: nothing to check
            jsonschema.validate(json.loads(choice["message"]["content"]), schema, jsonschema.Draft202012Validator)
    assert {choice["finish_reason"] for choice in answers} <= {"stop", "length"}
    # Some need not end: an object of as many members as it likes, a tree.
    assert sum(choice["finish_reason"] == "stop" for choice in answers) >= 250


def test_properties_come_in_the_order_of_the_schema(api):
    properties = {name: {"type": "boolean"} for name in ("zebra", "middle", "apple")}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    answer = api.chat("Answer.", max_tokens=200, response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert list(json.loads(answer["choices"][0]["message"]["content"])) == ["zebra", "middle", "apple"]


def test_json_object(api):
    for seed in range(5):
        answer = api.chat("Hi", temperature=1, seed=seed, max_tokens=400, response_format={"type": "json_object"})
        if answer["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"structured_outputs": {"choice": ["yes", "no", "no idea"]}}, "yes|no|no idea"),
        ({"structured_outputs": {"regex": "[0-9]{3}-[a-z]+!"}}, "[0-9]{3}-[a-z]+!"),
        ({"structured_outputs": {"grammar": 'start: "x" ("," NUM)+ ";"\nNUM: /[0-9]{1,3}/'}}, "x(,[0-9]{1,3})+;"),
        ({"guided_regex": "[A-Z]{4}"}, "[A-Z]{4}"),
        ({"guided_choice": ["äöü", "日本"]}, "äöü|日本"),
    ],
    ids=str,
)
def test_constraints(api, fields, pattern):
    for seed in range(4):
        choice = api.chat("Go on.", temperature=2, seed=seed, max_tokens=200, **fields)["choices"][0]
        if choice["finish_reason"] == "stop":
            assert re.fullmatch(pattern, choice["message"]["content"]), choice
    choice = api.complete("Go on:", temperature=1, seed=1, max_tokens=200, **fields)["choices"][0]
    if choice["finish_reason"] == "stop":
        assert re.fullmatch(pattern, choice["text"]), choice


def test_streams_and_logprobs(api):
    stream = api.openai.chat.completions.create(
        model=api.model,
        messages=[{"role": "user", "content": "Pick."}],
        stream=True,
        logprobs=True,
        extra_body={"structured_outputs": {"choice": ["first choice", "second choice"]}},
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text in ("first choice", "second choice")


def test_parse_with_the_client_package(api):
    """openai's own helper sends a strict schema and reads the answer into a class."""
    pydantic = pytest.importorskip("pydantic")

    class City(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=20)
        population: int
        capital: bool

    answer = api.openai.chat.completions.parse(
        model=api.model,
        messages=[{"role": "user", "content": "Tell me of a city."}],
        response_format=City,
        max_tokens=300,
        seed=1,
    )
    assert isinstance(answer.choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("schema", "named"),
    [({"type": "array", "uniqueItems": True}, "uniqueItems"), ({"contains": {"type": "null"}}, "contains")],
    ids=str,
)
def test_an_unsupported_keyword_is_named(api, schema, named):
    with pytest.raises(openai.BadRequestError) as caught:
        api.openai.chat.completions.create(
            model=api.model,
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )
    assert named in caught.value.message
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"x-guidance": {"lenient": True}}}}},
        {"structured_outputs": {"json": {"type": "array", "items": {"x-guidance": {"lenient": True}}}}},
        {"structured_outputs": {"grammar": 'start: "a" b\nb: %json {"contains": {}, "\\u0078-guidance": {"lenient": true}}'}},
    ],
    ids=["schema", "within", "grammar"],
)
def test_a_schema_cannot_ask_to_be_broken(api, fields):
    response = api.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], **fields})
    assert response.status_code == 400
    assert "x-guidance.lenient" in response.json()["error"]["message"]
