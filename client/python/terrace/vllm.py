"""vLLM's secondary offloading tier over Terrace: KV chunks between vLLM's CPU region and the
daemon.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "OffloadingConnector",
      "kv_role": "kv_both", "kv_connector_extra_config": {"spec_name": "TieringOffloadingSpec",
        "cpu_bytes_to_use": 8589934592, "secondary_tiers": [{"type": "TerraceTier",
          "module_path": "terrace.vllm", "weights_revision": "COMMIT"}]}}'

The interface was read from vllm/v1/kv_offload/tiering/base.py of vLLM's main (TransferJob,
bind_parent; spec.py and the usage guide at commit 0078e9d2b020), and from its earlier forms:
JobMetadata with block_ids and get_finished, lookups that answer True, False or None, a constructor
that is given vllm_config. It is tested against stand-ins of those base classes; it has not run
inside vLLM.

The region that vLLM keeps its chunks in is a file in shared memory. The daemon is handed a
descriptor of it, and copies between its own memory and the rows there, so that no payload passes
through Python. Where no descriptor can be found (the log says so), threads of this process copy.

Nothing here waits. A lookup answers RETRY until the daemon has said what it holds, which is the
next step. A dead or absent daemon is a miss, and stores that fail; it is found again by itself. A
load reports the keys that came. A job is finished only when the daemon cannot touch its rows any
more: one that is stopped (SIGSTOP, a hung machine) keeps them until it goes on or is gone, since
rows that were given to another request meanwhile would be overwritten.

Options of the tier, beside type and module_path: runtime_dir; weights_revision, layout, kv_dtype,
quantization, engine_format, hash_algorithm, model (see vllm_facts.py: what nobody says is not
shared); load_deadline_s (10), store_deadline_s (30), lookup_deadline_s (0.5); hold_s (2): how long
a chunk that a lookup promised stays for its load; locality (LOCAL or REMOTE), enable_kv_events
(stored chunks alone: that one was removed is not told), library.
"""
import dataclasses
import inspect
import logging
import time
from collections import deque
from typing import Any, Collection, Deque, Dict, Iterable, List, Optional, Tuple

from vllm.v1.kv_offload import base as offload
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager

from terrace import vllm_rows
from terrace.abi import Status
from terrace.calls import Call, Namespace
from terrace.keys import fitted
from terrace.session import Session
from terrace.tally import Complaints, Tally
from terrace.vllm_facts import GROUP_BYTES, ChunkFacts, Given
from terrace.vllm_lookups import Lookups

logger = logging.getLogger(__name__)

# Calls of jobs under way when another job is begun; the daemon allows 256 of all kinds. Jobs beyond
# wait, loads before stores.
MOST_CALLS, MOST_STORE_CALLS = 96, 48
MOST_WAITING = 4096  # of each kind
# Of a scheduler step; touches beyond are dropped, and counted.
MOST_TOUCHES = 8192
DRAIN_LIMIT_S = 60.0

_COUNTED = {
    "lookups": "Chunks asked for.",
    "lookup_hits": "Chunks that were there.",
    "lookups_refused": "Chunks not asked for, because too many are known already.",
    "stored_chunks": "Chunks that were stored, or were there already.",
    "declined_chunks": "Chunks that the daemon did not keep.",
    "failed_store_chunks": "Chunks whose store failed, without a daemon for instance.",
    "loaded_chunks": "Chunks that were loaded.",
    "failed_load_chunks": "Chunks that were promised and not loaded.",
    "refused_jobs": "Loads and stores that were not begun, because too many waited.",
    "dropped_touches": "Touches that were not told.",
    "faults": "Exceptions of this plug-in, each of which was a miss.",
}
_METRIC = "vllm:kv_offload_terrace_"
_RESULT_FIELDS = {field.name for field in dataclasses.fields(JobResult)}
_LookupResult = getattr(offload, "LookupResult", None)


