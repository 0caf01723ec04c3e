"""A tiny random BERT as a Hugging Face folder, and what it computes, in NumPy: an oracle for what minilm has not."""

import json
import math
import shutil

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

HIDDEN, HEADS, INNER, LAYERS, POSITIONS = 64, 4, 128, 3, 64
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "type_vocab_size": 2,
}


class TinyBert:
    """labels: of a cross-encoder's head; 0: none. pooling: of sentence-transformers' names."""

    def __init__(self, folder, tokenizer, seed=1, labels=0, pooling=None):
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        vocabulary = self.tokenizer.get_vocab_size()
        random = np.random.default_rng(seed)

        def matrix(*shape):
            return (random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)

        w = {
            "bert.embeddings.word_embeddings.weight": matrix(vocabulary, HIDDEN),
            "bert.embeddings.position_embeddings.weight": matrix(POSITIONS, HIDDEN),
            "bert.embeddings.token_type_embeddings.weight": matrix(2, HIDDEN),
        }
        dense = {"pooler.dense": (HIDDEN, HIDDEN)}
        norms = ["embeddings.LayerNorm"]
        for i in range(LAYERS):
            at = f"encoder.layer.{i}"
            dense |= {f"{at}.attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")}
            dense |= {
                f"{at}.attention.output.dense": (HIDDEN, HIDDEN),
                f"{at}.intermediate.dense": (INNER, HIDDEN),
                f"{at}.output.dense": (HIDDEN, INNER),
            }
            norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        for name, shape in dense.items():
            w[f"bert.{name}.weight"] = matrix(*shape)
            w[f"bert.{name}.bias"] = matrix(shape[0]) * 0.5
        for name in norms:
            w[f"bert.{name}.weight"] = 1 + 0.1 * matrix(HIDDEN)
            w[f"bert.{name}.bias"] = 0.1 * matrix(HIDDEN)
        if labels:
            w["classifier.weight"] = 4 * matrix(labels, HIDDEN)
            w["classifier.bias"] = matrix(labels)
        self.w = w
        folder.mkdir()
        save_file(w, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": vocabulary}))
        shutil.copy(tokenizer, folder / "tokenizer.json")
        if pooling:
            modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
            (folder / "modules.json").write_text(json.dumps(modules))
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True, "word_embedding_dimension": HIDDEN}))

    def linear(self, x, name):
        return x @ self.w[f"bert.{name}.weight"].T + self.w[f"bert.{name}.bias"]

    def norm(self, x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * self.w[f"bert.{name}.weight"] + self.w[f"bert.{name}.bias"]

    def hidden(self, *texts):
        """[tokens, hidden] of a text, or of a pair."""
        encoded = self.tokenizer.encode(*texts)
        e = "bert.embeddings."
        x = self.w[e + "word_embeddings.weight"][encoded.ids] + self.w[e + "token_type_embeddings.weight"][encoded.type_ids]
        x = self.norm(x + self.w[e + "position_embeddings.weight"][: len(encoded.ids)], "embeddings.LayerNorm")
        erf = np.vectorize(math.erf)
        for i in range(LAYERS):
            at = f"encoder.layer.{i}"
            q, k, v = (
                self.linear(x, f"{at}.attention.self.{part}").reshape(len(x), HEADS, -1).swapaxes(0, 1)
                for part in ("query", "key", "value")
            )
            scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(HIDDEN // HEADS))
            mixed = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(x), HIDDEN)
            x = self.norm(x + self.linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = self.linear(x, f"{at}.intermediate.dense")
            inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
            x = self.norm(x + self.linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def score(self, first, second):
        pooled = np.tanh(self.linear(self.hidden(first, second)[0], "pooler.dense"))
        return float(1 / (1 + np.exp(-(self.w["classifier.weight"] @ pooled + self.w["classifier.bias"])[0])))
