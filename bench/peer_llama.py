"""One benchmark case on llama.cpp through llama-cpp-python's low-level API: the peer of `mlx-serving bench throughput`.

usage: peer_llama.py MODEL --case prefill|decode|start --streams N --context N --tokens N --threads N
Prints one JSON object: {"tokens_per_second": …, "seconds": …}. Sampling is llama.cpp's own greedy sampler.
"""

import argparse
import ctypes
import json
import time

import llama_cpp as ll


def fill_batch(batch, entries):
    """entries: (token, position, sequence, wants_logits)"""
    batch.n_tokens = len(entries)
    for i, (token, position, sequence, wants_logits) in enumerate(entries):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = wants_logits


class Peer:
    def __init__(self, model_path, streams, context, threads, flash_attention):
        ll.llama_backend_init()
        self.silent = ll.llama_log_callback(lambda *_: None)  # kept: llama.cpp holds a bare pointer to it
        ll.llama_log_set(self.silent, ctypes.c_void_p(0))
        params = ll.llama_model_default_params()
        self.model = ll.llama_load_model_from_file(model_path.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model_path}")
        cparams = ll.llama_context_default_params()
        cparams.n_ctx = streams * context
        cparams.n_batch = 2048
        cparams.n_ubatch = 512
        cparams.n_seq_max = streams
        cparams.kv_unified = False  # a KV stream each: faster for it than one shared buffer
        cparams.flash_attn_type = int(flash_attention)
        cparams.n_threads = threads
        cparams.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, cparams)
        self.batch = ll.llama_batch_init(2048, 0, 1)
        self.sampler = ll.llama_sampler_init_greedy()

    def decode(self, entries):
        fill_batch(self.batch, entries)
        if ll.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")

    def sample(self, row):
        return ll.llama_sampler_sample(self.sampler, self.context, row)

    def clear(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def prefill(self, prompt, sequence):
        for start in range(0, len(prompt), 2048):
            part = prompt[start : start + 2048]
            last = start + len(part) == len(prompt)
            self.decode([(t, start + i, sequence, last and i == len(part) - 1) for i, t in enumerate(part)])
        return self.sample(-1)


def prompt_of(length, sequence):
    """The same arithmetic as `mlx-serving bench`: ordinary tokens, different for each stream."""
    return [1000 + (i * 7919 + sequence * 104729) % 40000 for i in range(length)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--case", choices=["prefill", "decode", "start"], required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--context", type=int, default=16, help="prompt tokens of each stream")
    parser.add_argument("--tokens", type=int, default=128, help="generated tokens of each stream (decode)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    if args.case == "start":  # load and first token; Python and its imports are not counted
        started = time.perf_counter()
        Peer(args.model, 1, 512, args.threads, True).prefill([504, 3575, 282, 4649, 314], 0)
        print(json.dumps({"seconds": time.perf_counter() - started}))
        return
    # Its best of each: on CPUs its flash attention makes prefill 1.4 times as fast and decode half as fast.
    flash_attention = args.case == "prefill"
    peer = Peer(args.model, args.streams, args.context + args.tokens + 8, args.threads, flash_attention)
    if args.case == "prefill":
        peer.prefill(prompt_of(args.context, 99), 0)  # warm
        peer.clear()
        started = time.perf_counter()
        peer.prefill(prompt_of(args.context, 0), 0)
        seconds = time.perf_counter() - started
        done = args.context
    else:
        next_tokens = [peer.prefill(prompt_of(args.context, s), s) for s in range(args.streams)]

        def step(position, tokens):
            peer.decode([(t, position, s, True) for s, t in enumerate(tokens)])
            return [peer.sample(s) for s in range(args.streams)]

        next_tokens = step(args.context, next_tokens)  # warm
        started = time.perf_counter()
        for i in range(args.tokens):
            next_tokens = step(args.context + 1 + i, next_tokens)
        seconds = time.perf_counter() - started
        done = args.tokens * args.streams
    print(json.dumps({"tokens_per_second": done / seconds, "seconds": seconds}))


main()
