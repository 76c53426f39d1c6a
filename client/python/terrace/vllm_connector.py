"""vLLM's KV connector over Terrace: blocks between the engine's HBM and the daemon, which copies
them itself.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "TerraceConnector",
      "kv_connector_module_path": "terrace.vllm_connector", "kv_role": "kv_both",
      "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"weights_revision": "COMMIT"}}'

The interface was read from vLLM's main: kv_connector/v1/base.py at commits 003df2961dd8 and
00f4240ee645, the calls from v1/worker/kv_connector_model_runner_mixin.py (00f4240ee645) and
v1/core/sched/scheduler.py (00024d314514). It is tested against stand-ins of those; it has not run
inside vLLM, nor over a GPU.

A worker exports the allocations that its KV cache lies in (cudaMalloc's; PyTorch's expandable
segments cannot be exported so) and records an event behind the step's kernels; the daemon's process
for that GPU waits for the event and copies. No payload passes through Python. Loads are
asynchronous, so that there is no layer to be waited for: vLLM runs a request when its load is over,
and CUDA graphs may be whole. Blocks that did not come are reported and computed
(kv_load_failure_policy must be "recompute", as vLLM fails the request else).

A full block of the prompt is saved when it is computed, and blocks of generated tokens too where
save_decode is true. A request that has been saved keeps its blocks until the daemon has read them.
Without a daemon everything is a miss. A daemon that stands still in the middle of a copy keeps the
blocks, and requests that wait for them, until it goes on or is gone; a worker that would overwrite
such blocks (preemption) waits for a minute and raises then.

One KV-cache group: hybrid models are refused, and so are context-parallel ranks. Tensor- and
pipeline-parallel ranks have a namespace each, or one between those that hold the same (MLA), of
which one rank saves. vLLM's hashes are the keys, so that PYTHONHASHSEED has to be set, to the same
for all engines that share.

kv_connector_extra_config: Options in vllm_orders.py, and weights_revision, layout, kv_dtype,
quantization, engine_format, hash_algorithm, model (vllm_facts.py: what nobody says is not shared).
"""
import dataclasses
import hashlib
import logging
import os
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from vllm.distributed.kv_transfer.kv_connector.v1 import base as connectors

from terrace.abi import MOST_BLOCK_BYTES, MOST_PARTS, Sharding
from terrace.cuda import Cuda, CudaError
from terrace.record import Facts, NamespaceRecord
from terrace.session import Session
from terrace.tally import Complaints, Tally
from terrace.vllm_facts import ChunkFacts, Given
from terrace.vllm_geometry import Layer, layer_of
from terrace.vllm_matches import Matches
from terrace.vllm_orders import LoadOrder, Options, RankFacts, Report, SaveOrder
from terrace.vllm_transfers import Share, Transfers, shares_of

try:
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
except ImportError:  # before there was such a class
    KVConnectorStats = None

logger = logging.getLogger(__name__)

_COUNTED = (
    "lookups",
    "lookup_hits",
    "loaded_blocks",
    "failed_load_blocks",
    "failed_loads",
    "saved_blocks",
    "failed_save_blocks",
    "dropped_blocks",
    "faults",
)
_CLOSE_S = 5.0
_CLEAR_S = 5.0


@dataclasses.dataclass
class StepOrders(connectors.KVConnectorMetadata):
    """From the scheduler to the workers, with every step."""

    loads: List[LoadOrder] = dataclasses.field(default_factory=list)
    saves: List[SaveOrder] = dataclasses.field(default_factory=list)
    preempted: Set[str] = dataclasses.field(default_factory=set)
    # Whether workers are to say what they have registered.
    introduce: bool = False


_WorkerMetadata: Any = getattr(connectors, "KVConnectorWorkerMetadata", object)


@dataclasses.dataclass
class WorkerReport(_WorkerMetadata):
    """From a worker to the scheduler."""

    report: Report

    def aggregate(self, other: "WorkerReport") -> "WorkerReport":
        return WorkerReport(self.report.merged(other.report))


if KVConnectorStats is not None:

    @dataclasses.dataclass
    class TerraceStats(KVConnectorStats):
        """Counts of an interval."""

        def reset(self) -> None:
            self.data = {}

        def aggregate(self, other: Any) -> "TerraceStats":
            for name, count in other.data.items():
                self.data[name] = self.data.get(name, 0) + count
            return self

        def reduce(self) -> Dict[str, int]:
            return {f"terrace_{name}": count for name, count in self.data.items()}

        def is_empty(self) -> bool:
            return not any(self.data.values())


