"""Our tokenizer against llama.cpp's, token by token: see record.py for how the oracle's answers were recorded."""

import gzip
import json
import os
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import texts

BUILD = Path(os.environ["MLXS_BUILD_DIR"])
RECORDED = json.loads(gzip.decompress((texts.HERE / "recorded.json.gz").read_bytes()))
CORPUS, RANDOM = texts.corpus(), texts.random_texts(10_000)


class Encoded(NamedTuple):
    parsed: tuple
    plain: tuple  # control tokens as plain characters
    special: tuple  # parsed, with BOS and EOS as the model asks
    decoded: bytes  # of plain


def encode(model, strings):
    data = [text.encode() for text in strings]
    given = b"".join(struct.pack("<I", len(text)) + text for text in data)
    output = subprocess.run([BUILD / "tests" / "encode_texts", model], input=given, stdout=subprocess.PIPE, check=True).stdout
    at = 0

    def take(form):
        nonlocal at
        (size,) = struct.unpack_from("<I", output, at)
        values = struct.unpack_from(f"<{size}{form}", output, at + 4)
        at += 4 + struct.calcsize(f"<{size}{form}")
        return values

    results = [Encoded(take("i"), take("i"), take("i"), b"".join(take("c"))) for _ in data]
    assert at == len(output)
    return results


def digests(joined):
    return [joined[at : at + 10] for at in range(0, len(joined), 10)]


def assert_same_digests(strings, ids, recorded):
    expected = digests(recorded)
    assert len(expected) == len(strings)
    wrong = [(text, got) for text, got, want in zip(strings, ids, expected, strict=True) if texts.digest(got) != want]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, such as {wrong[:3]}"


@pytest.fixture(scope="module")
def smollm2():
    model = os.environ.get("MLXS_TEST_MODEL")
    if not model:
        pytest.skip("MLXS_TEST_MODEL is not set")
    return model


@pytest.fixture(scope="module")
def encoded(smollm2):
    both = encode(smollm2, CORPUS + RANDOM)
    return both[: len(CORPUS)], both[len(CORPUS) :]


def test_corpus(encoded):
    for text, got, parsed, plain in zip(CORPUS, encoded[0], RECORDED["corpus"], RECORDED["corpus_plain"], strict=True):
        assert list(got.parsed) == parsed, text
        assert list(got.plain) == plain, text


def test_random(encoded):
    assert_same_digests(RANDOM, [got.parsed for got in encoded[1]], RECORDED["random"])


def test_random_with_control_tokens_as_text(encoded):
    assert_same_digests(RANDOM, [got.plain for got in encoded[1]], RECORDED["random_plain"])


def test_look_alikes_matter(encoded):
    """The random strings do exercise special tokens: parsing them changes many results."""
    assert sum(got.parsed != got.plain for got in encoded[1]) > 1000


# SmolLM2 has no token for these bytes (control characters, lead bytes of empty planes): its tokenizers leave them out.
MISSING = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}


def test_what_is_encoded_decodes(encoded):
    seen = set()
    for text, got in zip(CORPUS + RANDOM, encoded[0] + encoded[1], strict=True):
        data = text.encode()
        assert got.decoded == bytes(byte for byte in data if byte not in MISSING), text
        seen.update(data)
    assert seen >= MISSING


@pytest.mark.parametrize("name", texts.PRE_NAMES)
def test_pre_tokenizers(name, tmp_path):
    path = tmp_path / "pairs.gguf"
    texts.write_pairs_vocabulary(path, name)
    strings = CORPUS + RANDOM[:1000]
    ids = [got.parsed for got in encode(path, strings)]
    comparable = texts.COMPARABLE.get(name, lambda _: True)
    kept = [i for i, text in enumerate(strings) if comparable(text)]
    assert len(kept) > 50
    recorded = "".join(digests(RECORDED["pre"][name])[i] for i in kept)
    assert_same_digests([strings[i] for i in kept], [ids[i] for i in kept], recorded)


def test_sentencepiece(tmp_path):
    path = tmp_path / "pieces.gguf"
    texts.write_pieces_vocabulary(path)
    strings = CORPUS + RANDOM[:2000]
    got = encode(path, strings)
    assert_same_digests(strings, [one.special for one in got], RECORDED["pieces"])
    for text, one in zip(strings, got, strict=True):
        assert one.decoded == text.replace("▁", " ").encode()
