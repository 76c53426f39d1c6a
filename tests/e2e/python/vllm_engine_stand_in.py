"""The part of vLLM that terrace.vllm_connector is plugged into, in small: a scheduler with a pool of blocks, prefix hits,
preemption, aborts and asynchronous loads, and workers that compute over device memory of the stand-in CUDA driver. Nothing
here is vLLM's code; names and calls are.

Read from vllm/v1/core/sched/scheduler.py, vllm/v1/worker/kv_connector_model_runner_mixin.py and
vllm/distributed/kv_transfer/kv_connector/v1/base.py.

Every token's keys and values are a function of all tokens before it, so that the engine knows what each byte has to be
that it computes with, and says WrongBytes where one is not.
"""
import dataclasses
import enum
import hashlib
import pickle
import sys
import types
from abc import ABC
from collections import OrderedDict, deque

from vllm_kv_cache_stand_in import BLOCK_TOKENS, KvCache, device

CHUNK_TOKENS = 8
# What blocks hold that have been taken anew, and places of tokens that were guessed wrong.
TAKEN, GUESSED = b"\xee", b"\xdd"


class WrongBytes(AssertionError):
    pass


# ---------------------------------------------------------------- vllm's modules


class KVConnectorRole(enum.Enum):
    SCHEDULER = 0
    WORKER = 1


class KVConnectorMetadata(ABC):
    pass


class KVConnectorWorkerMetadata(ABC):
    pass


class KVConnectorBase_V1(ABC):
    def __init__(self, vllm_config, role, kv_cache_config):
        self._connector_metadata = None
        self._kv_transfer_config = vllm_config.kv_transfer_config

    def bind_connector_metadata(self, connector_metadata):
        self._connector_metadata = connector_metadata

    def clear_connector_metadata(self):
        self._connector_metadata = None


@dataclasses.dataclass
class KVConnectorStats:
    data: dict = dataclasses.field(default_factory=dict)


def install():
    """Modules under the names that the plug-in imports."""
    made = {}
    for name in ("vllm", "vllm.distributed", "vllm.distributed.kv_transfer", "vllm.distributed.kv_transfer.kv_connector",
                 "vllm.distributed.kv_transfer.kv_connector.v1", "vllm.distributed.kv_transfer.kv_connector.v1.base",
                 "vllm.distributed.kv_transfer.kv_connector.v1.metrics", "torch"):
        made[name] = sys.modules[name] = types.ModuleType(name)
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(made[parent], child, made[name])
    made["vllm"].__version__ = "0.0-stand-in"
    base = made["vllm.distributed.kv_transfer.kv_connector.v1.base"]
    for thing in (KVConnectorRole, KVConnectorMetadata, KVConnectorWorkerMetadata, KVConnectorBase_V1):
        setattr(base, thing.__name__, thing)
    made["vllm.distributed.kv_transfer.kv_connector.v1.metrics"].KVConnectorStats = KVConnectorStats
    stream = types.SimpleNamespace(cuda_stream=device().stream)
    made["torch"].cuda = types.SimpleNamespace(current_stream=lambda: stream)


def config(world=1, stages=1, rank=0, mla=False, policy="recompute", engine="engine", produces=True, consumes=True, **extra):
    return types.SimpleNamespace(
        model_config=types.SimpleNamespace(model="stand-in", revision=None, dtype="float16", quantization=None, use_mla=mla),
        cache_config=types.SimpleNamespace(cache_dtype="auto", prefix_caching_hash_algo="sha256", block_size=BLOCK_TOKENS),
        parallel_config=types.SimpleNamespace(world_size=world, rank=rank, tensor_parallel_size=world // stages,
                                              pipeline_parallel_size=stages),
        kv_transfer_config=types.SimpleNamespace(kv_connector_extra_config=extra, is_kv_producer=produces, is_kv_consumer=consumes,
                                                 kv_load_failure_policy=policy, engine_id=engine))


class FullAttentionSpec:
    block_size = BLOCK_TOKENS


