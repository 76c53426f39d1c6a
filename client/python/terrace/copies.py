"""Blocks from and into memory that no descriptor leads to, by one copy in this process.

A put copies into staging memory, from where the daemon takes the block; a get reads a lease in
place, and copies from there, or from staging memory where the daemon grants no leases. Copies let
go of Python's lock. Calls wait: they are for threads that may. Thread-safe.
"""
import ctypes
import threading
import time
from typing import Dict, List, Optional, Sequence

from terrace import abi
from terrace.abi import GetOutcome, Status
from terrace.backing import Span
from terrace.calls import Call, Namespace, Part
from terrace.session import Session, Staging

_PAGE = 4096
_MOST_CLASSES = 16
_MOST_SLOTS = 64
# Asked for at a time, and of what may be leased in all: one get leaves leases to others.
_WAVE_BYTES = 64 << 20
_WAVE_SHARE = 8


def bytes_of(pieces: Sequence[Span]) -> int:
    return sum(piece.bytes for piece in pieces)


class CopiedBlocks:
    """`pieces` of a block are the memory that makes it up, in order."""

    def __init__(self, session: Session, staging_bytes: int = 256 << 20) -> None:
        self._session = session
        self._budget = staging_bytes
        self._lock = threading.Lock()
        self._slots: Dict[int, Optional[_Slots]] = {}

    def put(
        self,
        namespace: Namespace,
        keys: Sequence[bytes],
        blocks: Sequence[Sequence[Span]],
        deadline_s: float,
        parent: bytes = b"",
    ) -> List[bool]:
        """Which keys are stored. Keys have one length."""
        until = time.monotonic() + deadline_s
        kept = [False] * len(keys)
        at = 0
        while at < len(keys):
            size = bytes_of(blocks[at])
            slots = self._slots_for(size)
            free = slots.take(self._run_of(blocks, at), until) if slots else []
            if not free:
                at += 1  # no room, or too late: not stored
                continue
            wave = range(at, at + len(free))
            for position, slot in zip(wave, free):
                _gather(slots.staging.address(slot), blocks[position])
            part = Part(
                namespace,
                [keys[position] for position in wave],
                rule=abi.Rule.PREFIX if parent else abi.Rule.INDEPENDENT,
                region=slots.staging.region,
                blocks=free,
            )
            left = max(0.001, until - time.monotonic())
            call = self._submit_put(part, [size] * len(free), parent, left, slots, free)
            if call is not None:
                self._session.wait(call)
                kept[at : at + len(free)] = call.answer.kept()
                parent = keys[at + len(free) - 1] if parent else b""
            at += len(free)
        return kept

    def get(
        self,
        namespace: Namespace,
        keys: Sequence[bytes],
        blocks: Sequence[Sequence[Span]],
        deadline_s: float,
    ) -> List[bool]:
        """Which keys were delivered: all of the block's bytes, and of no other size."""
        until = time.monotonic() + deadline_s
        state = self._session.state()
        by_lease = state.leases_allowed or state.connection != abi.Connection.UP
        wave_bytes = min(_WAVE_BYTES, state.lease_limit_bytes // _WAVE_SHARE)
        delivered = [False] * len(keys)
        at = 0
        while at < len(keys):
            end, total = at, 0
            while end < len(keys) and (end == at or total + bytes_of(blocks[end]) <= wave_bytes):
                total += bytes_of(blocks[end])
                end += 1
            fetch = self._get_leased if by_lease else self._get_staged
            delivered[at:end] = fetch(namespace, keys[at:end], blocks[at:end], until)
            at = end
        return delivered

    def _submit_put(
        self,
        part: Part,
        sizes: List[int],
        parent: bytes,
        deadline_s: float,
        slots: "_Slots",
        free: List[int],
    ) -> Optional[Call]:
        try:
            call = self._session.put(
                part, payload_bytes=sizes, parent=parent, deadline_s=deadline_s
            )
        except BaseException:
            slots.give(free)
            raise
        self._session.when_done(call, lambda _: slots.give(free))
        return call

    def _get_leased(
        self,
        namespace: Namespace,
        keys: Sequence[bytes],
        blocks: Sequence[Sequence[Span]],
        until: float,
    ) -> List[bool]:
        left = max(0.001, until - time.monotonic())
        call = self._session.get([Part(namespace, keys)], deadline_s=left)
        self._session.wait(call)
        answer = call.answer
        if answer.status != Status.OK:
            return [False] * len(keys)
        delivered = answer.delivered()
        outcomes = enumerate(answer.outcomes)
        busy = [place for place, outcome in outcomes if outcome == GetOutcome.BUSY]
        lease = self._session.lease(answer)
        try:
            for position, pieces in enumerate(blocks):
                if delivered[position] and lease.bytes(position) == bytes_of(pieces):
                    _scatter(lease.address(position), pieces)
                else:
                    delivered[position] = False
        finally:
            lease.release()
        if busy:  # all that may be leased is: staging memory is not of it
            staged = self._get_staged(
                namespace, [keys[place] for place in busy], [blocks[place] for place in busy], until
            )
            for place, ok in zip(busy, staged):
                delivered[place] = ok
        return delivered

    def _get_staged(
        self,
        namespace: Namespace,
        keys: Sequence[bytes],
        blocks: Sequence[Sequence[Span]],
        until: float,
    ) -> List[bool]:
        delivered = [False] * len(keys)
        at = 0
        while at < len(keys):
            size = bytes_of(blocks[at])
            slots = self._slots_for(size)
            free = slots.take(self._run_of(blocks, at), until) if slots else []
            if not free:
                at += 1
                continue
            part = Part(
                namespace, keys[at : at + len(free)], region=slots.staging.region, blocks=free
            )
            call = self._session.get([part], deadline_s=max(0.001, until - time.monotonic()))
            self._session.wait(call)
            for index, found in enumerate(call.answer.delivered()):
                if found and call.answer.payload_bytes[index] == size:
                    _scatter(slots.staging.address(free[index]), blocks[at + index])
                    delivered[at + index] = True
            taken = list(free)
            self._session.when_done(call, lambda _, slots=slots, taken=taken: slots.give(taken))
            at += len(free)
        return delivered

    def _run_of(self, blocks: Sequence[Sequence[Span]], at: int) -> int:
        """How many blocks from there on have the same size."""
        size, end = bytes_of(blocks[at]), at
        while end < len(blocks) and bytes_of(blocks[end]) == size:
            end += 1
        return end - at

    def _slots_for(self, size: int) -> Optional["_Slots"]:
        slot_bytes = -(-size // _PAGE) * _PAGE
        with self._lock:
            if slot_bytes not in self._slots:
                self._slots[slot_bytes] = self._new_slots(slot_bytes)
            return self._slots[slot_bytes]

    def _new_slots(self, slot_bytes: int) -> Optional["_Slots"]:
        """A quarter of the budget for each size of blocks, as long as it lasts."""
        count = min(_MOST_SLOTS, max(1, self._budget // 4 // max(1, slot_bytes)))
        if not 0 < slot_bytes <= abi.MOST_BLOCK_BYTES or len(self._slots) >= _MOST_CLASSES:
            return None
        if count * slot_bytes > self._budget:
            return None
        try:
            staging = self._session.staging(slot_bytes, count)
        except (MemoryError, ValueError):
            return None
        self._budget -= count * slot_bytes
        return _Slots(staging, count)


class _Slots:
    """Blocks of staging memory of one size."""

    def __init__(self, staging: Staging, count: int) -> None:
        self.staging = staging
        self._free = list(range(count))
        self._freed = threading.Condition()

    def take(self, most: int, until: float) -> List[int]:
        """Between one and `most`; none: too late."""
        with self._freed:
            while not self._free:
                left = until - time.monotonic()
                if left <= 0 or not self._freed.wait(left):
                    return []
            taken, self._free = self._free[:most], self._free[most:]
            return taken

    def give(self, slots: Sequence[int]) -> None:
        with self._freed:
            self._free.extend(slots)
            self._freed.notify_all()


def _gather(to: int, pieces: Sequence[Span]) -> None:
    for piece in pieces:
        ctypes.memmove(to, piece.address, piece.bytes)
        to += piece.bytes


def _scatter(source: int, pieces: Sequence[Span]) -> None:
    for piece in pieces:
        ctypes.memmove(piece.address, source, piece.bytes)
        source += piece.bytes
