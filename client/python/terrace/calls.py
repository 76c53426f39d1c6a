"""Calls under way: who waits for which answer, and when their memory is free again.

A call that reads or writes memory of this process through a region is *done* only when no copy can
touch that memory any more. Past its deadline it is answered, and stays undone until the daemon has
confirmed that it let go, or is gone: a daemon that was stopped and goes on would else write into
memory that the engine has long given to another request.
"""
import ctypes
import os
import threading
import time
from array import array
from collections import deque
from ctypes import byref, c_uint64, c_void_p
from typing import Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from terrace import abi
from terrace.abi import Rule, Status
from terrace.answer import Answer, copied, unanswered

_DRAIN_AT_ONCE = 64
# A thread that drains for others looks this often whether the session is to be closed.
_SLICE_S = 0.2
# After a cancel that nobody confirmed.
_CONFIRM_AGAIN_S = 0.1


class Namespace(NamedTuple):
    """Blocks that are exchangeable with each other, by the number that the session gave them."""

    number: int
    block_bytes: int


class Region(NamedTuple):
    """Memory that calls can name blocks of."""

    number: int
    block_count: int
    block_bytes: int


class Part(NamedTuple):
    """One namespace's share of a call. Keys are of one length; `blocks` are indexes into the
    region. `after_event`, for memory of a GPU: the 64 bytes that name an event which copies wait
    for."""

    namespace: Namespace
    keys: Sequence[bytes]
    rule: Rule = Rule.INDEPENDENT
    salt: bytes = b""
    region: Optional[Region] = None
    blocks: Optional[Sequence[int]] = None
    first_token: int = 0
    end_tokens: Optional[Sequence[int]] = None
    window_tokens: int = 0
    after_event: bytes = b""


class State(NamedTuple):
    connection: abi.Connection
    boot_id: int
    reconnects: int
    calls_in_flight: int
    leased_bytes: int
    lease_limit_bytes: int
    leases_allowed: bool


class Call:
    """A call under way. `answer` is there once it is answered; `done`, once nothing of it goes
    on."""

    __slots__ = (
        "tag",
        "call_id",
        "key_count",
        "context",
        "answer",
        "done",
        "in_region",
        "then",
    )

    def __init__(self, key_count: int, context: object = None, in_region: bool = False) -> None:
        self.tag = 0
        self.call_id = c_uint64()
        self.key_count = key_count
        self.context = context
        self.answer: Optional[Answer] = None
        self.done = False
        self.in_region = in_region
        self.then: Optional[Callable[["Call"], None]] = None

    def end(self, answer: Answer) -> None:
        self.answer = self.answer or answer
        self.done = True


