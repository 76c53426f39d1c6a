"""What a node holds, as it changes: for routers, and whoever keeps a picture of it.

    with Watch() as watch:
        for event in watch:
            if event.kind == EventKind.SNAPSHOT_BEGIN:
                held.clear()
            elif event.kind in (EventKind.STORED, EventKind.MOVED):
                held.update((event.namespace, key) for key in event.keys)
            elif event.kind == EventKind.REMOVED:
                held.difference_update((event.namespace, key) for key in event.keys)
            ...

A watch has a connection of its own. It finds the daemon and the next one by itself and goes on
where it was: nothing is left out without GAP, SNAPSHOT_BEGIN or DOWN before it. Between DOWN and UP
nothing can be had from the node.

Threads: one at a time. After fork, the child gets no events.
"""
import ctypes
import os
from ctypes import byref, c_void_p
from typing import Iterator, List, NamedTuple, Optional, Sequence

from terrace import abi
from terrace.abi import Connection, EventKind, Status
from terrace.calls import milliseconds
from terrace.record import NamespaceRecord

_DIGEST_BYTES = 16
_WAIT_S = 1.0


class Event(NamedTuple):
    """As struct terrace_event; what does not belong to its kind is empty."""

    kind: EventKind
    publisher_id: int
    sequence: int
    namespace: bytes
    keys: List[bytes]
    parent: bytes
    salt: bytes
    first_token: int
    block_tokens: int
    tier: str
    record: Optional[NamespaceRecord]
    family: bytes


class Place(NamedTuple):
    """From where a later watch may go on."""

    publisher_id: int
    sequence: int


class WatchState(NamedTuple):
    connection: Connection
    place: Optional[Place]  # None: nothing to go on from
    complete: bool  # with snapshots: one has come to its end, and there was no gap since
    reconnects: int
    error: str  # why there is no connection


class Watch:
    """See the module. `snapshots`: one first, and one after each gap. `after`: of an earlier watch.
    `namespaces`: digests; none: all of the tenant's.

    Opening never waits for the daemon. Raises ValueError for wrong arguments, OSError without the
    library, MemoryError.
    """

    def __init__(
        self,
        runtime_dir: Optional[str] = None,
        client_name: str = "terrace-python",
        snapshots: bool = True,
        after: Optional[Place] = None,
        namespaces: Sequence[bytes] = (),
        heartbeat_s: float = 1.0,
        reconnect_s: float = 1.0,
        library: Optional[str] = None,
    ) -> None:
        self._watch = c_void_p()
        self._library = abi.load(library)
        if any(len(digest) != _DIGEST_BYTES for digest in namespaces):
            raise ValueError("namespaces: digests of 16 bytes")
        options = abi.WatchOptions(
            runtime_dir=os.fsencode(runtime_dir) if runtime_dir else None,
            client_name=client_name.encode(),
            reconnect_ms=milliseconds(reconnect_s),
            snapshots=int(snapshots),
            publisher_id=after.publisher_id if after else 0,
            after_sequence=after.sequence if after else 0,
            namespaces=b"".join(namespaces) or None,
            namespace_count=len(namespaces),
            heartbeat_ms=milliseconds(heartbeat_s),
        )
        status = self._library.terrace_watch_open(byref(abi.sized(options)), byref(self._watch))
        if status == Status.INVALID_ARGUMENT:
            raise ValueError(self._library.terrace_last_error().decode())
        if status != Status.OK:
            raise MemoryError(self._library.terrace_last_error().decode())

    def close(self) -> None:
        """Idempotent."""
        watch, self._watch = self._watch, c_void_p()
        self._library.terrace_watch_close(watch)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_watch", None):
            self.close()

    def next(self, timeout_s: float = 0.0) -> List[Event]:
        """Waits at most so long; those that came together, or none."""
        events = ctypes.POINTER(abi.Event)()
        count = self._library.terrace_watch_next(
            self._watch, byref(events), milliseconds(timeout_s)
        )
        return [_event_of(events[place]) for place in range(count)]

    def __iter__(self) -> Iterator[Event]:
        """Without an end, until it is closed."""
        while self._watch:
            yield from self.next(_WAIT_S)

    def fileno(self) -> int:
        """A descriptor to poll for reading: `next` has something to do when it is readable."""
        return self._library.terrace_watch_event_fd(self._watch)

    def state(self) -> WatchState:
        """Raises RuntimeError after `close` and in a child of fork."""
        state = abi.sized(abi.WatchState())
        if self._library.terrace_watch_get_state(self._watch, byref(state)) != Status.OK:
            raise RuntimeError(self._library.terrace_last_error().decode())
        place = Place(state.publisher_id, state.sequence) if state.publisher_id else None
        return WatchState(
            Connection(state.connection),
            place,
            bool(state.complete),
            state.reconnects,
            state.error.decode(errors="replace"),
        )


def _bytes_at(address: Optional[int], count: int) -> bytes:
    return ctypes.string_at(address, count) if address else b""


def _event_of(event: abi.Event) -> Event:
    keys = _bytes_at(event.keys, event.key_bytes * event.key_count)
    return Event(
        kind=EventKind(event.kind),
        publisher_id=event.publisher_id,
        sequence=event.sequence,
        namespace=bytes(event.ns),
        keys=[keys[at : at + event.key_bytes] for at in range(0, len(keys), event.key_bytes or 1)],
        parent=_bytes_at(event.parent, event.parent_bytes),
        salt=_bytes_at(event.salt, event.salt_bytes),
        first_token=event.first_token,
        block_tokens=event.block_tokens,
        tier=event.tier.decode(errors="replace"),
        record=NamespaceRecord.from_struct(event.record[0]) if event.record else None,
        family=bytes(event.family),
    )
