"""SGLang's HiCache over Terrace: pages between the host pool of a rank and the daemon.

    python -m sglang.launch_server --model-path MODEL --enable-hierarchical-cache
      --hicache-mem-layout page_first --hicache-storage-backend dynamic
      --hicache-storage-backend-extra-config '{"backend_name": "terrace",
        "module_path": "terrace.sglang", "class_name": "TerraceHiCache", "interface_v1": 1,
        "allocator": "shm", "weights_revision": "COMMIT"}'

The interface was read from python/sglang/srt/mem_cache/hicache_storage.py,
storage/backend_factory.py and managers/cache_controller.py of SGLang's main at commit 001067fffe33,
and the pools from mem_cache/pool_host/{common,mha,mla}.py. It is tested against stand-ins of those
classes; it has not run inside SGLang.

"allocator": "shm" lets SGLang keep its host pool in a memfd, of which the daemon is handed a
descriptor: batch_get_v1 and batch_set_v1 then pass page numbers, and the daemon copies. Without it
no descriptor leads to the pool (the log says so), and SGLang's own storage threads copy each page
once more. "interface_v1": 1 is what makes SGLang use those calls at all. Layouts page_first and
page_first_direct; with any other the backend refuses to start.

Nothing raises in SGLang's storage threads, which would end without a word: what fails is a page
that is not there, or not stored. A dead or absent daemon is a miss and is found again by itself. A
get waits at most for its deadline, unless the daemon stands still (SIGSTOP) in the middle of it:
pages that it may still write to are not given back before it goes on or is gone.

With MLA every rank holds the same bytes, and rank 0 writes them for all. Pools of hybrid models
(the v2 interface) are not served.

Options in the extra configuration: runtime_dir; weights_revision, kv_dtype, quantization,
engine_format, hash_algorithm (what nobody says is not shared); get_deadline_s (10), set_deadline_s
(30), exists_deadline_s (0.5); hold_s (5): how long pages that were promised stay for their get;
library.
"""
import functools
import logging
import os
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from sglang.srt.mem_cache.hicache_storage import HiCacheStorage

from terrace import abi, keys as key_forms
from terrace.abi import Rule, Sharding, Status
from terrace.answer import Answer
from terrace.backing import PAGE_BYTES, Span, backing_of
from terrace.calls import Namespace, Part, Region
from terrace.copies import CopiedBlocks
from terrace.record import Facts, NamespaceRecord
from terrace.session import Piece, Session
from terrace.tally import Complaints, Tally

logger = logging.getLogger(__name__)

LAYOUTS = ("page_first", "page_first_direct")
_OPTIONS = {"get_deadline_s": 10.0, "set_deadline_s": 30.0, "exists_deadline_s": 0.5, "hold_s": 5.0}
_COUNTED = (
    "pages_asked",
    "pages_found",
    "pages_got",
    "pages_missed",
    "pages_set",
    "pages_not_set",
    "faults",
)


class PoolPages(NamedTuple):
    """The pages of a host pool: what makes up page 0, and how far the next one is from it."""

    count: int
    tokens: int
    first: List[Span]
    strides: List[int]

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.first)

    def span(self) -> Span:
        """All memory from the first page's begin to the last one's end."""
        begin = min(piece.address for piece in self.first)
        end = max(
            piece.address + stride * (self.count - 1) + piece.bytes
            for piece, stride in zip(self.first, self.strides)
        )
        return Span(begin, end - begin)

    def page(self, number: int) -> List[Span]:
        return [
            Span(piece.address + stride * number, piece.bytes)
            for piece, stride in zip(self.first, self.strides)
        ]


def pages_of(pool: Any) -> PoolPages:
    """As the pool itself tells by get_page_buffer_meta, which is asked for pages 0, 1 and the
    last: K and V of a page are two pieces, MLA has one. Raises ValueError for what does not lie
    evenly."""
    layout = getattr(pool, "layout", None)
    if layout not in LAYOUTS:
        raise ValueError(
            f"terrace: host pool of layout {layout!r}; only {' and '.join(LAYOUTS)} keep a page in "
            "few pieces: start SGLang with --hicache-mem-layout page_first"
        )
    tokens = pool.page_size
    count = pool.size // tokens
    first = _meta(pool, 0, tokens)
    if count < 2:
        return PoolPages(count, tokens, first, [0] * len(first))
    second = _meta(pool, 1, tokens)
    strides = [after.address - before.address for before, after in zip(first, second)]
    pages = PoolPages(count, tokens, first, strides)
    if _meta(pool, count - 1, tokens) != pages.page(count - 1):
        raise ValueError("terrace: the pages of the host pool do not lie at even distances")
    return pages


