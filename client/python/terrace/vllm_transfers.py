"""The worker's half of vLLM's connector: its memory as regions, and the loads and saves of it.

A request's load is reported when no copy can touch its blocks any more, and so is the end of its
saves; blocks that are about to be given to others are waited for. Orders come faster than they end:
they wait in bounded queues, loads before saves. Confined to the worker's thread.
"""
import ctypes
import logging
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Set, Tuple

from terrace import abi
from terrace.abi import Rule, Status
from terrace.calls import Call, Namespace, Part, Region
from terrace.cuda import Allocation, Cuda, Mark
from terrace.record import NamespaceRecord
from terrace.session import Session
from terrace.tally import Complaints, Tally
from terrace.vllm_geometry import Layer, Run
from terrace.vllm_orders import LoadOrder, Options, SaveOrder

logger = logging.getLogger(__name__)

# Calls under way when another is begun; the daemon allows 256.
MOST_CALLS, MOST_SAVE_CALLS = 192, 96
MOST_WAITING_LOADS, MOST_WAITING_SAVES = 4096, 1024
# Of a call: what fails together when its deadline passes.
_LOAD_KEYS, _SAVE_KEYS = 2048, 256


class Share(NamedTuple):
    """What of every block lies in one allocation."""

    allocation: Allocation
    runs: List[Run]
    runs_per_layer: int
    shape: str

    @property
    def block_bytes(self) -> int:
        return sum(run.bytes for run in self.runs)


class _Place(NamedTuple):
    namespace: Namespace
    region: Region


class _Load:
    __slots__ = ("request", "blocks", "open", "bad")

    def __init__(self, order: LoadOrder) -> None:
        self.request = order.request
        self.blocks = order.blocks
        self.open = 0  # calls, and what waits to be one
        self.bad: Set[int] = set()


class _Piece(NamedTuple):
    """What becomes one call. Of a save: `place`; a load has a part for every place."""

    request: str
    load: Optional[_Load]
    first: int  # of the load's blocks
    keys: List[bytes]
    blocks: List[int]
    first_token: int
    parent: bytes
    place: int


def shares_of(cuda: Cuda, layers: List[Layer]) -> List[Share]:
    """The layers by the allocations that they lie in, in the order of the first of each. Raises
    CudaError where one cannot be shared."""
    found: Dict[int, Tuple[Allocation, List[Layer]]] = {}
    seen: Set[Tuple[Run, ...]] = set()
    for layer in layers:
        if tuple(layer.runs) in seen:
            continue  # layers that share what they keep
        seen.add(tuple(layer.runs))
        allocation = cuda.allocation_of(layer.runs[0].address)
        found.setdefault(allocation.address, (allocation, []))[1].append(layer)
    shares = []
    for allocation, members in found.values():
        runs = [run for layer in members for run in layer.runs]
        counts = {len(layer.runs) for layer in members}
        shape = ",".join(layer.shape for layer in members)
        shares.append(Share(allocation, runs, counts.pop() if len(counts) == 1 else 0, shape))
    return shares


