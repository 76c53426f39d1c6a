"""Rows of vLLM's CPU region, a chunk each, loaded and stored by the daemon or, failing that, by
copies."""
import logging
import os
import queue
from typing import Any, Iterable, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from terrace import abi
from terrace.abi import PutOutcome, Rule
from terrace.answer import Answer
from terrace.backing import PAGE_BYTES, Span, backing_of, span_of
from terrace.calls import Namespace, Part, Region
from terrace.copies import CopiedBlocks
from terrace.session import Piece, Session
from terrace.workers import Workers

logger = logging.getLogger(__name__)

MOST_KEYS = 256  # of a call: what fails together when its deadline passes
_COPY_THREADS = 2
_MOST_WAITING = 1024

# The context of a copied job, which keys are good, and whether anybody answered.
Ended = Tuple[Any, List[bool], bool]


class Chain(NamedTuple):
    """Where keys of a store lie in their request. `parent`: the key before the first; none where it
    is empty."""

    parent: bytes = b""
    first_token: int = 0
    end_tokens: Optional[List[int]] = None


class Rows(Protocol):
    row_bytes: int

    def load(self, namespace: Namespace, keys: List[bytes], rows: List[int], context: Any) -> None:
        """Into the rows. Its end comes from the session's advance, or from `ended`."""

    def store(
        self,
        namespace: Namespace,
        keys: List[bytes],
        rows: List[int],
        chain: Optional[Chain],
        context: Any,
    ) -> None:
        """From the rows; without a chain, keys are in no order."""

    def ended(self, timeout_s: float) -> Iterable[Ended]:
        """Copies that have ended; none where the daemon copies."""

    def copied(self) -> bool:
        """Whether copies are what is waited for."""

    def close(self) -> None:
        """When nothing is under way."""


def shape_of(view: Optional[memoryview]) -> Tuple[int, int]:
    """Count and bytes of the rows. Raises ValueError for what is no array of rows of bytes."""
    if not isinstance(view, memoryview) or view.ndim != 2 or view.itemsize != 1:
        raise ValueError("primary_kv_view: must be a memoryview of (chunks, bytes of a row)")
    if not view.c_contiguous or view.readonly:
        raise ValueError("primary_kv_view: must be contiguous and writable")
    count, row_bytes = view.shape
    if not 0 < row_bytes <= abi.MOST_BLOCK_BYTES or count == 0:
        raise ValueError(
            f"primary_kv_view: rows of {row_bytes} bytes; Terrace takes 1 to "
            f"{abi.MOST_BLOCK_BYTES}, so choose fewer blocks_per_chunk"
        )
    return count, row_bytes


def open_rows(
    session: Session,
    view: memoryview,
    count: int,
    row_bytes: int,
    limits: Tuple[float, float],
) -> Rows:
    """`limits`: seconds for a load and for a store."""
    span = span_of(view, writable=True)
    backing = backing_of(span)
    if backing is None:
        logger.warning(
            "terrace: no descriptor leads to vLLM's CPU region, so that its chunks are copied by "
            "threads of this process, and by the daemon: a copy more of each"
        )
        return _CopiedRows(session, span, row_bytes, limits)
    try:
        region = _register(session, backing.fd, backing.offset, count, row_bytes)
    finally:
        os.close(backing.fd)
    return _RegionRows(session, region, limits)


def _register(session: Session, fd: int, offset: int, count: int, row_bytes: int) -> Region:
    begin = offset % PAGE_BYTES
    return session.region(
        fd,
        begin + count * row_bytes,
        count,
        [Piece(begin, row_bytes, row_bytes)],
        offset=offset - begin,
    )


def not_failed(answer: Answer) -> List[bool]:
    """Of a put: which keys did not fail. What was declined is not kept, and no fault."""
    if not answer.outcomes or not answer.ok:
        return [False] * answer.key_count
    return [outcome not in (PutOutcome.FAILED, PutOutcome.NONE) for outcome in answer.outcomes]


class _RegionRows:
    """The daemon copies."""

    def __init__(self, session: Session, region: Region, limits: Tuple[float, float]) -> None:
        self._session = session
        self._region = region
        self._load_deadline_s, self._store_deadline_s = limits
        self.row_bytes = region.block_bytes

    def load(self, namespace: Namespace, keys: List[bytes], rows: List[int], context: Any) -> None:
        part = Part(namespace, keys, region=self._region, blocks=rows)
        self._session.get([part], deadline_s=self._load_deadline_s, context=("load", context))

    def store(
        self,
        namespace: Namespace,
        keys: List[bytes],
        rows: List[int],
        chain: Optional[Chain],
        context: Any,
    ) -> None:
        part = Part(namespace, keys, region=self._region, blocks=rows)
        if chain is not None:
            part = part._replace(
                rule=Rule.PREFIX, first_token=chain.first_token, end_tokens=chain.end_tokens
            )
        parent = chain.parent if chain is not None else b""
        limit, told = self._store_deadline_s, ("store", context)
        self._session.put(part, parent=parent, deadline_s=limit, context=told)

    def ended(self, timeout_s: float) -> Iterable[Ended]:
        return ()

    def copied(self) -> bool:
        return False

    def close(self) -> None:
        self._session.unregister(self._region, timeout_s=1.0)


class _CopiedRows:
    """Threads of this process copy."""

    def __init__(
        self, session: Session, span: Span, row_bytes: int, limits: Tuple[float, float]
    ) -> None:
        self._copies = CopiedBlocks(session)
        self._span = span
        self._load_deadline_s, self._store_deadline_s = limits
        self._workers = Workers("terrace-vllm-copies", _COPY_THREADS, _MOST_WAITING)
        self._ended: "queue.SimpleQueue[Ended]" = queue.SimpleQueue()
        self._under_way = 0
        self.row_bytes = row_bytes

    def load(self, namespace: Namespace, keys: List[bytes], rows: List[int], context: Any) -> None:
        blocks = self._blocks(rows)
        self._begin(
            context,
            len(keys),
            lambda: self._copies.get(namespace, keys, blocks, self._load_deadline_s),
        )

    def store(
        self,
        namespace: Namespace,
        keys: List[bytes],
        rows: List[int],
        chain: Optional[Chain],
        context: Any,
    ) -> None:
        blocks = self._blocks(rows)
        parent = chain.parent if chain is not None else b""
        self._begin(
            context,
            len(keys),
            lambda: self._copies.put(namespace, keys, blocks, self._store_deadline_s, parent),
        )

    def ended(self, timeout_s: float) -> Iterable[Ended]:
        ended: List[Ended] = []
        try:
            if timeout_s > 0 and self._under_way:
                ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        self._under_way -= len(ended)
        return ended

    def copied(self) -> bool:
        return self._under_way > 0

    def close(self) -> None:
        self._workers.close(timeout_s=2.0)

    def _blocks(self, rows: Sequence[int]) -> List[List[Span]]:
        first, size, count = self._span.address, self.row_bytes, self._span.bytes // self.row_bytes
        if rows and not 0 <= min(rows) <= max(rows) < count:
            raise ValueError(f"rows: {min(rows)} to {max(rows)} of {count}")
        return [[Span(first + row * size, size)] for row in rows]

    def _begin(self, context: Any, key_count: int, copy: Any) -> None:
        def work() -> None:
            good = [False] * key_count
            try:
                good = copy()
            finally:
                self._ended.put((context, good, True))

        if not self._workers.submit(work):
            self._ended.put((context, [False] * key_count, False))
        self._under_way += 1