def cache_config(block_count, groups=1, spec=FullAttentionSpec):
    return types.SimpleNamespace(num_blocks=block_count,
                                 kv_cache_groups=[types.SimpleNamespace(kv_cache_spec=spec()) for _ in range(groups)])


# ---------------------------------------------------------------- requests and blocks


class Status(enum.Enum):
    WAITING, REMOTE, RUNNING, PREEMPTED, FINISHED = range(5)


class Request:
    def __init__(self, request_id, prompt, most_outputs):
        self.request_id, self.tokens, self.num_prompt_tokens = request_id, list(prompt), len(prompt)
        self.most_outputs = most_outputs
        self.num_computed_tokens = 0
        self.status = Status.WAITING
        self.prefixes = []  # a digest of all tokens up to each
        self.block_hashes = []
        self.blocks = []
        self._hash()

    @property
    def num_tokens(self):
        return len(self.tokens)

    @property
    def outputs(self):
        return len(self.tokens) - self.num_prompt_tokens

    def append(self):
        """The token that the model says next."""
        self.tokens.append(self.prefixes[-1][0] % 3)
        self._hash()

    def _hash(self):
        while len(self.prefixes) < len(self.tokens):
            before = self.prefixes[-1] if self.prefixes else b""
            self.prefixes.append(hashlib.sha256(before + bytes([self.tokens[len(self.prefixes)]])).digest())
        while len(self.block_hashes) < len(self.tokens) // BLOCK_TOKENS:
            last = self.prefixes[(len(self.block_hashes) + 1) * BLOCK_TOKENS - 1]
            self.block_hashes.append(hashlib.sha256(b"block" + last).digest())


