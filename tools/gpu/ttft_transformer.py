#!/usr/bin/env python3
"""Time to first token of a transformer with random weights: its prompt's prefix loaded through libterrace from DRAM, from
NVMe and from another node's pool, against computing it again; and whether the first token's logits are the same.

usage: ttft_transformer.py [--model llama-3-8b|tiny] [--max-tokens N] [--data FOLDER] [--seconds N] [--report FILE] [--json]

Needs PyTorch; llama-3-8b a GPU with 40 GB and more, and up to 130K tokens 50 GiB of DRAM. `tiny` runs on the processor
too, over whatever TERRACE_CUDA_DRIVER names, and shows that the way works and nothing else. Exit status: 0 the logits
are the same, 1 they are not or something failed on the way, 2 this machine cannot do it or the usage is wrong.

How: the model's KV cache is one allocation, [layer][keys, values][block][16 tokens], as engines have it, shared with the
daemon by its IPC handle. A prompt is a prefix of 1,024 tokens and its doubles, computed in steps of 1,024, and 16 tokens
more, which are computed in any case. Because steps are the same for every prompt, so are the bits, and the logits after
a load have to equal those after computing bit by bit. For the same reason the time to compute a prompt's prefix is how far
one pass over the longest has come by then.

With --seconds it ends by then: it leaves out repetitions, then long prompts, then the drive's and the pool's, and says so.
"""
import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import terrace_calls
from terrace_calls import Refused

HERE = pathlib.Path(__file__).resolve().parent
BLOCK_TOKENS = 16
STEP_TOKENS = 1024
ROUNDS = 3
KEYS_A_PUT = 64
ROPE_BASE = 500000.0


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model; `dtype` as PyTorch names it."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    dtype: str
    element_bytes: int

    @property
    def head(self):
        return self.hidden // self.heads

    @property
    def segment_bytes(self):
        """Keys or values of a block in one layer."""
        return BLOCK_TOKENS * self.kv_heads * self.head * self.element_bytes

    @property
    def block_bytes(self):
        return 2 * self.layers * self.segment_bytes


SHAPES = {
    "llama-3-8b": Shape("llama-3-8b", 32, 4096, 32, 8, 14336, 128256, "bfloat16", 2),
    "tiny": Shape("tiny", 2, 64, 4, 2, 128, 512, "float32", 4),
}


class Allowance:
    """Seconds that are left; without a limit all that there are."""

    def __init__(self, seconds):
        self._until = time.monotonic() + seconds if seconds else None

    def left(self):
        return float("inf") if self._until is None else self._until - time.monotonic()

    def bears(self, seconds, share=1.0):
        """Whether so many are at most this share of what is left."""
        return seconds <= self.left() * share


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise Refused(f"PyTorch is not here: {error}") from None
    return torch


class KvMemory:
    """The cache's allocation. On a GPU the model works in it; on the processor in a copy, as it cannot touch it."""

    def __init__(self, torch, shape, blocks, driver, on_gpu):
        self._driver = driver
        self._torch = torch
        self._on_gpu = on_gpu
        self.bytes = blocks * shape.block_bytes
        self.address = driver.allocate(self.bytes)
        dimensions = (shape.layers, 2, blocks * BLOCK_TOKENS, shape.kv_heads, shape.head)
        dtype = getattr(torch, shape.dtype)
        if on_gpu:
            # PyTorch takes over foreign memory by this description.
            self.__cuda_array_interface__ = {"shape": (self.bytes,), "typestr": "|u1", "data": (self.address, False),
                                             "version": 3}
            self._raw = torch.as_tensor(self, device="cuda")
        else:
            self._raw = torch.zeros(self.bytes, dtype=torch.uint8)
        self.cache = self._raw.view(dtype).view(dimensions)

    def settle(self):
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def show(self):
        """What the model wrote is where the daemon reads."""
        self.settle()
        if not self._on_gpu:
            self._driver.write(self.address, self._raw.data_ptr(), self.bytes)

    def take(self):
        """What the daemon wrote is where the model reads."""
        if not self._on_gpu:
            self._driver.read(self._raw.data_ptr(), self.address, self.bytes)

    def forget(self):
        self._raw.zero_()
        self.show()

    def free(self):
        self._driver.free(self.address)