class CallsInFlight:
    """The calls of one client of the library. Thread-safe; owns the client.

    One thread drains at a time, for all that wait. The lock is held over submissions, which never
    wait, and not over a drain.
    """

    def __init__(self, library: ctypes.CDLL, client: c_void_p) -> None:
        self.changed = threading.Condition(threading.RLock())
        # Leases that the collector found: it may run anywhere, under any lock, so that they are
        # given back by whoever comes next.
        self.orphans: Deque[bytes] = deque()
        self._library = library
        self._client = client
        self.pid = os.getpid()
        self._draining = False
        self._closing = False
        self._next_tag = 0
        self._calls: Dict[int, Call] = {}
        self._confirming: Dict[int, Call] = {}  # by the tag of the cancel that is under way
        self._unconfirmed: List[Call] = []
        self._confirm_at = 0.0
        self._finished: List[Call] = []  # with a context, for the next advance
        self._completions = (ctypes.POINTER(abi.Completion) * _DRAIN_AT_ONCE)()

    def foreign(self) -> bool:
        """Whether there is no client to call: closed, or a child of fork."""
        return self._closing or os.getpid() != self.pid

    @property
    def unconfirmed(self) -> int:
        """Calls that are answered and not done."""
        with self.changed:
            return len(self._confirming) + len(self._unconfirmed)

    def close(self) -> None:
        if os.getpid() != self.pid:
            self._closing = True  # the lock may have been held when the process forked
            return
        with self.changed:
            if self._closing:
                return
            self._closing = True
            self.changed.notify_all()
            while self._draining:
                self.changed.wait(_SLICE_S)
            self._library.terrace_close(self._client)
            left = [*self._calls.values(), *self._confirming.values(), *self._unconfirmed]
            self._calls, self._confirming, self._unconfirmed = {}, {}, []
            for call in left:
                call.end(unanswered(Status.CANCELLED, "the session was closed", call.key_count))
            self.changed.notify_all()

    def state(self) -> State:
        seen = abi.sized(abi.ClientState())
        if not self.foreign():
            self._release_orphans()
            self._library.terrace_state(self._client, byref(seen))
        return State(
            connection=abi.Connection(seen.connection),
            boot_id=seen.boot_id,
            reconnects=seen.reconnects,
            calls_in_flight=seen.calls_in_flight,
            leased_bytes=seen.leased_bytes,
            lease_limit_bytes=seen.lease_limit_bytes,
            leases_allowed=bool(seen.leases_allowed),
        )

    def last_error(self) -> str:
        return (self._library.terrace_last_error() or b"").decode(errors="replace")

    def submit(self, call: Call, submit: Callable[[Call], int]) -> Call:
        """Tags the call and submits it. Raises ValueError for what is wrong with its arguments;
        any other refusal is an answer."""
        if os.getpid() != self.pid:
            call.end(unanswered(Status.FAILED_PRECONDITION, "a child of fork", call.key_count))
            return call
        with self.changed:
            self._next_tag += 1
            call.tag = self._next_tag
            status, error = Status.CANCELLED, "the session is closed"
            if not self._closing:
                self._release_orphans()
                self._calls[call.tag] = call
                status = submit(call)
                error = "" if status == Status.OK else self.last_error()
            if status != Status.OK:
                self._calls.pop(call.tag, None)
                if status == Status.INVALID_ARGUMENT:
                    raise ValueError(error)
                call.answer = unanswered(Status(status), error, call.key_count)
                self._finish(call)
        return call

    def advance(self, timeout_s: float) -> List[Call]:
        if os.getpid() != self.pid:
            return []
        with self.changed:
            drains = self._begin_drain()
            if not drains and timeout_s > 0 and not self._finished and not self._closing:
                self.changed.wait(timeout_s)
        if drains:
            self._drain(timeout_s)
        with self.changed:
            finished, self._finished = self._finished, []
            return finished

    def wait(self, call: Call, timeout_s: Optional[float], done: bool) -> bool:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while os.getpid() == self.pid:
            left = _SLICE_S if until is None else min(_SLICE_S, until - time.monotonic())
            with self.changed:
                if _over(call, done):
                    return True
                if left <= 0 or self._closing:
                    return False
                drains = self._begin_drain()
                if not drains:
                    self.changed.wait(left)
            if drains:
                self._drain(left)
        return _over(call, done)

    def when_done(self, call: Call, then: Callable[[Call], None]) -> None:
        with self.changed:
            if not call.done:
                call.then = then
                return
        then(call)

    def _begin_drain(self) -> bool:
        """Under the lock; whoever is told so must call _drain."""
        if self._closing or self._draining:
            return False
        self._draining = True
        return True

    def _drain(self, timeout_s: float) -> None:
        """Waits for completions and hands them out; outside the lock while it waits."""
        found = 0
        try:
            # Nobody else changes this list while one drains but close, which waits for it.
            slice_s = min(timeout_s, _CONFIRM_AGAIN_S if self._unconfirmed else _SLICE_S)
            found = self._library.terrace_drain(
                self._client, self._completions, _DRAIN_AT_ONCE, milliseconds(slice_s)
            )
        finally:
            with self.changed:
                self._draining = False
                for index in range(found):
                    self._take(self._completions[index])
                if self._unconfirmed and not self._closing and time.monotonic() >= self._confirm_at:
                    again, self._unconfirmed = self._unconfirmed, []
                    for call in again:
                        self._confirm(call)
                if not self._closing:
                    self._release_orphans()
                self.changed.notify_all()

    def _release_orphans(self) -> None:
        while self.orphans:
            try:
                lease = self.orphans.popleft()
            except IndexError:  # another thread was there first
                return
            self._library.terrace_submit_release(self._client, lease, 1, None, 0, 0, None)

    def _take(self, completion: "ctypes._Pointer") -> None:
        try:
            tag = completion.contents.tag
            call = self._confirming.pop(tag, None)
            if call is not None:
                self._confirmed(call, completion.contents.status == Status.OK)
                return
            call = self._calls.pop(tag, None)
            if call is None:
                return
            call.answer = copied(completion.contents)
            if call.in_region and call.answer.status == Status.DEADLINE_EXCEEDED:
                self._confirm(call)
            else:
                self._finish(call)
        finally:
            self._library.terrace_completion_free(completion)

    def _confirm(self, call: Call) -> None:
        """Asks the daemon to let go of a call that was given up here: it may still be copying."""
        self._next_tag += 1
        tag = self._next_tag
        status = self._library.terrace_submit_cancel(self._client, call.call_id, 0, tag, None)
        if status == Status.OK:
            self._confirming[tag] = call
        else:
            self._confirmed(call, False)

    def _confirmed(self, call: Call, let_go: bool) -> None:
        # The library says so too of a session that is over, when nothing copies for it any more.
        if let_go:
            self._finish(call)
        else:
            self._unconfirmed.append(call)
            self._confirm_at = time.monotonic() + _CONFIRM_AGAIN_S

    def _finish(self, call: Call) -> None:
        call.done = True
        if call.context is not None:
            self._finished.append(call)
        then, call.then = call.then, None
        if then is not None:
            then(call)