class BlockPool:
    """Block 0 is nobody's. Blocks that are free keep what they hold until they are needed."""

    def __init__(self, count):
        self.references = [0] * count
        self.free = OrderedDict.fromkeys(range(1, count))
        self.hash_of, self.by_hash = {}, {}
        self.taken = []  # anew, in this step

    def take(self, count):
        if len(self.free) < count:
            return None
        blocks = [self.free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self.forget(block)
            self.references[block] = 1
        self.taken += blocks
        return blocks

    def forget(self, block):
        known = self.hash_of.pop(block, None)
        if known is not None:
            del self.by_hash[known]

    def touch(self, blocks):
        for block in blocks:
            self.free.pop(block, None)
            self.references[block] += 1

    def give_back(self, blocks):
        for block in reversed(blocks):
            self.references[block] -= 1
            assert self.references[block] >= 0
            if self.references[block] == 0:
                self.free[block] = None

    def remember(self, block, block_hash):
        if block not in self.hash_of and block_hash not in self.by_hash:
            self.hash_of[block], self.by_hash[block_hash] = block_hash, block

    def known(self, hashes):
        blocks = []
        for block_hash in hashes:
            if block_hash not in self.by_hash:
                break
            blocks.append(self.by_hash[block_hash])
        return blocks


# ---------------------------------------------------------------- scheduler and workers


class Engine:
    """One scheduler and its ranks, in one process; what passes between them is pickled."""

    def __init__(self, connector, layout, block_count=48, world=1, stages=1, most_running=6, local=True, seed=None, drafts=0,
                 **extra):
        self.make = lambda role, rank: connector(
            config(world, stages, rank, layout.mla, **extra), role, cache_config(block_count))
        self.local, self.most_running, self.random = local, most_running, seed
        self.most_drafts = drafts  # tokens guessed beyond the last, computed with it, and rejected
        self.drafts = {}
        self.pool = BlockPool(block_count)
        self.connector = self.make(KVConnectorRole.SCHEDULER, 0)
        self.ranks, self.caches = [], []
        for rank in range(world):
            worker, cache = self.make(KVConnectorRole.WORKER, rank), KvCache(layout, block_count)
            if layout.cross:
                worker.register_cross_layers_kv_cache(cache.tensors[0], types.SimpleNamespace(get_name=lambda: "STAND_IN"))
            else:
                worker.register_kv_caches({f"layer.{number}": tensor for number, tensor in enumerate(cache.tensors)})
            self.ranks.append(worker)
            self.caches.append(cache)
        self.requests = {}
        self.waiting, self.running = deque(), []
        self.received, self.failed = set(), set()
        self.just_finished = set()
        self.counts = {"sent": {}, "received": {}}
        self.external_tokens = self.checked_tokens = self.preemptions = self.load_errors = 0
        self.done = []

    def close(self):
        for connector in [*self.ranks, self.connector]:
            connector.shutdown()
        for cache in self.caches:
            cache.close()

    def add(self, request):
        self.requests[request.request_id] = request
        self.waiting.append(request)
        if self.random is None or self.random.random() < 0.5:  # older builds do not tell
            self.connector.on_new_request(request)

    @property
    def unfinished(self):
        return len(self.waiting) + len(self.running)

    def abort(self, request_id):
        request = self.requests[request_id]
        remote = request.status == Status.REMOTE and request_id not in self.received
        if request.status == Status.FINISHED:
            return
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._finish(request, remote)

    def _finish(self, request, delay):
        request.status = Status.FINISHED
        self.just_finished.add(request.request_id)
        self.received.discard(request.request_id)
        self.failed.discard(request.request_id)
        late, _ = self.connector.request_finished(request, list(request.blocks))
        assert not (late and delay), "its blocks would be given back twice"
        if not late and not delay:
            self._free(request)
        self.done.append(request)

    def _free(self, request):
        self.pool.give_back(request.blocks)
        request.blocks = []
        del self.requests[request.request_id]

    # ------------------------------------------------------------ a step

    def step(self):
        output = self._schedule()
        output.kv_connector_metadata = self.connector.build_connector_meta(output)
        for request_id, count in output.num_scheduled_tokens.items():
            self.requests[request_id].num_computed_tokens += count
        told = [self._execute(rank, output) for rank in range(len(self.ranks))]
        self._update(output, told)

    def _schedule(self):
        self.pool.taken, self.drafts = [], {}
        new, cached, counts, resumed, computed, fresh = [], [], {}, set(), {}, {}
        preempted = set()
        for request in list(self.running):
            if request not in self.running:
                continue
            count = min(CHUNK_TOKENS, request.num_tokens - request.num_computed_tokens)
            drafts = self.most_drafts if count == 1 else 0
            blocks = self._room(request, count + drafts, preempted)
            if blocks is None:
                break
            cached.append(request)
            counts[request.request_id], fresh[request.request_id] = count + drafts, blocks
            self.drafts[request.request_id] = drafts
        cached = [request for request in cached if request in self.running]
        counts = {name: count for name, count in counts.items() if name not in preempted}
        if not preempted:
            for request in list(self.waiting):
                if len(self.running) >= self.most_running:
                    break
                verdict = self._admit(request)
                if verdict == "full":
                    break
                if verdict == "run":
                    counts[request.request_id] = min(CHUNK_TOKENS, request.num_tokens - request.num_computed_tokens)
                    if request.status == Status.PREEMPTED:
                        resumed.add(request.request_id)
                        cached.append(request)
                        fresh[request.request_id] = list(request.blocks)
                    else:
                        new.append(request)
                    request.status = Status.RUNNING
                    self.waiting.remove(request)
                    self.running.append(request)
        self._remember(counts)
        finished, self.just_finished = self.just_finished, set()
        return types.SimpleNamespace(
            scheduled_new_reqs=[types.SimpleNamespace(req_id=r.request_id, num_computed_tokens=r.num_computed_tokens,
                                                      block_ids=(list(r.blocks),)) for r in new],
            scheduled_cached_reqs=types.SimpleNamespace(
                req_ids=[r.request_id for r in cached], resumed_req_ids=resumed,
                new_block_ids=[(fresh[r.request_id],) if fresh[r.request_id] else None for r in cached],
                num_computed_tokens=[r.num_computed_tokens for r in cached]),
            num_scheduled_tokens=counts, preempted_req_ids=preempted, finished_req_ids=finished, taken=self.pool.taken)

    def _remember(self, counts):
        for request_id, count in counts.items():
            request = self.requests[request_id]
            computed = request.num_computed_tokens + count - self.drafts.get(request_id, 0)
            for index in range(computed // BLOCK_TOKENS):
                self.pool.remember(request.blocks[index], request.block_hashes[index])

    def _room(self, request, count, preempted):
        """New blocks for a running request, at others' expense; None: it was preempted itself."""
        wanted = -(-(request.num_computed_tokens + count) // BLOCK_TOKENS) - len(request.blocks)
        while True:
            blocks = self.pool.take(max(0, wanted))
            if blocks is not None:
                request.blocks += blocks
                return blocks
            victim = self.running.pop()
            self.preemptions += 1
            preempted.add(victim.request_id)
            self.pool.give_back(victim.blocks)
            victim.blocks, victim.num_computed_tokens, victim.status = [], 0, Status.PREEMPTED
            victim.preempted = True
            self.waiting.appendleft(victim)
            if victim is request:
                return None

    def _admit(self, request):
        if request.status == Status.REMOTE:
            if request.request_id not in self.received:
                return "later"
            self.received.discard(request.request_id)
            self._promote(request)
        external, hits = 0, []
        if request.num_computed_tokens == 0:
            hashes = request.block_hashes[: (request.num_tokens - 1) // BLOCK_TOKENS]
            hits = self.pool.known(hashes) if self.local else []
            external, remote = self.connector.get_num_new_matched_tokens(request, len(hits) * BLOCK_TOKENS)
            if external is None:
                return "later"
            assert remote == (external > 0) and external % BLOCK_TOKENS == 0
        computed = request.num_computed_tokens or len(hits) * BLOCK_TOKENS + external
        assert computed < request.num_tokens
        total = computed if external else computed + min(CHUNK_TOKENS, request.num_tokens - computed)
        total += 0 if external else self.most_drafts
        wanted = max(0, -(-total // BLOCK_TOKENS) - len(request.blocks) - len(hits))
        self.pool.touch(hits)
        blocks = self.pool.take(wanted)
        if blocks is None:
            self.pool.give_back(hits)
            return "full"
        request.blocks += [*hits, *blocks]
        ids = types.SimpleNamespace(get_block_ids=lambda: (list(request.blocks),))
        self.connector.update_state_after_alloc(request, ids, external)
        request.num_computed_tokens = computed
        if external:
            self.external_tokens += external
            request.status = Status.REMOTE
            return "later"
        return "run"

    def _promote(self, request):
        if request.request_id in self.failed:
            self.failed.discard(request.request_id)
            if request.num_computed_tokens == 0:
                self.pool.give_back(request.blocks)
                request.blocks = []
        for index in range(request.num_computed_tokens // BLOCK_TOKENS):
            self.pool.remember(request.blocks[index], request.block_hashes[index])
        request.status = Status.PREEMPTED if getattr(request, "preempted", False) else Status.WAITING

    # ------------------------------------------------------------ the workers

    def _execute(self, rank, output):
        worker, cache = self.ranks[rank], self.caches[rank]
        meta = pickle.loads(pickle.dumps(output.kv_connector_metadata))
        if output.preempted_req_ids:
            worker.handle_preemptions(meta)
        worker.bind_connector_metadata(meta)
        for block in output.taken:
            for token in range(BLOCK_TOKENS):
                cache.store(block, token, TAKEN * cache.token_bytes)
        late = self.random is not None and self.random.random() < 0.5
        if not late:
            worker.start_load_kv(None)
        self._forward(rank, cache, output)
        if late:
            worker.start_load_kv(None)
        saves = list(meta.saves)
        worker.wait_for_save()
        self._look_at_saves(rank, cache, saves)
        sent, received = worker.get_finished(output.finished_req_ids)
        errors = worker.get_block_ids_with_load_errors()
        report = pickle.loads(pickle.dumps(worker.build_connector_worker_meta()))
        worker.clear_connector_metadata()
        return sent or set(), received or set(), errors, report

    def _forward(self, rank, cache, output):
        """Reads what was computed before, and writes what is computed now."""
        if not output.num_scheduled_tokens:
            return
        everything = cache.all_bytes()
        for request_id, count in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            before = request.num_computed_tokens - count
            for token in range(before):
                seen = cache.token_of(everything, request.blocks[token // BLOCK_TOKENS], token % BLOCK_TOKENS)
                if seen != self._content(cache, rank, request, token):
                    raise WrongBytes(f"{request_id}: token {token} of {before}, rank {rank}")
            self.checked_tokens += before
            # All blocks are distinct, or a write would be another's.
            for token in range(before, before + count):
                block = request.blocks[token // BLOCK_TOKENS]
                guessed = token >= request.num_tokens
                content = GUESSED * cache.token_bytes if guessed else self._content(cache, rank, request, token)
                cache.store(block, token % BLOCK_TOKENS, content)

    def _look_at_saves(self, rank, cache, saves):
        """Whether what is saved in this step is there at its end."""
        everything = cache.all_bytes() if saves else None
        for order in saves:
            request = self.requests[order.request]
            first = order.first_token // BLOCK_TOKENS
            assert order.keys == request.block_hashes[first : first + len(order.keys)]
            assert order.parent == (request.block_hashes[first - 1] if first else b"")
            for number, block in enumerate(order.blocks):
                for token in range(BLOCK_TOKENS):
                    place = order.first_token + number * BLOCK_TOKENS + token
                    if cache.token_of(everything, block, token) != self._content(cache, rank, request, place):
                        raise WrongBytes(f"{order.request}: token {place} is saved and not computed, rank {rank}")

    @staticmethod
    def _content(cache, rank, request, token):
        who = 0 if cache.layout.mla else rank
        return hashlib.shake_128(request.prefixes[token] + bytes([who])).digest(cache.token_bytes)

    def _update(self, output, told):
        errors, report = set(), None
        for _, _, bad, said in told:
            errors |= bad
            if said is not None:
                report = said if report is None else report.aggregate(said)
        sent, received = self._all_ranks("sent", told, 0), self._all_ranks("received", told, 1)
        if errors:
            self._invalid(errors)
        for request_id in output.num_scheduled_tokens:
            request = self.requests[request_id]
            request.num_computed_tokens -= self.drafts.get(request_id, 0)
            if request.status == Status.RUNNING and request.num_computed_tokens == request.num_tokens:
                request.append()
                if request.outputs >= request.most_outputs:
                    self.running.remove(request)
                    self._finish(request, False)
        self.connector.update_connector_output(types.SimpleNamespace(
            finished_sending=sent, finished_recving=received, invalid_block_ids=errors, kv_connector_worker_meta=report))
        for request_id in received:
            request = self.requests[request_id]
            if request.status == Status.REMOTE:
                self.received.add(request_id)
            else:
                assert request.status == Status.FINISHED
                self._free(request)
        for request_id in sent:
            self._free(self.requests[request_id])

    def _all_ranks(self, kind, told, place):
        """Which requests the last of the ranks has told of."""
        over = set()
        for answer in told:
            for request_id in answer[place]:
                count = self.counts[kind][request_id] = self.counts[kind].get(request_id, 0) + 1
                if count == len(self.ranks):
                    del self.counts[kind][request_id]
                    over.add(request_id)
        return over

    def _invalid(self, errors):
        for request in self.waiting:
            if request.status != Status.REMOTE:
                continue
            computed = request.num_computed_tokens // BLOCK_TOKENS
            bad = [index for index, block in enumerate(request.blocks[:computed]) if block in errors]
            if bad:
                self.load_errors += 1
                request.num_computed_tokens = bad[0] * BLOCK_TOKENS
                self.failed.add(request.request_id)