def _meta(pool: Any, number: int, tokens: int) -> List[Span]:
    addresses, sizes = pool.get_page_buffer_meta(_indices(pool, number * tokens, tokens))
    return [Span(int(address), int(size)) for address, size in zip(addresses, sizes)]


def _indices(pool: Any, first: int, count: int) -> Any:
    """Token indexes, in the pool's own kind of array."""
    slots = getattr(pool, "free_slots", None)
    if hasattr(slots, "new_tensor"):
        return slots.new_tensor(list(range(first, first + count)))
    import torch

    return torch.arange(first, first + count, dtype=torch.int64)


def never_raises(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """For calls from SGLang's storage threads: an exception is counted, logged, and answered."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(self: "TerraceHiCache", *arguments: Any, **named: Any) -> Any:
            try:
                return function(self, *arguments, **named)
            except Exception:
                self._tally.add("faults")
                self._complaints.say(f"{function.__name__} ended in an exception", exception=True)
                return otherwise(*arguments, **named)

        return guarded

    return wrap


def _all_false(keys: Sequence[str], *_: Any, **__: Any) -> List[bool]:
    return [False] * len(keys)


class TerraceHiCache(HiCacheStorage):
    """See the module. Thread-safe: SGLang's prefetch, I/O and backup threads call it at the same
    time."""

    def __init__(self, storage_config: Any, kwargs: Optional[Dict[str, Any]] = None) -> None:
        self._config = storage_config
        extra = dict(getattr(storage_config, "extra_config", None) or {})
        extra.update(kwargs or {})
        self._extra = extra
        self._limits = {name: float(extra.get(name, limit)) for name, limit in _OPTIONS.items()}
        self._tally = Tally(_COUNTED)
        self._complaints = Complaints("terrace.sglang")
        self._lock = threading.Lock()
        self._pages: Optional[PoolPages] = None
        self._region: Optional[Region] = None
        self._namespace: Optional[Namespace] = None
        self._session = Session(
            extra.get("runtime_dir"), "terrace-sglang", library=extra.get("library")
        )
        self._copies = CopiedBlocks(self._session)

    # ------------------------------------------------------------ the pool

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Takes the pool's geometry, and hands the daemon its memory. Raises ValueError for a
        pool that cannot be served, so that SGLang does not start with a cache that does nothing."""
        self.mem_pool_host = mem_pool_host
        pages = pages_of(mem_pool_host)
        if not 0 < pages.bytes <= abi.MOST_BLOCK_BYTES:
            raise ValueError(
                f"terrace: pages of {pages.bytes} bytes; at most {abi.MOST_BLOCK_BYTES}: "
                "use a smaller --page-size"
            )
        self._namespace = self._session.namespace(self._record(mem_pool_host, pages))
        self._region = self._register(mem_pool_host, pages)
        self._pages = pages

    def _register(self, pool: Any, pages: PoolPages) -> Optional[Region]:
        span = pages.span()
        backing = backing_of(span)
        if backing is None:
            logger.warning(
                "terrace: no descriptor leads to SGLang's host pool, so that its pages are copied "
                'by this process and by the daemon; set "allocator": "shm" in the extra config'
            )
            return None
        begin = backing.offset % PAGE_BYTES
        pieces = [
            Piece(begin + piece.address - span.address, stride, piece.bytes)
            for piece, stride in zip(pages.first, pages.strides)
        ]
        try:
            return self._session.region(
                backing.fd,
                begin + span.bytes,
                pages.count,
                pieces,
                offset=backing.offset - begin,
            )
        finally:
            os.close(backing.fd)

    def _record(self, pool: Any, pages: PoolPages) -> NamespaceRecord:
        config, extra = self._config, self._extra
        facts = Facts("SGLang")
        mla = bool(getattr(config, "is_mla_model", False))
        fields = {
            "model": facts.need("model", extra.get("model") or config.model_name),
            "weights_revision": facts.need("weights_revision", extra.get("weights_revision")),
            "kv_dtype": facts.need(
                "kv_dtype", extra.get("kv_dtype") or getattr(pool, "dtype", None)
            ),
            "engine_format": facts.need(
                "engine_format", extra.get("engine_format") or _sglang_version()
            ),
            "quantization": str(extra.get("quantization", "")),
            "hash_algorithm": str(extra.get("hash_algorithm", "sha256")),
            "layout": "-".join(
                ["sglang", pool.layout, *(str(piece.bytes) for piece in pages.first)]
            ),
            # SGLang's own file backend tells ranks apart in the same way.
            "parallel": ",".join(
                f"{name}={_of(config, name + '_rank', 0)}/{_of(config, name + '_size', 1)}"
                for name in ("pp", "attn_cp")
            ),
        }
        for name in ("layer_num", "head_num", "head_dim", "start_layer", "end_layer"):
            facts.label(name, getattr(pool, name, None))
        shard = {"sharding": Sharding.REPLICATED}
        if not mla:
            shard = {
                "sharding": Sharding.SHARDED,
                "shard_count": _of(config, "tp_size", 1),
                "shard_rank": _of(config, "tp_rank", 0),
            }
        return NamespaceRecord(
            block_tokens=pages.tokens,
            block_bytes=pages.bytes,
            labels=facts.seal(),
            **fields,
            **shard,
        )

    # ------------------------------------------------------------ pages by number (interface_v1)

    @never_raises(lambda *_, **__: 0)
    def batch_exists(self, keys: List[str], extra_info: Any = None) -> int:
        """How many pages from the first on are there."""
        if not keys or self._namespace is None:
            return 0
        part = Part(self._namespace, _forms(keys), Rule.PREFIX)
        call = self._session.probe(
            [part], hold_s=self._limits["hold_s"], deadline_s=self._limits["exists_deadline_s"]
        )
        self._session.wait(call)
        self._notice("exists", call.answer)
        found = call.answer.found()
        count = found.index(False) if False in found else len(found)
        self._tally.add("pages_asked", len(keys))
        self._tally.add("pages_found", count)
        return count

    @never_raises(_all_false)
    def batch_get_v1(
        self, keys: List[str], host_indices: Any, extra_info: Any = None
    ) -> List[bool]:
        """Into the pages of the pool that begin at every page_size-th index."""
        numbers = self._page_numbers(keys, host_indices)
        forms = _forms(keys)
        if self._region is not None:
            part = Part(self._namespace, forms, region=self._region, blocks=numbers)
            call = self._session.get([part], deadline_s=self._limits["get_deadline_s"])
            # SGLang frees pages that did not come: not before the daemon has let go of them.
            self._session.wait(call, done=True)
            self._notice("get", call.answer)
            got = call.answer.delivered_whole(self._pages.bytes)
        else:
            blocks = [self._pages.page(number) for number in numbers]
            got = self._copies.get(self._namespace, forms, blocks, self._limits["get_deadline_s"])
        return self._counted(got, "pages_got", "pages_missed")

    @never_raises(_all_false)
    def batch_set_v1(
        self, keys: List[str], host_indices: Any, extra_info: Any = None
    ) -> List[bool]:
        """From the pages of the pool that begin at every page_size-th index."""
        if self._is_written_by_another():
            return [True] * len(keys)
        numbers = self._page_numbers(keys, host_indices)
        forms = _forms(keys)
        before = getattr(extra_info, "prefix_keys", None)
        parent = _forms(before[-1:])[0] if before else b""
        if self._region is not None:
            part = Part(
                self._namespace,
                forms,
                Rule.PREFIX,
                region=self._region,
                blocks=numbers,
                first_token=len(before or ()) * self._pages.tokens,
            )
            call = self._session.put(
                part, parent=parent, deadline_s=self._limits["set_deadline_s"]
            )
            self._session.wait(call, done=True)
            self._notice("set", call.answer)
            kept = call.answer.kept()
        else:
            blocks = [self._pages.page(number) for number in numbers]
            kept = self._copies.put(
                self._namespace, forms, blocks, self._limits["set_deadline_s"], parent
            )
        return self._counted(kept, "pages_set", "pages_not_set")

    # ------------------------------------------------------------ pages by tensor

    @never_raises(lambda *_, **__: None)
    def get(
        self, key: str, target_location: Any = None, target_sizes: Any = None
    ) -> Optional[Any]:
        """Fills the tensor `target_location` and returns it; None: not there, or no tensor was
        given."""
        found = self.batch_get([key], [target_location], [target_sizes])
        return found[0]

    @never_raises(lambda keys, *_, **__: [None] * len(keys))
    def batch_get(
        self, keys: List[str], target_locations: Any = None, target_sizes: Any = None
    ) -> List[Optional[Any]]:
        """As `get`, for a tensor a key."""
        targets = list(target_locations or [None] * len(keys))
        wanted = [position for position, target in enumerate(targets) if target is not None]
        if self._namespace is None or len(targets) != len(keys) or not wanted:
            return [None] * len(keys)
        got = self._copies.get(
            self._namespace,
            [key_forms.of_text(keys[position]) for position in wanted],
            [[_span_of_tensor(targets[position])] for position in wanted],
            self._limits["get_deadline_s"],
        )
        self._counted(got, "pages_got", "pages_missed")
        came = {position for position, ok in zip(wanted, got) if ok}
        return [target if place in came else None for place, target in enumerate(targets)]

    @never_raises(lambda *_, **__: False)
    def set(
        self,
        key: str,
        value: Any = None,
        target_location: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        return self.batch_set([key], [value], [target_location], [target_sizes])

    @never_raises(lambda *_, **__: False)
    def batch_set(
        self,
        keys: List[str],
        values: Any = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Stores contiguous tensors of host memory; True where all are stored."""
        if self._is_written_by_another():
            return True
        tensors = list(values or [])
        if self._namespace is None or len(tensors) != len(keys) or any(t is None for t in tensors):
            return False
        kept = self._copies.put(
            self._namespace,
            _forms(keys),
            [[_span_of_tensor(tensor)] for tensor in tensors],
            self._limits["set_deadline_s"],
        )
        return all(self._counted(kept, "pages_set", "pages_not_set"))

    @never_raises(lambda *_, **__: False)
    def exists(self, key: str) -> bool:
        return self.batch_exists([key]) == 1

    # ------------------------------------------------------------ the rest

    @never_raises(lambda *_, **__: None)
    def clear(self) -> None:
        """All pages of this model, rank and layout become misses, for everybody who shares them."""
        if self._namespace is not None:
            call = self._session.clear(self._namespace, deadline_s=self._limits["set_deadline_s"])
            self._session.wait(call)
            self._notice("clear", call.answer)

    def get_stats(self) -> None:
        """SGLang's StorageMetrics times batches; `counters` has what this backend counts."""
        return None

    def counters(self) -> Dict[str, int]:
        return self._tally.totals()

    def close(self) -> None:
        """When SGLang's storage threads have ended."""
        if self._region is not None:
            self._session.unregister(self._region, timeout_s=2.0)
        self._session.close()

    # ------------------------------------------------------------ inside

    def _is_written_by_another(self) -> bool:
        same_bytes = bool(getattr(self._config, "is_mla_model", False))
        return same_bytes and _of(self._config, "tp_rank", 0) != 0

    def _page_numbers(self, keys: Sequence[str], host_indices: Any) -> List[int]:
        if self._pages is None:
            raise ValueError("no host pool was registered")
        tokens = self._pages.tokens
        firsts = host_indices[::tokens]
        firsts = firsts.tolist() if hasattr(firsts, "tolist") else list(firsts)
        numbers = [int(first) // tokens for first in firsts]
        if len(numbers) != len(keys) or len(host_indices) != len(keys) * tokens:
            raise ValueError(f"{len(keys)} keys, {len(host_indices)} indexes, pages of {tokens}")
        if any(first % tokens for first in firsts):
            raise ValueError("pages that do not begin at a multiple of the page size")
        return numbers

    def _counted(self, good: List[bool], yes: str, no: str) -> List[bool]:
        count = sum(good)
        self._tally.add(yes, count)
        self._tally.add(no, len(good) - count)
        return good

    def _notice(self, what: str, answer: Optional[Answer]) -> None:
        if answer is not None and answer.status not in (Status.OK, Status.UNAVAILABLE):
            self._complaints.say(f"{what}: {answer.status.name}: {answer.error}")


def _forms(keys: Sequence[str]) -> List[bytes]:
    """All of one length; SGLang's hashes have 32 bytes, and so has what stands for any other
    key."""
    forms = [key_forms.of_text(key) for key in keys]
    if all(len(form) == 32 for form in forms):
        return forms
    return [form if len(form) == 32 else key_forms.digest(form) for form in forms]


def _span_of_tensor(tensor: Any) -> Span:
    if not tensor.is_contiguous() or getattr(tensor, "is_cuda", False):
        raise ValueError("tensors must be contiguous and of host memory")
    return Span(int(tensor.data_ptr()), int(tensor.numel()) * int(tensor.element_size()))


def _of(config: Any, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    return otherwise if value is None else int(value)


def _sglang_version() -> Optional[str]:
    try:
        from sglang import __version__
    except ImportError:
        return None
    return f"sglang-{__version__}"