class TerraceConnector(connectors.KVConnectorBase_V1):
    """See the module. One in the scheduler's process and one in each worker's, each used by one
    thread. Raises ValueError for what it is not made for, when the engine starts; afterwards its
    calls raise nothing but RuntimeError, and that for what the module says of preemption."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        try:
            super().__init__(vllm_config, role, kv_cache_config)
        except TypeError:  # older ones are not given the cache's configuration
            super().__init__(vllm_config, role)
        self._config = vllm_config
        self._cache = kv_cache_config
        transfer = vllm_config.kv_transfer_config
        extra = dict(transfer.kv_connector_extra_config or {})
        self._options, given = Options.of(extra)
        unknown = sorted(set(given) - set(Given._fields))
        if unknown:
            raise ValueError(f"kv_connector_extra_config: unknown option {', '.join(unknown)}")
        self._given = Given(**given)
        self._block_tokens = _block_tokens(vllm_config, kv_cache_config)
        self._tally = Tally(list(_COUNTED))
        self._complaints = Complaints("terrace.vllm_connector")
        self._facts: Optional[RankFacts] = None  # of a worker that has registered
        self._matches: Optional[Matches] = None
        self._transfers: Optional[Transfers] = None
        self._closed = False
        reconnect_s, library = self._options.reconnect_s, self._options.library
        self._session = Session(
            self._options.runtime_dir, "terrace-vllm", reconnect_s=reconnect_s, library=library
        )
        if role == connectors.KVConnectorRole.SCHEDULER:
            self._open_scheduler(transfer)
        else:
            writes = _rank(vllm_config).writes and getattr(transfer, "is_kv_producer", True)
            self._transfers = Transfers(
                self._session, self._options, writes, self._tally, self._complaints
            )

    def _open_scheduler(self, transfer: Any) -> None:
        if getattr(transfer, "kv_load_failure_policy", "recompute") != "recompute":
            logger.warning(
                'terrace: kv_load_failure_policy is not "recompute": vLLM will fail requests whose '
                "blocks do not come, when the daemon is restarted for instance"
            )
        if not os.environ.get("PYTHONHASHSEED"):
            logger.warning(
                "terrace: PYTHONHASHSEED is not set, so that vLLM's block hashes begin with "
                "a random one: no other engine finds the blocks, nor does this one after a restart"
            )
        self._matches = Matches(
            self._session,
            self._options,
            self._block_tokens,
            int(self._config.parallel_config.world_size),
            bool(getattr(transfer, "is_kv_consumer", True)),
            bool(getattr(transfer, "is_kv_producer", True)),
            self._tally,
            self._complaints,
        )

    # ------------------------------------------------------------ what vLLM asks of the class

    @property
    def prefer_cross_layer_blocks(self) -> bool:
        """All layers of a block together: one copy a block."""
        return True

    @property
    def requires_kv_delivery(self) -> bool:
        """A cache may forget."""
        return False

    @classmethod
    def build_kv_connector_stats(cls, data: Optional[Dict[str, Any]] = None) -> Any:
        if KVConnectorStats is None:
            return None
        return TerraceStats(data=data or {})

    def get_kv_connector_stats(self) -> Any:
        """What was counted since the last time; `counters` has the totals."""
        if KVConnectorStats is None:
            return None
        counted = self._tally.take()
        return TerraceStats(data=counted) if counted else None

    def counters(self) -> Dict[str, int]:
        return self._tally.totals()

    def shutdown(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._transfers is not None:
            self._guarded(lambda: self._transfers.close(_CLOSE_S), None)
        self._session.close()

    # ------------------------------------------------------------ scheduler

    def on_new_request(self, request: Any) -> None:
        self._guarded(lambda: self._matches.arrived(request), None)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> Tuple[Optional[int], bool]:
        matched = self._guarded(lambda: self._matches.matched(request, num_computed_tokens), 0)
        return matched, bool(matched)

    def update_state_after_alloc(
        self, request: Any, blocks: Any, num_external_tokens: int
    ) -> None:
        ids = blocks.get_block_ids()
        own = [int(block) for block in ids[0]] if ids else []
        self._matches.allocated(request, own, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> StepOrders:
        plan = self._matches.plan(scheduler_output)
        return StepOrders(*plan, introduce=not self._matches.informed)

    def update_connector_output(self, connector_output: Any) -> None:
        told = getattr(connector_output, "kv_connector_worker_meta", None)
        report = told.report if isinstance(told, WorkerReport) else None
        received = set(getattr(connector_output, "finished_recving", None) or ())
        self._guarded(lambda: self._matches.told(report, received), None)

    def request_finished(
        self, request: Any, block_ids: List[int]
    ) -> Tuple[bool, Optional[Dict[str, Any]]]:
        return self._matches.finished(request.request_id), None

    def take_events(self) -> Iterable[Any]:
        """The daemon tells routers itself what it holds."""
        return ()

    def reset_cache(self) -> bool:
        """What was stored of this model becomes misses, for all engines that share it: new weights
        under an old revision, for one. Waits for a few seconds at most."""
        if self._matches is None:
            return True
        return self._guarded(lambda: self._matches.clear(_CLEAR_S), False)

    # ------------------------------------------------------------ worker

    def register_kv_caches(self, kv_caches: Dict[str, Any]) -> None:
        self._register(list(kv_caches.values()), "")

    def register_cross_layers_kv_cache(self, kv_cache: Any, attn_backend: Any) -> None:
        name = getattr(attn_backend, "get_name", None)
        self._register([kv_cache], name() if name is not None else "")

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """Before the blocks are given to others. Older builds name the requests themselves."""
        preempted = getattr(kv_connector_metadata, "preempted", kv_connector_metadata)
        if preempted:
            self._transfers.preempted(set(preempted))

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        super().bind_connector_metadata(connector_metadata)
        if self._transfers is not None:
            self.handle_preemptions(connector_metadata)  # for builds that do not call it

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        orders = self._orders()
        if orders.loads:
            self._transfers.load(orders.loads)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """A request that runs is loaded."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Blocks leave whole, in wait_for_save."""

    def wait_for_save(self) -> None:
        orders = self._orders()
        if orders.saves:
            saves, orders.saves = orders.saves, []  # once, however often it is called
            self._transfers.save(saves, self._block_tokens)

    def get_finished(
        self, finished_req_ids: Set[str]
    ) -> Tuple[Optional[Set[str]], Optional[Set[str]]]:
        sent, received = self._transfers.finished(set(finished_req_ids))
        return sent or None, received or None

    def get_block_ids_with_load_errors(self) -> Set[int]:
        return self._transfers.errors()

    def build_connector_worker_meta(self) -> Optional[WorkerReport]:
        failed = self._transfers.failed()
        introduced = self._facts is not None and self._orders().introduce
        if not failed and not introduced:
            return None
        rank = int(self._config.parallel_config.rank)
        return WorkerReport(Report({rank: self._facts} if introduced else {}, failed))

    # ------------------------------------------------------------ inside

    def _orders(self) -> StepOrders:
        orders = self._connector_metadata
        return orders if isinstance(orders, StepOrders) else StepOrders()

    def _register(self, tensors: List[Any], backend: str) -> None:
        """What cannot be registered is refused once, in the log and to the scheduler; the engine
        goes on without."""
        try:
            count = int(self._cache.num_blocks)
            layers = [layer_of(tensor, count) for tensor in tensors]
            cuda = Cuda(_device(tensors[0]), self._options.cuda_driver)
            shares = shares_of(cuda, layers)
            records = self._records(shares, layers, backend)
            self._transfers.open(cuda, _current_stream, shares, records, count)
            self._facts = RankFacts(tuple(records))
            logger.info(
                "terrace: %d blocks of %d bytes in %d allocations",
                count,
                sum(share.block_bytes for share in shares),
                len(shares),
            )
        except Exception as error:  # of whatever kind: the engine can do without
            hint = ""
            if isinstance(error, CudaError):
                hint = " (PyTorch's expandable_segments, and vLLM's sleep mode, rule it out)"
            refusal = f"the KV cache cannot be shared with the daemon: {error}{hint}"
            logger.warning("terrace: nothing is loaded or saved: %s", refusal)
            self._facts = RankFacts((), refusal)

    def _records(
        self, shares: List[Share], layers: List[Layer], backend: str
    ) -> List[NamespaceRecord]:
        if len(shares) > MOST_PARTS:
            raise ValueError(f"{len(shares)} allocations, at most {MOST_PARTS}")
        rank = _rank(self._config)
        shapes = hashlib.blake2b(repr([layer.shape for layer in layers]).encode(), digest_size=12)
        spec = type(self._cache.kv_cache_groups[0].kv_cache_spec).__name__
        layout = self._given.layout or f"vllm {spec} {backend} {shapes.hexdigest()}"
        given = self._given._replace(layout=layout)
        fields = ChunkFacts(None, self._config, 0, given).fields()
        if Facts.PRIVATE in fields["labels"]:
            # Of this engine, rather than of each of its processes.
            engine = "/".join(
                str(name)
                for name in (
                    getattr(self._config.kv_transfer_config, "engine_id", None),
                    getattr(self._config, "instance_id", None),
                )
                if name
            )
            if not engine and int(self._config.parallel_config.world_size) > 1:
                raise ValueError("what is not shared needs vLLM's engine_id, and there is none")
            if engine:
                private = hashlib.blake2b(engine.encode(), digest_size=16).hexdigest()
                fields["labels"][Facts.PRIVATE] = private
        fields.update(rank.fields)
        records = []
        for number, share in enumerate(shares):
            if not 0 < share.block_bytes <= MOST_BLOCK_BYTES:
                raise ValueError(f"blocks of {share.block_bytes} bytes")
            part = "" if len(shares) == 1 else f" {number + 1}/{len(shares)}"
            fields["layout"] = layout + part
            size, tokens = share.block_bytes, self._block_tokens
            records.append(NamespaceRecord(block_bytes=size, block_tokens=tokens, **fields))
        return records

    def _guarded(self, work: Any, otherwise: Any) -> Any:
        """An exception here must not end the engine's scheduler: it is a miss, counted and
        logged."""
        try:
            return work()
        except Exception:
            self._tally.add("faults")
            self._complaints.say("a call ended in an exception", exception=True)
            return otherwise


