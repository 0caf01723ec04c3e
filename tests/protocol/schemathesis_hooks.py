"""For scripts/schemathesis.sh: requests name the model that is loaded, and their answers stay short."""

import os

import schemathesis

MODEL = os.environ["MLXS_TEST_MODEL"]
LIMITS = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "n": 2, "best_of": 2}


@schemathesis.hook
def map_body(context, body):
    """Numbers that are whole and large become small, names of models the model's; what is wrong stays wrong."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str):
        body["model"] = MODEL
    for name, most in LIMITS.items():
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > most:
            body[name] = most
    return body