class Transformer:
    """Llama's: RMS norms, rotary positions, grouped queries, gated inner layers. Without gradients."""

    def __init__(self, torch, shape, device):
        self._torch = torch
        self._shape = shape
        self._device = device
        self._dtype = getattr(torch, shape.dtype)
        random = torch.Generator(device=device).manual_seed(8)

        def matrix(rows, columns):
            weights = torch.randn(rows, columns, generator=random, device=device, dtype=self._dtype)
            return weights * columns**-0.5

        kv = shape.kv_heads * shape.head
        self._embedding = matrix(shape.vocabulary, shape.hidden) * shape.hidden**0.5
        self._layers = [
            {"q": matrix(shape.hidden, shape.hidden), "k": matrix(kv, shape.hidden), "v": matrix(kv, shape.hidden),
             "o": matrix(shape.hidden, shape.hidden), "gate": matrix(shape.inner, shape.hidden),
             "up": matrix(shape.inner, shape.hidden), "down": matrix(shape.hidden, shape.inner)}
            for _ in range(shape.layers)
        ]
        self._head = matrix(shape.vocabulary, shape.hidden)
        steps = torch.arange(0, shape.head, 2, device=device, dtype=torch.float32)
        self._frequencies = ROPE_BASE ** (-steps / shape.head)

    def _norm(self, x):
        wide = x.float()
        return (wide * self._torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(self._dtype)

    def _rotate(self, x, start):
        positions = self._torch.arange(start, start + x.shape[0], device=self._device, dtype=self._torch.float32)
        angles = positions[:, None] * self._frequencies[None, :]
        cosine, sine = angles.cos()[:, None, :], angles.sin()[:, None, :]
        first, second = x.float().chunk(2, dim=-1)
        turned = self._torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
        return turned.to(self._dtype)

    def _attend(self, queries, keys, values, start):
        """Each token to those before it and itself; the first of the queries is token `start`."""
        torch = self._torch
        repeats = self._shape.heads // self._shape.kv_heads
        queries = queries.transpose(0, 1)[None]
        keys = keys.transpose(0, 1).repeat_interleave(repeats, dim=0)[None]
        values = values.transpose(0, 1).repeat_interleave(repeats, dim=0)[None]
        count = queries.shape[2]
        attention = getattr(torch.nn.functional, "scaled_dot_product_attention", None)
        if attention is None:  # before PyTorch 2.0
            scores = queries @ keys.transpose(-1, -2) * self._shape.head**-0.5
            seen = torch.ones(count, start + count, dtype=torch.bool, device=self._device).tril(diagonal=start)
            mixed = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ values
        elif start == 0:
            mixed = attention(queries, keys, values, is_causal=True)
        else:
            mixed = attention(queries, keys, values, attn_mask=self._mask(count, start + count))
        return mixed[0].transpose(0, 1).reshape(count, self._shape.hidden)

    def _mask(self, count, total):
        try:
            from torch.nn.attention.bias import causal_lower_right
        except ImportError:  # before PyTorch 2.3
            ones = self._torch.ones(count, total, dtype=self._torch.bool, device=self._device)
            return ones.tril(diagonal=total - count)
        return causal_lower_right(count, total)

    def step(self, tokens, start, cache):
        """Computes tokens from `start` on, writes their keys and values, returns the last one's logits."""
        torch = self._torch
        shape = self._shape
        end = start + len(tokens)
        x = self._embedding[tokens]
        for i, layer in enumerate(self._layers):
            h = self._norm(x)
            q = (h @ layer["q"].T).view(-1, shape.heads, shape.head)
            k = (h @ layer["k"].T).view(-1, shape.kv_heads, shape.head)
            cache[i, 0, start:end] = self._rotate(k, start)
            cache[i, 1, start:end] = (h @ layer["v"].T).view(-1, shape.kv_heads, shape.head)
            x = x + self._attend(self._rotate(q, start), cache[i, 0, :end], cache[i, 1, :end], start) @ layer["o"].T
            h = self._norm(x)
            x = x + (torch.nn.functional.silu(h @ layer["gate"].T) * (h @ layer["up"].T)) @ layer["down"].T
        return (self._norm(x[-1:]) @ self._head.T)[0]


class Contest:
    """Computing against loading, for one model on one device."""

    def __init__(self, torch, shape, options):
        self._torch = torch
        self._shape = shape
        self._options = options
        self._allowance = Allowance(options.seconds)
        self._notes = []
        self._on_gpu = torch.cuda.is_available()
        if not self._on_gpu and shape.name != "tiny":
            raise Refused("PyTorch sees no GPU; --model tiny runs without one")
        self._device = "cuda" if self._on_gpu else "cpu"
        self._library = terrace_calls.find_built(HERE, "lib/libterrace.so", "client/libterrace.so")
        if self._on_gpu:
            torch.cuda.init()
        self._driver = terrace_calls.Driver(options.driver)
        prompts = [STEP_TOKENS]
        while 2 * prompts[-1] <= options.max_tokens:
            prompts.append(2 * prompts[-1])
        self._say(f"{shape.name} on {torch.cuda.get_device_name() if self._on_gpu else 'the processor'}")
        self._model = Transformer(torch, shape, self._device)
        # One block more, for the tokens that are computed in any case. Drivers may put what is smaller than 2 MiB into an
        # allocation that others have a share of, and a handle names all of that.
        self._room = max(prompts[-1] // BLOCK_TOKENS + 1, -(-(2 << 20) // shape.block_bytes))
        self._memory = KvMemory(torch, shape, self._room, self._driver, self._on_gpu)
        random = torch.Generator().manual_seed(9)
        self._tokens = torch.randint(shape.vocabulary, (prompts[-1] + BLOCK_TOKENS,), generator=random)
        self._tokens = self._tokens.to(self._device)
        self._keys = self._chain(prompts[-1] // BLOCK_TOKENS)
        self._results = [{"tokens": tokens, "computed_s": 0.0, "loaded_s": {}} for tokens in prompts]
        self._logits = {}
        self._wrong = 0

    @staticmethod
    def _say(text):
        print(text, file=sys.stderr, flush=True)

    def _note(self, text):
        self._notes.append(text)
        self._say(text)
        self._write_report()

    def _write_report(self):
        """So that whoever ends this process still has what was measured."""
        if self._options.report is not None:
            fresh = self._options.report.with_suffix(".new")
            fresh.write_text(json.dumps(self.report()) + "\n")
            fresh.rename(self._options.report)

    @staticmethod
    def _chain(blocks):
        keys = []
        parent = os.urandom(16)  # of this run: what an earlier one left in a pool is not taken for it
        for block in range(blocks):
            parent = hashlib.blake2b(parent + block.to_bytes(4, "little"), digest_size=32).digest()
            keys.append(parent)
        return keys

    def _last(self, tokens):
        """The 16 tokens behind a prefix, and the first token's logits."""
        # The tail of every prompt is the same, at the place behind its prefix.
        logits = self._model.step(self._tokens[-BLOCK_TOKENS:], tokens, self._memory.cache)
        self._memory.settle()
        return logits

    def _compute_all(self, seconds):
        """One pass over the longest prompt; adds to `seconds`, by prompt. False: it was cut short."""
        prefix_s = 0.0
        start = 0
        for i, result in enumerate(self._results):
            tokens = result["tokens"]
            self._memory.settle()
            begin = time.perf_counter()
            for step in range(start, tokens, STEP_TOKENS):
                self._model.step(self._tokens[step:step + STEP_TOKENS], step, self._memory.cache)
            self._memory.settle()
            middle = time.perf_counter()
            logits = self._last(tokens)  # the next step overwrites what it leaves
            prefix_s += middle - begin
            seconds.setdefault(tokens, []).append(prefix_s + time.perf_counter() - middle)
            if tokens not in self._logits:
                self._logits[tokens] = logits.float().cpu()
                self._say(f"computed {tokens} tokens in {seconds[tokens][-1]:.3f} s")
            start = tokens
            # Twice as many tokens take up to four times as long.
            if i + 1 < len(self._results) and not self._allowance.bears(3 * prefix_s, 0.3):
                return False
        return True

    def compute(self):
        seconds = {}
        if not self._compute_all(seconds):
            self._results = [result for result in self._results if result["tokens"] in seconds]
            self._note(f"prompts of more than {self._results[-1]['tokens']} tokens: left out for want of time")
        rounds = 1
        while rounds < ROUNDS and self._allowance.bears(seconds[self._results[-1]["tokens"]][0], 0.1):
            self._compute_all(seconds)
            rounds += 1
        for result in self._results:
            result["computed_s"] = statistics.median(seconds[result["tokens"]])
        self._memory.show()
        self._write_report()

    @property
    def _blocks(self):
        return self._results[-1]["tokens"] // BLOCK_TOKENS

    def _store(self, client, namespace, region, levels, share):
        """Puts the blocks until they have reached the levels, or this share of the time is over; returns how many."""
        until = time.monotonic() + self._allowance.left() * share
        for begin in range(0, self._blocks, KEYS_A_PUT):
            if time.monotonic() > until:
                self._note(f"{' and '.join(levels.values())}: only the first {begin * BLOCK_TOKENS} tokens were stored in time")
                return begin
            blocks = range(begin, min(begin + KEYS_A_PUT, self._blocks))
            parent = self._keys[begin - 1] if begin else None
            for level in levels:
                try:
                    client.put(namespace, region, [self._keys[i] for i in blocks], blocks, level, parent)
                except Refused as error:
                    if begin == 0:
                        raise
                    self._note(f"{levels[level]}: only the first {begin * BLOCK_TOKENS} tokens were stored: {error}")
                    return begin
        self._say(f"stored {self._blocks} blocks of {self._shape.block_bytes >> 10} KiB: {', '.join(levels.values())}")
        return self._blocks

    def _load_once(self, tier, tokens, client, namespace, region):
        blocks = range(tokens // BLOCK_TOKENS)
        keys = [self._keys[i] for i in blocks]
        self._memory.forget()
        begin = time.perf_counter()
        delivered = client.get(namespace, region, keys, blocks)
        self._memory.take()
        logits = self._last(tokens)
        seconds = time.perf_counter() - begin
        if delivered != len(keys):
            raise Refused(f"{tier}: {delivered} of {len(keys)} blocks were delivered")
        difference = (logits.float().cpu() - self._logits[tokens]).abs().max().item()
        if difference != 0:  # NaN, too
            self._wrong += 1
            self._say(f"{tier}, {tokens} tokens: logits differ by up to {difference}")
        return seconds

    def _load(self, tier, blocks, client, namespace, region, evict, share):
        """Prompts of up to so many blocks, in this share of the time."""
        until = time.monotonic() + self._allowance.left() * share
        before = 0.0
        for result in self._results:
            tokens = result["tokens"]
            if tokens > blocks * BLOCK_TOKENS:
                break
            seconds = []
            # As long as it took the last time, or twice as long as half as many tokens did.
            while len(seconds) < ROUNDS and time.monotonic() + (seconds[-1] if seconds else 2 * before) <= until:
                evict()
                seconds.append(self._load_once(tier, tokens, client, namespace, region))
            if not seconds:
                self._note(f"{tier}: prompts of {tokens} tokens and more: left out for want of time")
                break
            before = seconds[-1]
            result["loaded_s"][tier] = statistics.median(seconds)
            self._say(f"loaded {tokens} tokens from {tier} in {result['loaded_s'][tier]:.3f} s")
            self._write_report()

    def _node(self, folder, pool, with_local):
        stored = self._blocks * (self._shape.block_bytes + 8192)
        room = 6 << 30  # segments of a tier have 256 MiB, and it needs some
        return terrace_calls.Daemon(HERE, folder, pool, dram_bytes=stored * 5 // 4 + (1 << 30),
                                    local_bytes=2 * stored + room if with_local else 0,
                                    pool_bytes=3 * stored + 2 * room, driver=self._options.driver)

    def _join(self, daemon):
        client = daemon.connect(self._library, 600)
        shape = self._shape
        namespace = client.open_namespace(f"ttft/{shape.name}", BLOCK_TOKENS, shape.block_bytes, shape.dtype)
        region = client.register_device_memory(self._driver, self._memory.address, self._memory.bytes, self._room,
                                               2 * shape.layers, 2)
        return client, namespace, region

    @contextlib.contextmanager
    def _session(self, folder, pool, with_local):
        """A node, a session with it, and the node's way to empty its DRAM."""
        with self._node(folder, pool, with_local) as daemon:
            client, namespace, region = self._join(daemon)
            yield client, namespace, region, daemon.evict
            client.unregister(region)
            client.close()

    def run(self, folder):
        self.compute()
        with self._session(folder, None, False) as (client, namespace, region, _):
            self._store(client, namespace, region, {terrace_calls.LEVEL_DRAM: "DRAM"}, 0.5)
            self._load("DRAM", self._blocks, client, namespace, region, lambda: None, 0.4)
        if not self._allowance.bears(20):
            return self._note("NVMe and pool: left out for want of time")
        pool = folder / "pool"
        pool.mkdir()
        levels = {terrace_calls.LEVEL_LOCAL_SYNCED: "NVMe", terrace_calls.LEVEL_POOL: "pool"}
        with self._session(folder, pool, True) as (client, namespace, region, evict):
            stored = self._store(client, namespace, region, levels, 0.4)
            self._load("NVMe", stored, client, namespace, region, evict, 0.5)
        if stored == 0 or not self._allowance.bears(15):
            return self._note("pool: left out for want of time")
        with self._session(folder, pool, False) as (client, namespace, region, evict):
            until = time.monotonic() + min(120.0, self._allowance.left() * 0.5)
            while client.get(namespace, region, self._keys[:stored], range(stored)) != stored:
                if time.monotonic() > until:
                    raise Refused("another node does not find the blocks in the pool")
                time.sleep(0.5)
            self._load("pool", stored, client, namespace, region, evict, 0.9)
        return None

    def free(self):
        self._memory.free()

    def fail(self, error):
        self._note(f"ended early: {error}")

    def report(self):
        return {"scenario": "ttft_transformer", "model": self._shape.name, "device": self._device,
                "wrong_logits": self._wrong, "prompts": self._results, "notes": self._notes}


def table(report):
    tiers = ["DRAM", "NVMe", "pool"]
    lines = ["  tokens  computed" + "".join(f"{tier:>18}" for tier in tiers)]
    for row in report["prompts"]:
        cells = [f"{row['loaded_s'][tier] * 1e3:9.1f} ms {row['computed_s'] / row['loaded_s'][tier]:4.1f}x"
                 if tier in row["loaded_s"] else "-" for tier in tiers]
        lines.append(f"{row['tokens']:8}  {row['computed_s'] * 1e3:5.0f} ms" + "".join(f"{cell:>18}" for cell in cells))
    lines += report["notes"]
    lines.append("published by others: 56x at 130K tokens, 23.6x from DRAM, 8 to 12x from storage")
    lines.append("logits of the first token: " +
                 ("the same" if report["wrong_logits"] == 0 else f"{report['wrong_logits']} loads differ"))
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SHAPES), default="llama-3-8b")
    parser.add_argument("--max-tokens", type=int, default=131072, help=f"{STEP_TOKENS} to 262144; the longest prefix")
    parser.add_argument("--data", help="where the daemons' files go; a folder in it is made and removed")
    parser.add_argument("--driver", default=os.environ.get("TERRACE_CUDA_DRIVER") or "libcuda.so.1")
    parser.add_argument("--seconds", type=float, default=0, help="about how long it may take; 0: as long as it takes")
    parser.add_argument("--report", type=pathlib.Path, help="a file that holds what was measured so far, as --json has it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    if not STEP_TOKENS <= options.max_tokens <= 262144:
        parser.error(f"--max-tokens: {STEP_TOKENS} to 262144")
    if options.data is not None and not os.path.isdir(options.data):
        parser.error(f"--data: {options.data} is no folder")
    return options


def main():
    options = parse()
    try:
        torch = import_torch()
        with torch.no_grad():
            contest = Contest(torch, SHAPES[options.model], options)
    except (Refused, RuntimeError) as error:
        print(f"ttft_transformer: {error}", file=sys.stderr)
        return 2
    failed = False
    try:
        with tempfile.TemporaryDirectory(prefix="terrace-ttft.", dir=options.data) as folder, torch.no_grad():
            contest.run(pathlib.Path(folder))
        contest.free()
    except (Refused, RuntimeError, OSError) as error:
        print(f"ttft_transformer: {error}", file=sys.stderr)
        contest.fail(error)
        failed = True
    report = contest.report()
    print(json.dumps(report) if options.json else table(report))
    return 1 if failed or report["wrong_logits"] != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