class Transfers:
    """See the module. `writes`: whether this rank saves; all load."""

    def __init__(
        self, session: Session, options: Options, writes: bool, tally: Tally, complaints: Complaints
    ) -> None:
        self._session = session
        self._options = options
        self._writes = writes
        self._tally = tally
        self._complaints = complaints
        self._cuda: Optional[Cuda] = None
        self._stream: Callable[[], int] = lambda: 0
        self._places: List[_Place] = []
        self._waiting: Dict[bool, Deque[_Piece]] = {True: deque(), False: deque()}  # by is_load
        self._under_way: Dict[bool, int] = {True: 0, False: 0}
        self._saving: Dict[str, Set[Call]] = {}
        self._queued: Dict[str, int] = {}  # pieces of saves that wait, by request
        self._ordered: Set[str] = set()
        self._over: Set[str] = set()  # ordered and finished: to be told when saved
        self._received: Set[str] = set()
        self._errors: Set[int] = set()
        self._failed: Set[str] = set()

    def open(
        self,
        cuda: Cuda,
        stream: Callable[[], int],
        shares: List[Share],
        records: List[NamespaceRecord],
        block_count: int,
    ) -> None:
        """Registers the memory. `stream`: that of the engine's kernels. Raises ValueError."""
        places = []
        for share, record in zip(shares, records):
            namespace = self._session.namespace(record)
            region = _register(self._session, cuda, share, block_count)
            places.append(_Place(namespace, region))
        self._cuda, self._stream, self._places = cuda, stream, places

    # ------------------------------------------------------------ orders

    def load(self, orders: List[LoadOrder]) -> None:
        """Begins them; what the engine has given its stream so far comes first."""
        for order in orders:
            load = _Load(order)
            room = max(1, min(_LOAD_KEYS, abi.MOST_KEYS // max(1, len(self._places))))
            waits = len(self._waiting[True]) < MOST_WAITING_LOADS
            if not self._places or not order.keys or not waits:
                load.bad.update(range(len(order.blocks)))
                self._loaded(load)
                continue
            for at in range(0, len(order.keys), room):
                keys, blocks = order.keys[at : at + room], order.blocks[at : at + room]
                piece = _Piece(order.request, load, at, keys, blocks, 0, b"", 0)
                load.open += 1
                self._waiting[True].append(piece)
        self._start()

    def save(self, orders: List[SaveOrder], block_tokens: int) -> None:
        """Begins them, after what the engine has given its stream so far, which computes them."""
        self._ordered.update(order.request for order in orders)
        for order in orders:
            if not self._writes or not self._places:
                continue
            for at in range(0, len(order.keys), _SAVE_KEYS):
                self._queue_save(order, at, block_tokens)
        self._start()

    def _queue_save(self, order: SaveOrder, at: int, block_tokens: int) -> None:
        keys, blocks = order.keys[at : at + _SAVE_KEYS], order.blocks[at : at + _SAVE_KEYS]
        token = order.first_token + at * block_tokens
        parent = order.keys[at - 1] if at else order.parent
        if len(self._waiting[False]) + len(self._places) > MOST_WAITING_SAVES:
            self._tally.add("dropped_blocks", len(keys))
            return
        for place in range(len(self._places)):
            piece = _Piece(order.request, None, 0, keys, blocks, token, parent, place)
            self._waiting[False].append(piece)
            self._queued[order.request] = self._queued.get(order.request, 0) + 1

    def preempted(self, requests: Set[str]) -> None:
        """Returns when nothing reads their blocks any more. Raises RuntimeError where that is not
        so for a minute: the daemon stands still, and when it goes on would store what others have
        written there."""
        for request in requests:
            self._forget_waiting(request)
            self._ordered.discard(request)
            self._over.discard(request)
            for call in self._saving.get(request, ()):
                self._session.cancel(call)
        until = time.monotonic() + self._options.preempt_limit_s
        while any(self._saving.get(request) for request in requests):
            if time.monotonic() > until:
                raise RuntimeError(
                    "terrace: blocks that vLLM is about to overwrite are still being copied; "
                    "terraced stands still"
                )
            self._take(self._session.advance(0.05))
        self._start()

    def _forget_waiting(self, request: str) -> None:
        if not self._queued.pop(request, 0):
            return
        kept: Deque[_Piece] = deque()
        for piece in self._waiting[False]:
            if piece.request == request:
                self._tally.add("dropped_blocks", len(piece.keys))
            else:
                kept.append(piece)
        self._waiting[False] = kept

    # ------------------------------------------------------------ what has ended

    def finished(self, requests: Set[str]) -> Tuple[Set[str], Set[str]]:
        """`requests`: that have finished since the last time. Which of all those are saved, and
        which requests are loaded, for better or worse."""
        self._take(self._session.advance())
        self._start()
        self._over |= requests & self._ordered
        sent = {r for r in self._over if not self._saving.get(r) and not self._queued.get(r)}
        self._over -= sent
        self._ordered -= sent
        received, self._received = self._received, set()
        return sent, received

    def errors(self) -> Set[int]:
        """Blocks of loads that `finished` has told of, which hold nothing that may be used."""
        errors, self._errors = self._errors, set()
        return errors

    def failed(self) -> Set[str]:
        """The requests of these."""
        failed, self._failed = self._failed, set()
        return failed

    def idle(self) -> bool:
        return not (sum(self._under_way.values()) or any(self._waiting.values()))

    def close(self, timeout_s: float) -> None:
        """Until nothing touches the memory, or the time is over."""
        until = time.monotonic() + timeout_s
        for waiting in self._waiting.values():
            waiting.clear()
        for calls in self._saving.values():
            for call in calls:
                self._session.cancel(call)
        for place in self._places:
            left = max(0.1, until - time.monotonic())
            if not self._session.unregister(place.region, left):
                logger.warning("terrace: the daemon may still touch the KV cache")
        self._places = []

    # ------------------------------------------------------------ inside

    def _start(self) -> None:
        """Begins what there is room for."""
        marks: List[Mark] = []  # one for all calls of this time
        for is_load in (True, False):
            waiting = self._waiting[is_load]
            while waiting and sum(self._under_way.values()) < MOST_CALLS:
                if not is_load and self._under_way[False] >= MOST_SAVE_CALLS:
                    break
                self._begin(waiting.popleft(), marks)
        for mark in marks:
            self._unmark(mark)

    def _begin(self, piece: _Piece, marks: List[Mark]) -> None:
        if piece.load is None:
            self._queued[piece.request] -= 1
            if not self._queued[piece.request]:
                del self._queued[piece.request]
        try:
            mark = self._marked(marks)
            submit = self._put if piece.load is None else self._get
            mark.users += 1
            try:
                call = submit(piece, mark)
            except BaseException:
                self._unmark(mark)
                raise
        except Exception as error:  # of whatever kind, it must not end the engine's step
            self._complaints.say(f"a transfer could not be begun: {error}", exception=True)
            if piece.load is None:
                self._tally.add("failed_save_blocks", len(piece.keys))
            else:
                self._ended_load(piece, [False] * len(piece.keys))
            return
        self._under_way[piece.load is not None] += 1
        if piece.load is None:
            self._saving.setdefault(piece.request, set()).add(call)

    def _marked(self, marks: List[Mark]) -> Mark:
        if not marks:
            mark = self._cuda.mark(self._stream())
            mark.users = 1  # this time
            marks.append(mark)
        return marks[0]

    def _unmark(self, mark: Mark) -> None:
        mark.users -= 1
        if mark.users == 0:
            self._cuda.give_back(mark)

    def _get(self, piece: _Piece, mark: Mark) -> Call:
        parts = [
            Part(
                place.namespace,
                piece.keys,
                Rule.PREFIX,
                region=place.region,
                blocks=piece.blocks,
                after_event=mark.handle,
            )
            for place in self._places
        ]
        deadline_s = self._options.load_deadline_s
        return self._session.get(parts, deadline_s=deadline_s, context=(piece, mark))

    def _put(self, piece: _Piece, mark: Mark) -> Call:
        place = self._places[piece.place]
        part = Part(
            place.namespace,
            piece.keys,
            Rule.PREFIX,
            region=place.region,
            blocks=piece.blocks,
            first_token=piece.first_token,
            after_event=mark.handle,
        )
        deadline_s = self._options.save_deadline_s
        return self._session.put(
            part, parent=piece.parent, deadline_s=deadline_s, context=(piece, mark)
        )

    def _take(self, calls: List[Call]) -> None:
        for call in calls:
            piece, mark = call.context
            self._unmark(mark)
            answer = call.answer
            self._under_way[piece.load is not None] -= 1
            if answer.status not in (Status.OK, Status.UNAVAILABLE, Status.CANCELLED):
                kind = "save" if piece.load is None else "load"
                self._complaints.say(f"{kind}: {answer.status.name}: {answer.error}")
            if piece.load is None:
                self._saved(piece, call)
            else:
                self._ended_load(piece, self._delivered(call, len(piece.keys)))

    def _delivered(self, call: Call, count: int) -> List[bool]:
        """Of each key, whether all places have it, whole."""
        good = [True] * count
        outcomes, sizes = call.answer.delivered(), call.answer.payload_bytes
        for number, place in enumerate(self._places):
            for key in range(count):
                at = number * count + key
                whole = outcomes[at] and bool(sizes) and sizes[at] == place.region.block_bytes
                good[key] = good[key] and whole
        return good

    def _saved(self, piece: _Piece, call: Call) -> None:
        calls = self._saving.get(piece.request, set())
        calls.discard(call)
        if not calls:
            self._saving.pop(piece.request, None)
        kept = sum(call.answer.kept())
        self._tally.add("saved_blocks", kept)
        self._tally.add("failed_save_blocks", len(piece.keys) - kept)

    def _ended_load(self, piece: _Piece, good: List[bool]) -> None:
        load = piece.load
        load.bad.update(piece.first + key for key, ok in enumerate(good) if not ok)
        load.open -= 1
        if load.open == 0:
            self._loaded(load)

    def _loaded(self, load: _Load) -> None:
        self._received.add(load.request)
        self._tally.add("loaded_blocks", len(load.blocks) - len(load.bad))
        if load.bad:
            self._tally.add("failed_load_blocks", len(load.bad))
            self._errors.update(load.blocks[index] for index in load.bad)
            self._failed.add(load.request)


def _register(session: Session, cuda: Cuda, share: Share, block_count: int) -> Region:
    begin = min(run.address for run in share.runs)
    end = max(run.address + run.stride * (block_count - 1) + run.bytes for run in share.runs)
    allocation = share.allocation
    if begin < allocation.address or end > allocation.address + allocation.bytes:
        raise ValueError("a layer of the KV cache lies in more than one allocation")
    segments = [abi.Segment(0, run.bytes) for run in share.runs]
    planes = (abi.Plane * len(share.runs))()
    for plane, run, segment in zip(planes, share.runs, segments):
        plane.offset, plane.block_stride = run.address - begin, run.stride
        plane.segments, plane.segment_count = ctypes.pointer(segment), 1
    handle = ctypes.create_string_buffer(allocation.handle, abi.HANDLE_BYTES)
    return session.region_of(
        abi.RegionSpec(
            fd=-1,
            offset=begin - allocation.address,
            bytes=end - begin,
            block_count=block_count,
            planes=planes,
            plane_count=len(share.runs),
            memory=int(abi.Memory.CUDA_IPC),
            handle=ctypes.addressof(handle),
            device_uuid=(ctypes.c_uint8 * 16)(*cuda.uuid),
            allocation_bytes=allocation.bytes,
            planes_per_layer=share.runs_per_layer,
        )
    )