def _over(call: Call, done: bool) -> bool:
    return call.done if done else call.answer is not None


def milliseconds(seconds: float) -> int:
    """Whole ones, and at least one of what is more than nothing."""
    return 0 if seconds <= 0 else max(1, min(0xFFFFFFFF, round(seconds * 1000)))


def fill(struct: abi.Part, part: Part) -> Tuple:
    """Fills the struct; what is returned must live as long as it is used. Raises ValueError."""
    keys = part.keys
    length = len(keys[0]) if keys else abi.LEAST_KEY_BYTES
    if any(len(key) != length for key in keys):
        raise ValueError("keys: of one length within a part")
    if (part.region is None) != (part.blocks is None):
        raise ValueError("blocks: with a region, and not without")
    blocks = array("I", part.blocks) if part.blocks is not None else None
    ends = array("I", part.end_tokens) if part.end_tokens is not None else None
    for name, values in (("blocks", blocks), ("end_tokens", ends)):
        if values is not None and len(values) != len(keys):
            raise ValueError(f"{name}: one a key")
    if len(part.after_event) not in (0, abi.HANDLE_BYTES):
        raise ValueError(f"after_event: {abi.HANDLE_BYTES} bytes, or none")
    event = ctypes.create_string_buffer(part.after_event) if part.after_event else None
    if blocks and max(blocks) >= part.region.block_count:
        raise ValueError(f"blocks: {max(blocks)} of a region of {part.region.block_count}")
    struct.ns = part.namespace.number
    struct.rule = int(part.rule)
    struct.salt, struct.salt_bytes = part.salt or None, len(part.salt)
    struct.keys = b"".join(keys)
    struct.key_bytes, struct.key_count = length, len(keys)
    struct.first_token = part.first_token
    struct.end_tokens = ends.buffer_info()[0] if ends else None
    struct.window_tokens = part.window_tokens
    struct.region = part.region.number if part.region is not None else 0
    struct.block_indexes = blocks.buffer_info()[0] if blocks else None
    struct.after_event = ctypes.addressof(event) if event else None
    abi.sized(struct)
    return blocks, ends, event