class _Job:
    """A load or store of vLLM's, in as many calls as namespaces and limits make of it."""

    __slots__ = (
        "id",
        "keys",
        "rows",
        "is_load",
        "good",
        "open_calls",
        "failed",
        "began",
        "request",
    )

    def __init__(self, job: Any, is_load: bool) -> None:
        rows = getattr(job, "chunk_ids", None)
        rows = job.block_ids if rows is None else rows
        self.id = job.job_id
        self.keys = list(job.keys)
        self.rows = [int(row) for row in (rows.tolist() if hasattr(rows, "tolist") else rows)]
        self.is_load = is_load
        self.good = [False] * len(self.keys)
        self.open_calls = 0
        self.failed = False
        self.began = time.monotonic()
        self.request = job.req_context


class TerraceTier(SecondaryTierManager):
    """See the module. Called by one executor at a time, as vLLM guarantees."""

    medium = getattr(getattr(offload, "Medium", None), "STORAGE", None)

    def __init__(
        self,
        offloading_spec: Any = None,
        primary_kv_view: Optional[memoryview] = None,
        tier_type: str = "TerraceTier",
        vllm_config: Any = None,
        runtime_dir: Optional[str] = None,
        load_deadline_s: float = 10.0,
        store_deadline_s: float = 30.0,
        lookup_deadline_s: float = 0.5,
        hold_s: float = 2.0,
        locality: Optional[str] = None,
        enable_kv_events: bool = False,
        library: Optional[str] = None,
        **given: str,
    ) -> None:
        unknown = sorted(set(given) - set(Given._fields))
        if unknown:
            raise ValueError(f"secondary tier {tier_type}: unknown option {', '.join(unknown)}")
        self._init_base(offloading_spec, primary_kv_view, tier_type, vllm_config)
        row_count, row_bytes = vllm_rows.shape_of(primary_kv_view)
        self.locality = None if locality is None else offload.Locality(locality)
        self._facts = ChunkFacts(offloading_spec, vllm_config, row_bytes, Given(**given))
        self._tally = Tally(list(_COUNTED))
        self._complaints = Complaints("terrace.vllm")
        self._namespaces: Dict[bytes, Namespace] = {}
        self._jobs: Dict[int, _Job] = {}
        self._waiting: Dict[bool, Deque[_Job]] = {True: deque(), False: deque()}  # by is_load
        self._calls: Dict[bool, int] = {True: 0, False: 0}  # under way, by is_load
        self._results: List[Any] = []
        self._touched: Dict[bytes, None] = {}
        self._last_key: Dict[str, Dict[bytes, bytes]] = {}  # by request and group
        self._events: Optional[List[Any]] = self._event_list(offloading_spec, enable_kv_events)
        self._closed = False
        self._session = Session(runtime_dir, "terrace-vllm", library=library)
        try:
            self._name(b"\0" * (16 + GROUP_BYTES))  # what is wrong with a record shows here
            limits = (load_deadline_s, store_deadline_s)
            self._rows = vllm_rows.open_rows(
                self._session, primary_kv_view, row_count, row_bytes, limits
            )
        except BaseException:
            self._session.close()
            raise
        self._lookups = Lookups(self._session, self._name, lookup_deadline_s, hold_s, self._tally)

    # ------------------------------------------------------------ lookups

    def lookup(self, key: bytes, req_context: Any) -> Any:
        found = self._guarded(lambda: self._lookups.ask(bytes(key), req_context.req_id), False)
        if _LookupResult is None:
            return found
        if found is None:
            return _LookupResult.RETRY
        return _LookupResult.HIT if found else _LookupResult.MISS

    def on_schedule_end(self, context: Any = None) -> None:
        self._guarded(self._flush)

    def touch(self, keys: Collection[bytes], req_context: Any = None) -> None:
        room = MOST_TOUCHES - len(self._touched)
        told = [bytes(key) for _, key in zip(range(room), keys)]
        self._touched.update(dict.fromkeys(told))
        self._tally.add("dropped_touches", len(keys) - len(told))

    def on_new_request(self, req_context: Any) -> Any:
        self._last_key.setdefault(req_context.req_id, {})
        make = getattr(offload, "RequestOffloadingContext", None)
        return make() if make is not None else None

    def on_request_finished(self, req_context: Any) -> None:
        self._lookups.forget(req_context.req_id)
        self._last_key.pop(req_context.req_id, None)

    # ------------------------------------------------------------ jobs

    def submit_load(self, job_metadata: Any) -> None:
        self._submit(_Job(job_metadata, is_load=True))

    def submit_store(self, job_metadata: Any) -> None:
        self._submit(_Job(job_metadata, is_load=False))

    def get_finished_jobs(self) -> Iterable[Any]:
        self._guarded(self._advance)
        results, self._results = self._results, []
        return results

    def has_pending_work(self) -> bool:
        return bool(self._jobs)

    def drain_jobs(self) -> None:
        """Until no job is under way and nothing touches the rows. Raises RuntimeError when none has
        ended for a minute, so that the daemon stands still and may write when it goes on: better
        that than rows that change later."""
        left, until = len(self._jobs), time.monotonic() + DRAIN_LIMIT_S
        while self._jobs:
            self._guarded(lambda: self._advance(timeout_s=0.2))
            if len(self._jobs) < left:
                left, until = len(self._jobs), time.monotonic() + DRAIN_LIMIT_S
            elif time.monotonic() > until:
                raise RuntimeError(
                    f"terrace: none of {left} jobs has ended for {DRAIN_LIMIT_S:.0f} s; terraced "
                    "stands still, and may write into the region when it goes on"
                )

    # ------------------------------------------------------------ events, figures, end

    def take_events(self) -> Iterable[Any]:
        events, kept = self._events or (), None if self._events is None else []
        self._events = kept
        return events

    @classmethod
    def build_metric_definitions(cls, extra_config: Dict[str, Any]) -> Dict[str, Any]:
        return {
            _METRIC + name: offload.OffloadingCounterMetadata(documentation=text)
            for name, text in _COUNTED.items()
        }

    def get_stats(self) -> Any:
        """What was counted since the last time, as OffloadingConnectorStats; None where there is
        no such class, or nothing new. `counters` has the totals."""
        if not hasattr(offload, "OffloadingCounterMetadata"):
            return None
        try:
            from vllm.distributed.kv_transfer.kv_connector.v1.offloading import metrics
        except ImportError:
            return None
        counted = self._tally.take()
        if not counted or not hasattr(metrics.OffloadingConnectorStats, "increase_counter"):
            return None
        stats = metrics.OffloadingConnectorStats()
        for name, count in counted.items():
            stats.increase_counter(_METRIC + name, count)
        return stats

    def counters(self) -> Dict[str, int]:
        return self._tally.totals()

    def stop_executor(self) -> None:
        """Threads of copies, where there are any, need nothing of vLLM's."""

    def shutdown(self) -> None:
        if self._closed:
            return
        self._closed = True
        until = time.monotonic() + 2.0
        while self._jobs and time.monotonic() < until:
            self._guarded(lambda: self._advance(timeout_s=0.1))
        self._rows.close()
        self._session.close()

    # Earlier names.
    get_finished = get_finished_jobs
    get_request_offloading_context = on_new_request
    request_finished = on_request_finished

    # ------------------------------------------------------------ inside

    def _init_base(self, spec: Any, view: Any, tier_type: str, vllm_config: Any) -> None:
        """Base classes differ in what they are given."""
        wanted = inspect.signature(SecondaryTierManager.__init__).parameters
        known = {
            "offloading_spec": spec,
            "vllm_config": vllm_config,
            "primary_kv_view": view,
            "tier_type": tier_type,
        }
        super().__init__(**{name: value for name, value in known.items() if name in wanted})
        self.tier_type = tier_type

    def _event_list(self, spec: Any, wanted: bool) -> Optional[List[Any]]:
        if not wanted:
            return None
        if not getattr(getattr(spec, "kv_events_config", None), "enable_kv_cache_events", False):
            logger.warning("enable_kv_events of tier %s: KV events are off in vLLM", self.tier_type)
            return None
        return []

    def _name(self, key: bytes) -> Tuple[Namespace, bytes]:
        suffix = key[-GROUP_BYTES:]
        namespace = self._namespaces.get(suffix)
        if namespace is None:
            group = int.from_bytes(suffix, "big")
            namespace = self._session.namespace(self._facts.record(group))
            self._namespaces[suffix] = namespace
        return namespace, fitted(key, GROUP_BYTES)

    def _submit(self, job: _Job) -> None:
        self._jobs[job.id] = job
        if len(self._waiting[job.is_load]) < MOST_WAITING:
            self._waiting[job.is_load].append(job)
            self._start_waiting()
        else:
            self._tally.add("refused_jobs")
            self._fail(job)

    def _start_waiting(self) -> None:
        """Begins what there is room for."""
        for is_load in (True, False):
            waiting = self._waiting[is_load]
            while waiting and sum(self._calls.values()) < MOST_CALLS:
                if not is_load and self._calls[False] >= MOST_STORE_CALLS:
                    break
                job = waiting.popleft()
                self._guarded(lambda job=job: self._start(job))
                if job.open_calls == 0:
                    self._fail(job)  # an exception; nothing where it is over

    def _start(self, job: _Job) -> None:
        """Submits the calls of a job; one without any is over."""
        job.open_calls = 1  # until all are submitted
        try:
            self._start_calls(job)
        except BaseException:
            job.failed = True
            raise
        finally:
            self._call_over(job)

    def _start_calls(self, job: _Job) -> None:
        if len(job.rows) != len(job.keys):
            raise ValueError(f"job {job.id}: {len(job.keys)} keys and {len(job.rows)} rows")
        by_namespace: Dict[Tuple[Namespace, int], List[int]] = {}
        names = []
        for position, key in enumerate(job.keys):
            namespace, name = self._name(bytes(key))
            names.append(name)
            by_namespace.setdefault((namespace, len(name)), []).append(position)
        for (namespace, _), positions in by_namespace.items():
            for at in range(0, len(positions), vllm_rows.MOST_KEYS):
                self._start_call(job, namespace, positions[at : at + vllm_rows.MOST_KEYS], names)

    def _start_call(
        self, job: _Job, namespace: Namespace, positions: List[int], names: List[bytes]
    ) -> None:
        keys = [names[position] for position in positions]
        rows = [job.rows[position] for position in positions]
        context = (job, positions)
        if job.is_load:
            self._rows.load(namespace, keys, rows, context)
        else:
            chain = self._chain_of(job, positions, keys)
            self._rows.store(namespace, keys, rows, chain, context)
        job.open_calls += 1
        self._calls[job.is_load] += 1

    def _chain_of(
        self, job: _Job, positions: List[int], keys: List[bytes]
    ) -> Optional[vllm_rows.Chain]:
        """After the keys that the same request stored before, at the tokens that vLLM says, where
        it does; None where chunks have no known length, and are no chain."""
        suffix = keys[0][-GROUP_BYTES:]
        tokens = self._facts.chunk_tokens(int.from_bytes(suffix, "big"))
        if not tokens:
            return None
        parent = b""
        chains = self._last_key.get(job.request.req_id)
        if chains is not None:  # not finished meanwhile
            parent, chains[suffix] = chains.get(suffix, b""), keys[-1]
            parent = parent if len(parent) == len(keys[0]) else b""
        tell = getattr(job.request, "get_offload_key_position", None)
        ends = [tell(job.keys[place]) for place in positions] if tell is not None else [None]
        rising = None not in ends and all(a < b for a, b in zip([tokens - 1, *ends], ends))
        if not rising:
            return vllm_rows.Chain(parent)
        return vllm_rows.Chain(parent, ends[0] - tokens, ends)

    def _flush(self) -> None:
        self._lookups.flush()
        if self._touched:
            touched, self._touched = self._touched, {}
            self._lookups.touch(touched)

    def _advance(self, timeout_s: float = 0.0) -> None:
        """Takes what has ended. Lookups are flushed here too, for builds without
        on_schedule_end."""
        self._flush()
        for call in self._session.advance(timeout_s if not self._rows.copied() else 0.0):
            self._ended(call)
        for (job, positions), good, answered in self._rows.ended(timeout_s):
            self._take(job, positions, good, good, answered)
        self._start_waiting()

    def _ended(self, call: Call) -> None:
        kind, what = call.context
        if kind == "probe":
            self._lookups.answered(what, call)
            if call.answer.status not in (Status.OK, Status.UNAVAILABLE):
                self._complaints.say(f"lookup: {call.answer.status.name}: {call.answer.error}")
            return
        job, positions = what
        answer = call.answer
        if answer.status not in (Status.OK, Status.UNAVAILABLE):
            self._complaints.say(f"{kind}: {answer.status.name}: {answer.error}")
        if job.is_load:
            good = answer.delivered_whole(self._rows.row_bytes)
            self._take(job, positions, good, good, answer.ok)
        else:
            self._take(job, positions, answer.kept(), vllm_rows.not_failed(answer), answer.ok)

    def _take(
        self, job: _Job, positions: List[int], good: List[bool], fine: List[bool], answered: bool
    ) -> None:
        """`good`: stored or loaded; `fine`: not failed, which a store that was declined is not."""
        for position, ok in zip(positions, good):
            job.good[position] = ok
        count = sum(good)
        self._calls[job.is_load] -= 1
        if job.is_load:
            self._tally.add("loaded_chunks", count)
            self._tally.add("failed_load_chunks", len(positions) - count)
        else:
            failed = len(positions) - sum(fine) if answered else len(positions)
            self._tally.add("stored_chunks", count)
            self._tally.add("failed_store_chunks", failed)
            self._tally.add("declined_chunks", len(positions) - count - failed)
        job.failed = job.failed or not answered or not all(fine)
        self._call_over(job)

    def _call_over(self, job: _Job) -> None:
        job.open_calls -= 1
        if job.open_calls == 0:
            self._finish(job)

    def _fail(self, job: _Job) -> None:
        job.failed = True
        if job.open_calls == 0:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        if self._jobs.pop(job.id, None) is None:
            return
        good = [key for key, ok in zip(job.keys, job.good) if ok]
        if job.is_load and job.failed:
            self._lookups.miss(key for key, ok in zip(job.keys, job.good) if not ok)
        if not job.is_load and good and self._events is not None:
            self._events.append(self._stored_event(good))
        self._results.append(self._result(job, good))

    def _result(self, job: _Job, good: List[bytes]) -> Any:
        fields = {
            "job_id": job.id,
            "success": not job.failed,
            "successful_keys": tuple(good) if job.is_load and job.failed and good else None,
            "transfer_time": time.monotonic() - job.began,
            "transfer_size": len(good) * self._rows.row_bytes,
        }
        return JobResult(**{name: fields[name] for name in fields if name in _RESULT_FIELDS})

    def _stored_event(self, keys: List[bytes]) -> Any:
        fields = {"keys": keys, "medium": self.medium, "removed": False}
        if self.locality is not None:
            fields["locality"] = self.locality
        return offload.OffloadingEvent(**fields)

    def _guarded(self, work: Any, otherwise: Any = None) -> Any:
        """An exception here must not end the engine's scheduler: it is a miss, counted and
        logged."""
        try:
            return work()
        except Exception:
            self._tally.add("faults")
            self._complaints.say("a call ended in an exception", exception=True)
            return otherwise() if callable(otherwise) else otherwise
