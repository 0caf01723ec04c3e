"""What is tokenized: the corpus, random strings and made-up vocabularies. All of it can be made again from this file and
corpus.txt, so that only digests of what the oracle said need be stored."""

import hashlib
from pathlib import Path

HERE = Path(__file__).parent

# The `tokenizer.ggml.pre` names that are compared on the pairs vocabulary; one of each pattern.
PRE_NAMES = [
    "default", "gpt-2", "smollm", "llama-bpe", "dbrx", "glm4", "qwen2", "qwen35", "minicpm5", "laguna",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "bloom", "viking", "seed-coder", "bailingmoe",
    "exaone-moe", "tekken", "gpt-4o",
]  # fmt: skip


def _only_ascii_spaces(text):
    return not any(c.isspace() and not c.isascii() for c in text)


# Where llama.cpp knowingly differs from the model's own pattern, which we follow: it cannot tell the case of letters
# beyond ASCII, and in patterns of literal characters it takes every other space for U+000B.
COMPARABLE = {
    "tekken": str.isascii,
    "gpt-4o": str.isascii,
    "deepseek-llm": _only_ascii_spaces,
    "deepseek-coder": _only_ascii_spaces,
}


class Random:
    """splitmix64: the same numbers on every machine and in every Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        z = (z ^ z >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        return (z ^ z >> 31) % limit

    def choice(self, items):
        return items[self.below(len(items))]


# Blocks of characters: the ten scripts, what goes with them, and the odd corners of Unicode.
BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF),
    (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20BF), (0x2150, 0x218B), (0x2190, 0x21FF),
    (0x2460, 0x24FF), (0x2500, 0x257F), (0x2600, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xA000, 0xA48C),
    (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFB00, 0xFDFF), (0xFE00, 0xFE0F), (0xFE20, 0xFFFF), (0x10000, 0x103FF),
    (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F), (0x30000, 0x10FFFF),
]  # fmt: skip
PIECES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<jupyter_code>", "<|im_",
    "_start|>", "<|", "|>", "<|im_start", "<im_start|>", "<|IM_END|>", "<|", "im_end|>", "<|im_end|>>",
    "<<|im_end|>", "<|endoftext", "|endoftext|>", "<s>", "</s>", "<0x0A>", "'s", "'t", "'re", "'ve", "'m",
    "'ll", "'d", "'S", "'LL", "'Ve", "’s", "I'm", "hello", "world", "the", "ing", "tion", "http://", "www.",
    ".com", "==", "!=", "->", "::", "//", "/*", "*/", "...", "---", "12", "345", "6789", "0", "½", "٣",
    "a\u0301", "\u200d", "\ufe0f", "\ufeff", "\xad", "\u2028", "\x85", "�", "👍🏽", "🇫🇷", "مرحبا", "שלום",
    "नमस्ते", "สวัสดี", "你好", "こんにちは", "안녕", "Привет", "Γειά",
]  # fmt: skip
SPACES = [
    " ", " ", " ", "  ", "   ", "\x0a", "\x0a\x0a", "\x09", "\x0d\x0a", " \x0a", "\x0a ", "\xa0", "\u3000",
    "\u2003", "\x0b", "\x0c", "\x1c", "\x85",
]  # fmt: skip


def random_text(random):
    """Between none and some forty pieces: of one block, of many, words and spaces, or look-alikes of special tokens."""
    kind = random.below(5)
    block = random.choice(BLOCKS)
    parts = []
    for _ in range(random.below(40)):
        if kind == 0:
            parts.append(character(random, block))
        elif kind == 1:
            parts.append(character(random, random.choice(BLOCKS)))
        elif kind == 2:
            parts.append(random.choice(PIECES))
        else:
            roll = random.below(8)
            if roll < 3:
                parts.append(random.choice(SPACES))
            elif roll < 5:
                parts.append(random.choice(PIECES))
            else:
                size = 1 + random.below(6)
                word_block = random.choice(BLOCKS) if kind == 3 else block
                parts.extend(character(random, word_block) for _ in range(size))
    return "".join(parts)


def character(random, block):
    first, last = block
    return chr(first + random.below(last - first + 1))  # no block has surrogates


def random_texts(count, seed=20261):
    random = Random(seed)
    return [random_text(random) for _ in range(count)]


def corpus():
    lines = (HERE / "corpus.txt").read_text(encoding="utf-8").split("\n", 1)[1]
    paragraphs = lines.removesuffix("\n").split("\n\n")
    escapes = {"\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\x0b": "\x0b", "\\x0c": "\x0c"}
    texts = []
    for paragraph in paragraphs:
        text, at = [], 0
        while at < len(paragraph):
            escape = next((e for e in escapes if paragraph.startswith(e, at)), None)
            text.append(escapes[escape] if escape else paragraph[at])
            at += len(escape) if escape else 1
        texts.append("".join(text))
    return texts


def digest(ids):
    """Five bytes that stand for a list of token ids."""
    joined = b"".join(id.to_bytes(4, "little") for id in ids)
    return hashlib.blake2b(joined, digest_size=5).hexdigest()


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in printable)
    codes = {b: b for b in printable} | {b: 256 + i for i, b in enumerate(others)}
    return [chr(codes[b]) for b in range(256)]


def write_pairs_vocabulary(path, pre):
    """A GGUF whose merges join any two bytes: where a piece of text ends shows in the tokens."""
    alphabet = byte_alphabet()
    random = Random(7)
    pairs = [(left, right) for left in alphabet for right in alphabet]
    order = sorted(range(len(pairs)), key=lambda _: random.below(1 << 40))
    tokens = alphabet + [left + right for left, right in pairs]
    types = [1] * len(tokens) + [3] * 3
    tokens += ["<|unknown|>", "<|begin|>", "<|finish|>"]
    merges = [" ".join(pairs[i]) for i in order]
    _write_vocabulary(path, "gpt2", tokens, types, len(tokens) - 3, pre=pre, merges=merges)


def write_pieces_vocabulary(path):
    """A GGUF with a SentencePiece vocabulary: substrings of the corpus, the frequent and the long ones first."""
    counts = {}
    for text in corpus():
        escaped = "▁" + text.replace(" ", "▁")
        for size in range(1, 8):
            for at in range(len(escaped) - size + 1):
                piece = escaped[at : at + size]
                counts[piece] = counts.get(piece, 0) + 1
    wanted = [piece for piece, count in counts.items() if count > 1 and piece not in ("<s>", "</s>")]
    wanted.sort(key=lambda piece: (-counts[piece] * len(piece), piece))
    pieces = wanted[:6000]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    # Pairs of pieces share a score: of equal ones the leftmost wins.
    scores = [0.0] * 259 + [-float(i // 2) for i in range(len(pieces))]
    _write_vocabulary(path, "llama", tokens, types, 0, scores=scores)


def _write_vocabulary(path, model, tokens, types, first_special, pre="default", merges=None, scores=None):
    """first_special: the id of the unknown token, which BOS and EOS follow."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    for i, name in enumerate(("unk", "bos", "eos")):
        getattr(writer, f"add_{name}_token_id")(first_special + i)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