@dataclasses.dataclass
class _Rank:
    fields: Dict[str, Any]
    writes: bool


def _rank(config: Any) -> _Rank:
    """This rank's place among those that hold different bytes."""
    parallel = config.parallel_config
    rank, world = int(parallel.rank), int(parallel.world_size)
    stages = int(getattr(parallel, "pipeline_parallel_size", 1) or 1)
    per_stage = max(1, world // stages)
    if not getattr(config.model_config, "use_mla", False):
        fields = {"sharding": Sharding.SHARDED, "shard_count": world, "shard_rank": rank}
        return _Rank({**fields, "parallel": f"tp={per_stage},pp={stages}"}, True)
    stage, place = divmod(rank, per_stage)
    fields = {"sharding": Sharding.SHARDED, "shard_count": stages, "shard_rank": stage}
    return _Rank({**fields, "parallel": f"mla,pp={stages}"}, place == 0)


def _block_tokens(config: Any, cache: Any) -> int:
    """Raises ValueError for a model or an engine that this connector is not made for."""
    groups = list(getattr(cache, "kv_cache_groups", None) or ())
    if len(groups) != 1:
        raise ValueError(
            f"terrace: a model with {len(groups)} KV-cache groups is not supported by this "
            "connector (hybrid models have several); see the secondary tier, terrace.vllm"
        )
    if getattr(getattr(config, "cache_config", None), "calculate_kv_scales", False):
        raise ValueError("terrace: calculate_kv_scales makes blocks that no other start can read")
    for name in ("prefill_context_parallel_size", "decode_context_parallel_size"):
        if int(getattr(config.parallel_config, name, 1) or 1) != 1:
            raise ValueError(f"terrace: {name} other than 1 is not supported")
    kind = type(groups[0].kv_cache_spec).__name__
    if "Mamba" in kind or "SlidingWindow" in kind or "Chunked" in kind or "Cross" in kind:
        raise ValueError(f"terrace: a KV cache of {kind} is not supported by this connector")
    return int(groups[0].kv_cache_spec.block_size)


def _device(tensor: Any) -> int:
    index = getattr(getattr(tensor, "device", None), "index", None)
    return int(index) if index is not None else 0


def _current_stream() -> int:
    """Of this thread, in PyTorch; without PyTorch, the default one."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.current_stream().cuda_stream)
