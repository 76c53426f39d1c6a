"""What became of a call: a completion of libterrace, copied out, so that nothing of the library
is held."""
import ctypes
import weakref
from array import array
from typing import Iterator, List, NamedTuple, Optional

from terrace import abi
from terrace.abi import GetOutcome, KeyState, PutOutcome, Status

_DELIVERED = GetOutcome.OK
_KEPT = (PutOutcome.STORED, PutOutcome.DUPLICATE)
_STATE_MASK = 0x0F


class Answer(NamedTuple):
    """Per-key fields are parallel to the keys of the call, part after part; empty where the verb
    has none.

    A call that did not reach the daemon has misses, or nothing stored, throughout.
    """

    status: Status
    error: str
    key_count: int = 0
    states: bytes = b""  # probe: KeyState in the low four bits, index of the tier in the high four
    outcomes: bytes = b""  # get: GetOutcome; put: PutOutcome
    reasons: bytes = b""  # put, pin: Reason
    levels: bytes = b""  # put: Level
    payload_bytes: array = array("I")  # get
    addresses: array = array("Q")  # get by lease; 0: not delivered
    lease_id: bytes = b""
    hold_id: bytes = b""  # probe, prefetch
    part_hits: array = array("I")  # probe
    boundary_tokens: int = 0
    worth_tokens: int = 0
    load_us: int = 0
    recompute_us: int = 0
    ticket: int = 0
    ticket_state: int = 0
    keys_arrived: int = 0
    keys_failed: int = 0
    count: int = 0
    generation: int = 0

    @property
    def ok(self) -> bool:
        return self.status == Status.OK

    def state(self, key: int) -> KeyState:
        """Of a probed key; a miss where nobody answered."""
        return KeyState(self.states[key] & _STATE_MASK) if self.states else KeyState.MISS

    def found(self) -> List[bool]:
        """Which keys a get could deliver: now, when a put under way ends, or from a lower tier."""
        held = (KeyState.READY, KeyState.PENDING, KeyState.LOWER)
        if not self.states:
            return [False] * self.key_count
        return [state & _STATE_MASK in held for state in self.states]

    def delivered(self) -> List[bool]:
        """Which keys a get delivered."""
        if not self.outcomes:
            return [False] * self.key_count
        return [outcome == _DELIVERED for outcome in self.outcomes]

    def delivered_whole(self, block_bytes: int) -> List[bool]:
        """Which keys a get delivered with just so many bytes."""
        sizes = self.payload_bytes
        return [
            ok and bool(sizes) and sizes[key] == block_bytes
            for key, ok in enumerate(self.delivered())
        ]

    def kept(self) -> List[bool]:
        """Which keys are stored after a put, by it or before it."""
        if not self.outcomes:
            return [False] * self.key_count
        return [outcome in _KEPT for outcome in self.outcomes]


def unanswered(status: Status, error: str, key_count: int) -> Answer:
    return Answer(status=status, error=error, key_count=key_count)


def copied(done: abi.Completion) -> Answer:
    """The completion's answer; the completion may be freed afterwards."""
    count, parts = done.key_count, done.part_count
    return Answer(
        status=_status(done.status),
        error=(done.error or b"").decode(errors="replace"),
        key_count=count,
        states=_bytes(done.states, count),
        outcomes=_bytes(done.outcomes, count),
        reasons=_bytes(done.reasons, count),
        levels=_bytes(done.levels, count),
        payload_bytes=_array("I", done.payload_bytes, count),
        addresses=_array("Q", done.data, count),
        lease_id=_id(done.lease),
        hold_id=_id(done.hold),
        part_hits=_array("I", done.part_hits, parts),
        boundary_tokens=done.boundary_tokens,
        worth_tokens=done.worth_tokens,
        load_us=done.load_us,
        recompute_us=done.recompute_us,
        ticket=done.ticket,
        ticket_state=done.ticket_state,
        keys_arrived=done.keys_arrived,
        keys_failed=done.keys_failed,
        count=done.count,
        generation=done.generation,
    )


def _status(value: int) -> Status:
    try:
        return Status(value)
    except ValueError:
        return Status.INTERNAL


def _bytes(pointer: Optional[int], count: int) -> bytes:
    return ctypes.string_at(pointer, count) if pointer else b""


def _array(code: str, pointer: Optional[int], count: int) -> array:
    copy = array(code)
    if pointer:
        copy.frombytes(ctypes.string_at(pointer, count * copy.itemsize))
    return copy


def _id(value: "ctypes.Array") -> bytes:
    found = bytes(value)
    return found if any(found) else b""


class Lease:
    """Blocks of the daemon, mapped read-only, which stay as they are until the lease is released.

    Views keep the lease alive. `release` ends them: where something else still reads one (an array
    of numpy, a slice of it), it raises BufferError, and the blocks stay until it is called again.
    """

    def __init__(self, session: "object", answer: Answer) -> None:
        self._session = session
        self._answer = answer
        self._id = answer.lease_id
        self._views: List["weakref.ref[memoryview]"] = []
        self._memories: List["weakref.ref[ctypes.Array]"] = []

    def __len__(self) -> int:
        return self._answer.key_count

    def __iter__(self) -> Iterator[Optional[memoryview]]:
        return (self.view(key) for key in range(len(self)))

    def address(self, key: int) -> int:
        """Where the block of a key lies; 0: not delivered, or released."""
        return self._answer.addresses[key] if self._id and self._answer.addresses else 0

    def bytes(self, key: int) -> int:
        return self._answer.payload_bytes[key]

    def view(self, key: int) -> Optional[memoryview]:
        """The block of a key, to read; None where it was not delivered."""
        address = self.address(key)
        if not address:
            return None
        memory = (ctypes.c_ubyte * self.bytes(key)).from_address(address)
        memory.lease = self  # for as long as anything reads there
        view = memoryview(memory).cast("B").toreadonly()
        self._views.append(weakref.ref(view))
        self._memories.append(weakref.ref(memory))
        return view

    def release(self) -> None:
        """Gives the blocks back; idempotent."""
        for reference in self._views:
            view = reference()
            if view is not None:
                view.release()
                del view
        self._views = []
        self._memories = [memory for memory in self._memories if memory() is not None]
        if self._memories:
            raise BufferError("a part of a view of this lease is still in use")
        lease_id, self._id = self._id, b""
        if lease_id:
            self._session.release(leases=[lease_id])

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self._id:
            self._session.release_later(self._id)
