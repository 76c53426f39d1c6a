"""LMCache's native_plugin over Terrace: objects of its L1 between LMCache's server and the daemon.

    {"type": "native_plugin", "module_path": "terrace.lmcache", "class_name": "TerraceConnector",
     "adapter_params": {"weights_revision": "COMMIT", "kv_dtype": "bfloat16", "layout": "NHD"}}

The interface was read from lmcache/v1/distributed/l2_adapters/native_plugin_l2_adapter.py and
native_connector_l2_adapter.py of LMCache (commits 68c638a6a8e8 and 0b43a45563fe) and from
csrc/storage_backends/connector_base.h (0b8d0c0268fe): one descriptor, batches by future id,
completions of (future id, ok, error, a boolean a key). It is tested against a loop that does what
that adapter's thread does; it has not run inside LMCache.

LMCache hands over buffers anywhere in its pool, which is no array of blocks that a region could
name: threads of this process copy, once each way, without Python's lock. A get reads the daemon's
memory in place; a put goes through staging memory.

LMCache's keys are texts (model@rank@group@hash, and @salt), which name everything but the weights'
revision, the type of the cache and its layout: those are adapter_params, and what is not given
there is not shared with other processes. A key's digest is its key in Terrace, in a namespace of
its model.

Eviction belongs to one side. Terrace evicts by itself, so leave LMCache's of this adapter off
(max_capacity_gb 0); submit_batch_delete is there for what must go.

Further adapter_params: runtime_dir, quantization, engine_format; get_deadline_s (10),
set_deadline_s (30), exists_deadline_s (0.5), hold_s (5); threads (4) for copies, staging_bytes (256
MiB), library.
"""
import logging
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from terrace import abi
from terrace.abi import Status
from terrace.backing import Span, span_of
from terrace.calls import Namespace, Part
from terrace.copies import CopiedBlocks
from terrace.keys import digest
from terrace.record import Facts, NamespaceRecord
from terrace.session import Session
from terrace.tally import Complaints, Tally
from terrace.workers import Bell, Workers

logger = logging.getLogger(__name__)

MOST_WAITING = 4096  # batches, of copies and of lookups
# Models that are told apart; the keys of more share one namespace, and stay apart by their digests.
MOST_MODELS = 64
CLOSE_S = 5.0
_COUNTED = ("found", "not_found", "got", "missed", "stored", "not_stored", "refused", "faults")

# (future id, whether it went well, why not, an answer a key)
Completion = Tuple[int, bool, str, Optional[List[bool]]]


