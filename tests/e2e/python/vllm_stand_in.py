"""The part of vLLM that terrace.vllm is plugged into: its base classes, in their present and in an earlier form, and a
tiering manager that calls a tier as vLLM's does. Nothing here is vLLM's code; names and calls are.

Read from vllm/v1/kv_offload/{base,tiering/base,tiering/manager,tiering/factory,cpu/shared_offload_region}.py.
"""
import dataclasses
import enum
import importlib
import mmap
import os
import sys
import types
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict


@dataclasses.dataclass
class ReqContext:
    req_id: str
    kv_transfer_params: object = None
    positions: dict = dataclasses.field(default_factory=dict)

    def get_offload_key_position(self, key):
        return self.positions.get(key)


class LookupResult(enum.Enum):
    MISS = enum.auto()
    HIT = enum.auto()
    HIT_PENDING = enum.auto()
    RETRY = enum.auto()


class Medium(enum.Enum):
    CPU = "CPU"
    STORAGE = "STORAGE"


class Locality(enum.Enum):
    LOCAL = "LOCAL"
    REMOTE = "REMOTE"


@dataclasses.dataclass
class RequestOffloadingContext:
    policy: str = "chunk_level"


@dataclasses.dataclass
class OffloadingEvent:
    keys: list
    medium: Medium
    removed: bool
    locality: object = None


@dataclasses.dataclass(frozen=True)
class OffloadingCounterMetadata:
    documentation: str
    labelnames: tuple = ()


class OffloadingConnectorStats:
    def __init__(self):
        self.counts = {}

    def increase_counter(self, name, value=1, labelvalues=()):
        self.counts[name] = self.counts.get(name, 0) + value


def present_base():
    """With TransferJob, partial results, and all hooks."""

    @dataclasses.dataclass
    class TransferJob:
        job_id: int
        keys: list
        chunk_ids: object
        is_promotion: bool
        req_context: ReqContext

    @dataclasses.dataclass
    class JobResult:
        job_id: int
        success: bool
        successful_keys: object = None
        transfer_time: object = None

    class SecondaryTierManager(ABC):
        medium = None

        def __init__(self, offloading_spec, primary_kv_view, tier_type):
            self._offloading_spec = offloading_spec
            self._primary_kv_view = primary_kv_view
            self.tier_type = tier_type
            self.locality = None

        @abstractmethod
        def lookup(self, key, req_context): ...

        @abstractmethod
        def submit_store(self, job_metadata): ...

        @abstractmethod
        def submit_load(self, job_metadata): ...

        @abstractmethod
        def get_finished_jobs(self): ...

        @abstractmethod
        def on_new_request(self, req_context): ...

        @abstractmethod
        def drain_jobs(self): ...

        def bind_parent(self, parent):
            return

    return {"TransferJob": TransferJob, "JobResult": JobResult, "SecondaryTierManager": SecondaryTierManager}


def earlier_base():
    """With JobMetadata, a flag a job, and get_finished."""

    @dataclasses.dataclass
    class JobMetadata:
        job_id: int
        keys: list
        block_ids: object
        is_promotion: bool
        req_context: ReqContext

    @dataclasses.dataclass
    class JobResult:
        job_id: int
        success: bool

    class SecondaryTierManager(ABC):
        def __init__(self, vllm_config, primary_kv_view, tier_type):
            self._vllm_config = vllm_config
            self._primary_kv_view = primary_kv_view

        @abstractmethod
        def lookup(self, key, req_context): ...

        @abstractmethod
        def submit_store(self, job_metadata): ...

        @abstractmethod
        def submit_load(self, job_metadata): ...

        @abstractmethod
        def get_finished(self): ...

    return {"JobMetadata": JobMetadata, "JobResult": JobResult, "SecondaryTierManager": SecondaryTierManager}


def load_tier(earlier=False):
    """terrace.vllm, imported anew over one of the forms."""
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm" or name == "terrace.vllm"]:
        del sys.modules[name]
    base = {"ReqContext": ReqContext, "Medium": Medium}
    if not earlier:
        base.update(LookupResult=LookupResult, RequestOffloadingContext=RequestOffloadingContext, Locality=Locality,
                    OffloadingEvent=OffloadingEvent, OffloadingCounterMetadata=OffloadingCounterMetadata)
    metrics = {} if earlier else {"OffloadingConnectorStats": OffloadingConnectorStats}
    offloading = "vllm.distributed.kv_transfer.kv_connector.v1.offloading"
    for name, content in (
        ("vllm", {"__version__": "0.0.stand_in"}),
        ("vllm.v1.kv_offload.base", base),
        ("vllm.v1.kv_offload.tiering.base", earlier_base() if earlier else present_base()),
        (f"{offloading}.metrics", metrics),
    ):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                module = types.ModuleType(path)
                module.__path__ = []
                sys.modules[path] = module
                if end > 1:
                    setattr(sys.modules[".".join(parts[:end - 1])], parts[end - 1], module)
        vars(sys.modules[name]).update(content)
    return importlib.import_module("terrace.vllm")


