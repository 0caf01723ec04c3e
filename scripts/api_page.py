"""GET /openapi.json as a page in Markdown, docs/http-api.md: every route with its parameters, its body's fields and its answers,
and every named schema. Imported by scripts/docs.py and by the test that the page is current.
"""

INTRO = """# HTTP API: reference

Written by `make docs` from the server's own description, `GET /openapi.json`, which comes from the tables that parse requests.
What the APIs are for, with examples: [api.md](api.md). Every answer has `x-request-id`; `mlx-serving why ID` knows what took its
time.

"""
LINE_BREAKING = str.maketrans({"|": "\\|", "\n": " "})


def number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:g}"


def code(value) -> str:
    if isinstance(value, bool) or value is None:
        return f"`{value}`".lower()
    return "`" + (value or '""') + "`" if isinstance(value, str) else f"`{number(value)}`"


def reference(schema: dict) -> str:
    name = schema["$ref"].rsplit("/", 1)[1]
    return f"[{name}](#{name.lower()})"


def limits(schema: dict) -> str:
    """ "1 … 20", "up to 16 items", as far as there are any."""
    said = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        said.append(" … ".join(number(limit) if limit is not None else "" for limit in (low, high)).strip())
    for key, word in (("minItems", "at least {} items"), ("maxItems", "up to {} items"), ("maxLength", "up to {} characters")):
        if key in schema:
            said.append(word.format(schema[key]))
    return ", ".join(said)


def type_of(schema) -> str:
    if not isinstance(schema, dict):
        return "anything" if schema else "nothing"
    if "$ref" in schema:
        return reference(schema)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = dict.fromkeys(type_of(one) for one in schema[key] if one != {"type": "null"})
            return " or ".join(kinds) if kinds else "null"
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " or ".join(code(value) for value in schema["enum"] if value is not None)
    kinds = schema.get("type", "anything")
    kinds = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    said = " or ".join("list of " + type_of(schema["items"]) if kind == "array" and "items" in schema else kind for kind in kinds)
    more = limits(schema)
    return f"{said}, {more}" if more else said or "null"


def cells(*texts: str) -> str:
    return "| " + " | ".join(text.translate(LINE_BREAKING) for text in texts) + " |"


def fields(schema: dict) -> list[str]:
    """The table of an object's members; of one of several, each one's."""
    rows = []
    needed = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        about = member.get("description", "") if isinstance(member, dict) else ""
        rows.append(cells(code(name) + (" (needed)" if name in needed else ""), type_of(member), about))
    if rows:
        rows = ["| field | values | meaning |", "|---|---|---|", *rows, ""]
    for one in schema.get("anyOf", schema.get("oneOf", [])):
        rows += fields(one) if isinstance(one, dict) else []
    for one in schema.get("allOf", []):
        rows += fields(one) if "$ref" not in one else [f"All of {reference(one)}, and:", ""]
    return rows


def parameters(document: dict, operation: dict) -> list[str]:
    named = document["components"]["parameters"]
    rows = []
    for parameter in operation.get("parameters", []):
        if "$ref" in parameter:
            parameter = named[parameter["$ref"].rsplit("/", 1)[1]]
        place = {"query": "query", "header": "header", "path": "path"}[parameter["in"]]
        rows.append(cells(code(parameter["name"]), place, type_of(parameter["schema"]), parameter.get("description", "")))
    return ["| parameter | in | values | meaning |", "|---|---|---|---|", *rows, ""] if rows else []


def body(operation: dict) -> list[str]:
    lines = []
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        lines += [f"Body, `{media}`{': ' + reference(schema) if '$ref' in schema else ''}:", "", *fields(schema)]
    return lines


def kinds(answer: dict) -> str:
    found = answer.get("content", {}).items()
    return ", ".join(f"`{media}` {type_of(content.get('schema', True))}" for media, content in found) or "nothing"


def answers(operation: dict) -> list[str]:
    good = [
        cells(status, kinds(answer), answer["description"]) for status, answer in operation["responses"].items() if status < "4"
    ]
    failed = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
    bodies = " or ".join(dict.fromkeys(kinds(answer) for answer in failed.values()))
    return ["| status | body | |", "|---|---|---|", *good, "", f"Failures: {', '.join(failed)}: {bodies}.", ""]


def failures(document: dict) -> list[str]:
    """Each status once: they mean the same everywhere."""
    meanings = {}
    for item in document["paths"].values():
        for operation in item.values():
            meanings |= {s: a["description"] for s, a in operation["responses"].items() if s >= "4"}
    rows = [cells(status, meanings[status]) for status in sorted(meanings)]
    return ["## Failures", "", "| status | when |", "|---|---|", *rows, ""]


def page(document: dict) -> str:
    tags: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            lines = tags.setdefault(operation["tags"][0], [])
            lines += [f"### {method.upper()} {path}", "", operation["summary"] + ".", ""]
            lines += parameters(document, operation) + body(operation) + answers(operation)
    parts = [INTRO + "\n".join(failures(document))]
    for tag, lines in sorted(tags.items(), key=lambda entry: entry[0] == "Page"):
        parts.append(f"## {tag}\n\n" + "\n".join(lines))
    parts.append("## Schemas\n")
    for name, schema in document["components"]["schemas"].items():
        table = fields(schema)
        about = schema.get("description", "")
        known = "Members that are not listed may come along." if schema.get("additionalProperties") else ""
        lines = [f"### {name}", "", *([about, ""] if about else []), *(table or [type_of(schema) + ".", ""])]
        parts.append("\n".join([*lines, *([known, ""] if known and table else [])]))
    return "\n".join(parts).rstrip() + "\n"