class TerraceConnector:
    """See the module. Thread-safe. Submits wait for nothing and raise nothing."""

    def __init__(
        self,
        runtime_dir: Optional[str] = None,
        weights_revision: Optional[str] = None,
        kv_dtype: Optional[str] = None,
        layout: Optional[str] = None,
        quantization: str = "",
        engine_format: Optional[str] = None,
        get_deadline_s: float = 10.0,
        set_deadline_s: float = 30.0,
        exists_deadline_s: float = 0.5,
        hold_s: float = 5.0,
        threads: int = 4,
        staging_bytes: int = 256 << 20,
        library: Optional[str] = None,
    ) -> None:
        if threads < 1:
            raise ValueError("threads: at least 1")
        facts = Facts("LMCache")
        self._fields = {
            "weights_revision": facts.need("weights_revision", weights_revision),
            "kv_dtype": facts.need("kv_dtype", kv_dtype),
            "layout": facts.need("layout", layout),
            "engine_format": engine_format or _lmcache_version(),
            "quantization": quantization,
            "labels": facts.seal(),
        }
        self._deadlines = {"get": get_deadline_s, "set": set_deadline_s, "ask": exists_deadline_s}
        self._hold_s = hold_s
        self._tally = Tally(_COUNTED)
        self._complaints = Complaints("terrace.lmcache")
        self._session = Session(runtime_dir, "terrace-lmcache", library=library)
        self._copies = CopiedBlocks(self._session, staging_bytes)
        self._copiers = Workers("terrace-lmcache-copies", threads, MOST_WAITING)
        # Apart, so that a lookup never waits behind gigabytes.
        self._askers = Workers("terrace-lmcache-lookups", 1, MOST_WAITING)
        self._bell = Bell()
        self._lock = threading.Lock()
        self._namespaces: Dict[str, Namespace] = {}
        self._next_future = 1
        self._completions: List[Completion] = []
        self._closed = False

    def event_fd(self) -> int:
        """Readable when drain_completions has something."""
        return self._bell.fileno()

    def submit_batch_get(self, keys: Sequence[str], buffers: Sequence[Any]) -> int:
        """Fills the buffers, each with the object of its key, if that has just its size."""
        return self._submit(
            self._copiers, len(keys), lambda: self._transfer(keys, buffers, is_get=True)
        )

    def submit_batch_set(self, keys: Sequence[str], buffers: Sequence[Any]) -> int:
        """Stores the buffers. The batch goes well where all are stored."""
        return self._submit(
            self._copiers, len(keys), lambda: self._transfer(keys, buffers, is_get=False)
        )

    def submit_batch_exists(self, keys: Sequence[str]) -> int:
        return self._submit(self._askers, len(keys), lambda: self._ask(keys))

    def submit_batch_delete(self, keys: Sequence[str]) -> int:
        """Afterwards no key of the batch is there, which is what its answers say."""
        return self._submit(self._askers, len(keys), lambda: self._delete(keys))

    def drain_completions(self) -> List[Completion]:
        self._bell.silence()
        with self._lock:
            done, self._completions = self._completions, []
        return done

    def counters(self) -> Dict[str, int]:
        return self._tally.totals()

    def close(self) -> None:
        """Lets what is under way end, for some seconds, and answers nothing more. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        ended = [workers.close(timeout_s=CLOSE_S) for workers in (self._copiers, self._askers)]
        self._session.close()  # whoever still waits for the daemon is answered by this
        if all(ended) or all([self._copiers.close(CLOSE_S), self._askers.close(CLOSE_S)]):
            self._bell.close()

    # ------------------------------------------------------------ inside

    def _submit(
        self, workers: Workers, key_count: int, work: Callable[[], Tuple[bool, str, List[bool]]]
    ) -> int:
        with self._lock:
            future = self._next_future
            self._next_future += 1

        def run() -> None:
            ok, error, answers = False, "an exception, which is in the log", [False] * key_count
            try:
                ok, error, answers = work()
            except Exception:
                self._tally.add("faults")
                self._complaints.say("a batch ended in an exception", exception=True)
            finally:
                self._complete((future, ok, error, answers))

        if not workers.submit(run):
            self._tally.add("refused")
            error = "too much waits already, or the connector is closed"
            self._complete((future, False, error, [False] * key_count))
        return future

    def _complete(self, completion: Completion) -> None:
        with self._lock:
            self._completions.append(completion)
            if not self._closed:
                self._bell.ring()

    def _transfer(
        self, keys: Sequence[str], buffers: Sequence[Any], is_get: bool
    ) -> Tuple[bool, str, List[bool]]:
        if len(keys) != len(buffers):
            raise ValueError(f"{len(keys)} keys and {len(buffers)} buffers")
        blocks = [[span_of(buffer, writable=is_get)] for buffer in buffers]
        good = [False] * len(keys)
        for namespace, positions in self._by_model(keys):
            fitting = [place for place in positions if self._fits(blocks[place])]
            names = [digest(keys[place].encode()) for place in fitting]
            spans: List[List[Span]] = [blocks[place] for place in fitting]
            if is_get:
                part = self._copies.get(namespace, names, spans, self._deadlines["get"])
            else:
                part = self._copies.put(namespace, names, spans, self._deadlines["set"])
            for place, ok in zip(fitting, part):
                good[place] = ok
        count = sum(good)
        self._tally.add("got" if is_get else "stored", count)
        self._tally.add("missed" if is_get else "not_stored", len(keys) - count)
        if is_get or count == len(keys):
            return True, "", good
        return False, f"{len(keys) - count} of {len(keys)} objects were not stored", good

    def _ask(self, keys: Sequence[str]) -> Tuple[bool, str, List[bool]]:
        good = [False] * len(keys)
        for namespace, positions in self._by_model(keys):
            part = Part(namespace, [digest(keys[place].encode()) for place in positions])
            call = self._session.probe(
                [part], hold_s=self._hold_s, deadline_s=self._deadlines["ask"]
            )
            self._session.wait(call)
            self._notice("exists", call.answer)
            for place, ok in zip(positions, call.answer.found()):
                good[place] = ok
        count = sum(good)
        self._tally.add("found", count)
        self._tally.add("not_found", len(keys) - count)
        return True, "", good

    def _delete(self, keys: Sequence[str]) -> Tuple[bool, str, List[bool]]:
        good = [False] * len(keys)
        error = ""
        for namespace, positions in self._by_model(keys):
            part = Part(namespace, [digest(keys[place].encode()) for place in positions])
            call = self._session.delete(part, deadline_s=self._deadlines["set"])
            self._session.wait(call)
            self._notice("delete", call.answer)
            if call.answer.ok:
                for place in positions:
                    good[place] = True
            else:
                error = call.answer.error or call.answer.status.name
        return not error, error, good

    def _by_model(self, keys: Sequence[str]) -> List[Tuple[Namespace, List[int]]]:
        """Batches of one namespace, of as many keys as a call takes."""
        positions: Dict[str, List[int]] = {}
        for place, key in enumerate(keys):
            positions.setdefault(key.split("@", 1)[0], []).append(place)
        return [
            (self._namespace_of(model), places[at : at + abi.MOST_KEYS])
            for model, places in positions.items()
            for at in range(0, len(places), abi.MOST_KEYS)
        ]

    def _namespace_of(self, model: str) -> Namespace:
        with self._lock:
            if model not in self._namespaces and len(self._namespaces) >= MOST_MODELS:
                model = "(other models)"
            if model not in self._namespaces:
                record = NamespaceRecord(
                    model=model or "(none)",
                    hash_algorithm="lmcache",
                    block_bytes=abi.MOST_BLOCK_BYTES,
                    **self._fields,
                )
                self._namespaces[model] = self._session.namespace(record)
            return self._namespaces[model]

    def _fits(self, block: Sequence[Span]) -> bool:
        if 0 < block[0].bytes <= abi.MOST_BLOCK_BYTES:
            return True
        self._complaints.say(
            f"an object of {block[0].bytes} bytes; Terrace takes 1 to {abi.MOST_BLOCK_BYTES}"
        )
        return False

    def _notice(self, what: str, answer: Any) -> None:
        if answer is not None and answer.status not in (Status.OK, Status.UNAVAILABLE):
            self._complaints.say(f"{what}: {answer.status.name}: {answer.error}")


def _lmcache_version() -> str:
    """The installed version, without loading the package for it."""
    from importlib import metadata

    try:
        return "lmcache-" + metadata.version("lmcache")
    except metadata.PackageNotFoundError:
        return ""