def offloading_spec(**changed):
    """What OffloadingSpec.config says; `None` takes a fact away."""
    group = types.SimpleNamespace(tokens_per_block=16, layer_names=("a", "b"))
    facts = {
        "model": types.SimpleNamespace(name="org/model", dtype="bfloat16"),
        "cache": types.SimpleNamespace(tokens_per_hash=16, blocks_per_chunk=4),
        "parallel": types.SimpleNamespace(tp_size=2, pp_size=1, pcp_size=1, dcp_size=1, is_parallelism_agnostic=False),
        "groups": (group, group),
        "replicated_layout": False,
        "kv_cache_layout": "NHD",
    }
    facts.update(changed)
    events = types.SimpleNamespace(enable_kv_cache_events=True)
    return types.SimpleNamespace(config=types.SimpleNamespace(**facts), kv_events_config=events)


def offload_key(block_hash, group=0):
    return block_hash + group.to_bytes(4, "big")


class PrimaryRegion:
    """vLLM's CPU region: a file of /dev/shm that is unlinked by now, mapped; rows of chunks."""

    def __init__(self, rows, row_bytes, shared=True):
        self.rows, self.row_bytes = rows, row_bytes
        self.fd = -1
        if shared:
            path = f"/dev/shm/vllm_offload_{os.getpid()}_{id(self)}.mmap"
            self.fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            os.unlink(path)
            os.ftruncate(self.fd, rows * row_bytes)
            self._memory = mmap.mmap(self.fd, rows * row_bytes)
        else:
            self._memory = bytearray(rows * row_bytes)
        self.view = memoryview(self._memory).cast("b", [rows, row_bytes])

    def write(self, row, content):
        memoryview(self._memory)[row * self.row_bytes:(row + 1) * self.row_bytes] = content

    def read(self, row):
        return bytes(memoryview(self._memory)[row * self.row_bytes:(row + 1) * self.row_bytes])

    def close(self):
        """As CPUPrimaryTierOffloadingManager.shutdown does: raises BufferError while a tier holds on to the view."""
        self.view.release()
        if self.fd >= 0:
            self._memory.close()
            os.close(self.fd)


class Tiering:
    """The rows of the primary region as an LRU cache over one tier: every store goes to the tier, and a miss of the
    primary that the tier has is promoted. Steps are the scheduler's."""

    def __init__(self, tier, region, job_class):
        self.tier, self.region, self._job_class = tier, region, job_class
        self.row_of = OrderedDict()  # ready keys, least recently used first
        self._free = list(range(region.rows))
        self._busy = {}  # key -> jobs that its row waits for
        self._jobs = {}
        self._promoting = {}  # key -> row
        self._pending = {}  # request -> (context, keys, rows)
        self._next_job = 0
        self.finished = []

    def begin_step(self):
        results = self.tier.get_finished_jobs() if hasattr(self.tier, "get_finished_jobs") else self.tier.get_finished()
        for result in results:
            keys, rows, is_promotion = self._jobs.pop(result.job_id)
            self.finished.append(result)
            good = set(keys if result.success else (getattr(result, "successful_keys", None) or ()))
            for key, row in zip(keys, rows):
                if not is_promotion:
                    self._busy[key] -= 1
                    if not self._busy[key]:
                        del self._busy[key]
                    continue
                del self._promoting[key]
                if key in good:
                    self.row_of[key] = row
                else:
                    self._free.append(row)

    def end_step(self):
        for context, keys, rows in self._pending.values():
            self._submit(keys, rows, context, True)
        self._pending = {}
        if hasattr(self.tier, "on_schedule_end"):
            self.tier.on_schedule_end(types.SimpleNamespace(new_req_ids=(), preempted_req_ids=()))

    def store(self, content_of, context):
        """Chunks of a request, from the GPU; False: no room."""
        new = [key for key in content_of if key not in self.row_of and key not in self._promoting]
        rows = []
        for key in new:
            row = self._take_row()
            if row is None:
                self._free += rows
                return False
            rows.append(row)
        for key, row in zip(new, rows):
            self.region.write(row, content_of[key])
            self.row_of[key] = row
        if new:
            for key in new:
                self._busy[key] = self._busy.get(key, 0) + 1
            self._submit(new, rows, context, False)
        return True

    def lookup(self, key, context):
        """HIT, MISS, or None: ask again in the next step."""
        if key in self.row_of:
            self.row_of.move_to_end(key)
            self.tier.touch([key], context)
            return True
        if key in self._promoting:
            return None
        found = self.tier.lookup(key, context)
        found = {"HIT": True, "MISS": False, "RETRY": None}[found.name] if isinstance(found, enum.Enum) else found
        if not found:
            return found
        row = self._take_row()
        if row is None:
            return False
        self._promoting[key] = row
        _, keys, rows = self._pending.setdefault(context.req_id, (context, [], []))
        keys.append(key)
        rows.append(row)
        return None

    def evict(self, key):
        """As when room is needed; False: a job reads it."""
        if key in self._busy or key not in self.row_of:
            return False
        self._free.append(self.row_of.pop(key))
        return True

    def read(self, key):
        return self.region.read(self.row_of[key])

    @property
    def under_way(self):
        return len(self._jobs)

    def _take_row(self):
        if self._free:
            return self._free.pop()
        victim = next((key for key in self.row_of if key not in self._busy), None)
        return None if victim is None else self.row_of.pop(victim)

    def _submit(self, keys, rows, context, is_promotion):
        job = self._job_class(self._next_job, keys, array("q", rows), is_promotion, context)
        self._next_job += 1
        self._jobs[job.job_id] = (keys, rows, is_promotion)
        (self.tier.submit_load if is_promotion else self.tier.submit_store)(job)
