"""For scripts/schemathesis.sh: requests name a model that is loaded, and what they generate stays short."""

import os

import schemathesis

MODEL, ENCODER = os.environ["MLXS_TEST_MODEL"], os.environ["MLXS_TEST_ENCODER"]
ENCODER_PATHS = ("/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score", "/api/embed", "/api/embeddings")
LIMIT = {"/v1/chat/completions": "max_tokens", "/v1/completions": "max_tokens", "/v1/messages": "max_tokens"}
LIMIT["/v1/responses"] = "max_output_tokens"
MOST = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "n": 2, "best_of": 2}


@schemathesis.hook
def map_body(context, body):
    """Whole numbers become small and models' names those of models; what is wrong stays wrong."""
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    if body.get("model") and isinstance(body["model"], str):  # an empty one is wrong
        body["model"] = ENCODER if path in ENCODER_PATHS else MODEL
    if path in LIMIT:
        body.setdefault(LIMIT[path], 4)
    for name, most in MOST.items():
        value = body.get(name)
        if value is None and name == LIMIT.get(path) or isinstance(value, int) and not isinstance(value, bool) and value > most:
            body[name] = most
    if path in ("/api/chat", "/api/generate"):
        options = body.setdefault("options", {})
        if options is None:
            options = body["options"] = {}
        if isinstance(options, dict) and not isinstance(options.get("num_predict"), (str, list, dict, float, bool)):
            options["num_predict"] = 4
    return body
