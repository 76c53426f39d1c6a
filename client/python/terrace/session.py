"""A session with the daemon of this node.

    session = Session()
    blocks = session.namespace(record)
    call = session.get([Part(blocks, keys, region=region, blocks=rows)])
    ... do something else; session.fileno() becomes readable when there is news ...
    session.advance()
    if call.done: call.answer.delivered()

A call is submitted at once and answered later: by `advance`, which never waits unless it is told
to, or by `wait`, from any number of threads. The daemon may be absent, die or hang: then the answer
is a miss or "not stored" at the deadline at the latest, and the session finds the next daemon by
itself, with its namespaces and regions. Only wrong arguments raise (ValueError).

Answered is not done: see `terrace.calls`. Whoever reuses memory of a region waits for `done`.

Threads: everything may be called from any thread, `close` last. After fork, the child's calls are
misses.
"""
import ctypes
import os
from array import array
from ctypes import byref, c_uint32, c_uint64, c_void_p
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

from terrace import abi
from terrace.abi import Level, Memory, Status
from terrace.answer import Answer, Lease
from terrace.calls import Call, CallsInFlight, Namespace, Part, Region, State, fill, milliseconds
from terrace.record import NamespaceRecord


class Piece(NamedTuple):
    """A part of every block of a region: the bytes at offset + index * stride."""

    offset: int
    stride: int
    bytes: int


class Session:
    """See the module. `runtime_dir`: the folder of session.sock, else $TERRACE_RUNTIME, else
    /run/terrace.

    Opening never waits for the daemon. Raises ValueError for wrong arguments, OSError without the
    library, MemoryError.
    """

    def __init__(
        self,
        runtime_dir: Optional[str] = None,
        client_name: str = "terrace-python",
        deadline_s: float = 1.0,
        reconnect_s: float = 1.0,
        spin: bool = True,
        library: Optional[str] = None,
    ) -> None:
        self._library = abi.load(library)
        self._client = c_void_p()
        self._calls = CallsInFlight(self._library, self._client)
        options = abi.Options(
            runtime_dir=os.fsencode(runtime_dir) if runtime_dir else None,
            client_name=client_name.encode(),
            default_deadline_ms=milliseconds(deadline_s),
            reconnect_ms=milliseconds(reconnect_s),
            spin_us=0 if spin else abi.NO_SPIN,
        )
        self._check(self._library.terrace_open(byref(abi.sized(options)), byref(self._client)))

    # ------------------------------------------------------------ the session

    def close(self) -> None:
        """Ends the session: leases, holds and regions are given back, calls end unanswered.
        Idempotent.

        A daemon that is alive may still copy for a moment what was under way; `unregister` first
        where that matters."""
        self._calls.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """A descriptor to poll for reading; `advance` has something to do when it is readable."""
        return -1 if self._calls.foreign() else self._library.terrace_event_fd(self._client)

    def state(self) -> State:
        return self._calls.state()

    @property
    def unconfirmed(self) -> int:
        """Calls that are answered and not done: the daemon may still copy for them."""
        return self._calls.unconfirmed

    def wait_connected(self, timeout_s: float) -> bool:
        """For tools and tests; calls need not wait for a session."""
        if self._calls.foreign():
            return False
        waited = self._library.terrace_wait_connected(self._client, milliseconds(timeout_s))
        return waited == Status.OK

    def namespace(self, record: NamespaceRecord) -> Namespace:
        """Names a namespace. Never waits: what the daemon refuses shows in the answers of the
        calls."""
        number = c_uint32()
        struct = record.to_struct()
        self._usable()
        self._check(
            self._library.terrace_open_namespace(self._client, byref(struct), byref(number))
        )
        return Namespace(number.value, record.block_bytes)

    def region(
        self,
        fd: int,
        total_bytes: int,
        block_count: int,
        pieces: Sequence[Piece],
        offset: int = 0,
        read_only: bool = False,
    ) -> Region:
        """Registers memory by its descriptor (a memfd, or a file on tmpfs or hugetlbfs), which
        the caller keeps and may close. `offset` in the file is a multiple of 4,096; pieces count
        from there. Never waits: what the daemon refuses shows in the answers of the calls."""
        segments = [abi.Segment(0, piece.bytes) for piece in pieces]
        planes = (abi.Plane * len(pieces))()
        for plane, piece, segment in zip(planes, pieces, segments):
            plane.offset, plane.block_stride = piece.offset, piece.stride
            plane.segments, plane.segment_count = ctypes.pointer(segment), 1
        return self.region_of(
            abi.RegionSpec(
                fd=fd,
                offset=offset,
                bytes=total_bytes,
                block_count=block_count,
                planes=planes,
                plane_count=len(pieces),
                read_only=int(read_only),
                memory=int(Memory.HOST),
            )
        )

    def region_of(self, spec: abi.RegionSpec) -> Region:
        """Registers memory as a whole spec says, that of a GPU for one."""
        number = c_uint32()
        abi.sized(spec)
        self._usable()
        self._check(self._library.terrace_register_region(self._client, byref(spec), byref(number)))
        return Region(number.value, spec.block_count, _block_bytes(spec))

    def unregister(self, region: Region, timeout_s: float = 5.0) -> bool:
        """True when nothing can touch the region's memory any more."""
        if self._calls.foreign():
            return True
        status = self._library.terrace_unregister_region(
            self._client, region.number, milliseconds(timeout_s)
        )
        return status != Status.DEADLINE_EXCEEDED

    def staging(self, block_bytes: int, block_count: int) -> "Staging":
        """Memory of the library for blocks that lie where no descriptor leads. Raises
        MemoryError."""
        number, memory, stride = c_uint32(), c_void_p(), c_uint64()
        self._usable()
        self._check(
            self._library.terrace_staging_create(
                self._client, block_bytes, block_count, byref(number), byref(memory), byref(stride)
            )
        )
        region = Region(number.value, block_count, block_bytes)
        return Staging(self, region, memory.value or 0, stride.value)

    # ------------------------------------------------------------ calls

    def probe(
        self,
        parts: Sequence[Part],
        hold_s: float = 0.0,
        prefetch: bool = False,
        deadline_s: float = 0.0,
        request_id: bytes = b"",
        context: object = None,
    ) -> Call:
        """What could be delivered. A hold keeps what is ready from eviction for a while."""
        submit = self._library.terrace_submit_probe
        more = (milliseconds(hold_s), int(prefetch))
        return self._submit(submit, parts, deadline_s, _new(parts, context), more, request_id)

    def prefetch(
        self,
        parts: Sequence[Part],
        priority: abi.Priority = abi.Priority.NORMAL,
        hold_s: float = 0.0,
        deadline_s: float = 0.0,
        context: object = None,
    ) -> Call:
        """Starts moving blocks up to DRAM; the answer has a ticket."""
        submit = self._library.terrace_submit_prefetch
        more = (int(priority), milliseconds(hold_s))
        return self._submit(submit, parts, deadline_s, _new(parts, context), more)

    def get(
        self,
        parts: Sequence[Part],
        hold: bytes = b"",
        wait_pending: bool = True,
        deadline_s: float = 0.0,
        context: object = None,
    ) -> Call:
        """Into the regions of the parts where they have one, else by lease (`lease`)."""
        call = _new(parts, context)
        options = abi.GetOptions(
            delivery=int(abi.Delivery.REGION if call.in_region else abi.Delivery.LEASE),
            wait_pending=int(wait_pending),
        )
        if hold:
            options.hold = abi.Id128(*hold)
        more = (byref(abi.sized(options)),)
        return self._submit(self._library.terrace_submit_get, parts, deadline_s, call, more)

    def put(
        self,
        part: Part,
        payload: Union[bytes, bytearray, memoryview, None] = None,
        payload_bytes: Optional[Sequence[int]] = None,
        parent: bytes = b"",
        wait_for: Level = Level.DRAM,
        deadline_s: float = 0.0,
        context: object = None,
    ) -> Call:
        """From the part's region; or inline, payloads end to end, 3 MiB at most. Without
        payload_bytes a lone inline block has the bytes that it has, and any other as many as its
        namespace allows. `parent`, the key before the first, is as long as the keys."""
        if payload is not None and payload_bytes is None and len(part.keys) == 1:
            payload_bytes = [len(payload)]
        if payload_bytes is not None and len(payload_bytes) != len(part.keys):
            raise ValueError("payload_bytes: one a key")
        if parent and part.keys and len(parent) != len(part.keys[0]):
            raise ValueError("parent: as long as the keys, or none")
        sizes = array("I", payload_bytes) if payload_bytes is not None else None
        content = bytes(payload) if payload is not None else None
        options = abi.PutOptions(
            payload_bytes=sizes.buffer_info()[0] if sizes else None,
            parent=parent or None,
            parent_bytes=len(parent),
            wait_for=int(wait_for),
        )
        more = (byref(abi.sized(options)), content, len(content or b""))
        call = _new([part], context)
        return self._submit(self._library.terrace_submit_put, [part], deadline_s, call, more)

    def delete(self, part: Part, deadline_s: float = 0.0, context: object = None) -> Call:
        """Durable; the answer counts what was there."""
        call = _new([part], context)
        return self._submit(self._library.terrace_submit_delete, [part], deadline_s, call)

    def pin(self, part: Part, ttl_s: int, deadline_s: float = 0.0, context: object = None) -> Call:
        """Keeps blocks from eviction, within the tenant's budget; ttl 0: until unpinned."""
        call = _new([part], context)
        return self._submit(self._library.terrace_submit_pin, [part], deadline_s, call, (ttl_s,))

    def unpin(self, part: Part, deadline_s: float = 0.0, context: object = None) -> Call:
        call = _new([part], context)
        return self._submit(self._library.terrace_submit_unpin, [part], deadline_s, call)

    def clear(self, namespace: Namespace, deadline_s: float = 0.0, context: object = None) -> Call:
        """All that the namespace holds becomes misses, for everybody and on every node of its
        pools."""
        submit = self._library.terrace_submit_clear_namespace
        limit = milliseconds(deadline_s)
        return self._calls.submit(
            Call(0, context),
            lambda c: submit(self._client, namespace.number, limit, c.tag, byref(c.call_id)),
        )

    def ticket(self, ticket: int, wait_s: float = 0.0, context: object = None) -> Call:
        """How far a prefetch is."""
        submit = self._library.terrace_submit_ticket
        limit = milliseconds(wait_s)
        return self._calls.submit(
            Call(0, context), lambda c: submit(self._client, ticket, limit, c.tag, byref(c.call_id))
        )

    def cancel(self, call: Call) -> None:
        """Ends a call early; it is answered when no copy can touch its memory any more."""
        with self._calls.changed:
            if call.answer is None and not self._calls.foreign():
                self._library.terrace_submit_cancel(self._client, call.call_id, 0, 0, None)

    def release(self, leases: Sequence[bytes] = (), holds: Sequence[bytes] = ()) -> None:
        """Ends leases and holds; idempotent, and not waited for."""
        if os.getpid() != self._calls.pid or not (leases or holds):
            return
        lease_ids, hold_ids = b"".join(leases) or None, b"".join(holds) or None
        with self._calls.changed:
            if not self._calls.foreign():
                self._library.terrace_submit_release(
                    self._client, lease_ids, len(leases), hold_ids, len(holds), 0, None
                )

    def release_later(self, lease: bytes) -> None:
        """As `release`, with the next call of anybody; takes no lock."""
        self._calls.orphans.append(lease)

    def lease(self, answer: Answer) -> Lease:
        """What a get by lease delivered, to read in place."""
        return Lease(self, answer)

    # ------------------------------------------------------------ progress

    def advance(self, timeout_s: float = 0.0) -> List[Call]:
        """Moves work on, waiting at most so long for news, and returns the calls with a context
        that are done now. What another thread drains meanwhile is returned by the next call."""
        return self._calls.advance(timeout_s)

    def wait(self, call: Call, timeout_s: Optional[float] = None, done: bool = False) -> bool:
        """Until the call is answered, or, if that is asked, done; False: not within the time, or
        the session was closed."""
        return self._calls.wait(call, timeout_s, done)

    def when_done(self, call: Call, then: Callable[[Call], None]) -> None:
        """Runs `then` once the call is done, at once if it is; it must be short and not use the
        session."""
        self._calls.when_done(call, then)

    # ------------------------------------------------------------ inside

    def _usable(self) -> None:
        if self._calls.foreign():
            raise ValueError("session: closed, or of the parent process; open one of your own")

    def _check(self, status: int) -> None:
        if status == Status.RESOURCE_EXHAUSTED:
            raise MemoryError(self._calls.last_error())
        if status != Status.OK:
            raise ValueError(self._calls.last_error())

    def _submit(
        self,
        function: Callable[..., int],
        parts: Sequence[Part],
        deadline_s: float,
        call: Call,
        more: Tuple = (),
        request_id: bytes = b"",
    ) -> Call:
        structs = (abi.Part * max(1, len(parts)))()
        kept = [fill(struct, part) for struct, part in zip(structs, parts)]
        spec = abi.CallSpec(
            deadline_ms=milliseconds(deadline_s),
            parts=structs,
            part_count=len(parts),
            request_id=request_id or None,
            request_id_bytes=len(request_id),
        )
        abi.sized(spec)

        def submit(tagged: Call) -> int:
            spec.tag = tagged.tag
            return function(self._client, byref(spec), *more, byref(tagged.call_id))

        self._calls.submit(call, submit)
        del kept  # what the structs point to, which the library has copied by now
        return call


class Staging:
    """Blocks of the library's memory, registered as a region, at `stride` bytes from each other."""

    def __init__(self, session: Session, region: Region, address: int, stride: int) -> None:
        self._session = session
        self._address = address
        self.region = region
        self.stride = stride

    def address(self, block: int) -> int:
        if not self._address or not 0 <= block < self.region.block_count:
            raise ValueError(f"block {block}: of {self.region.block_count}")
        return self._address + block * self.stride

    def view(self, block: int) -> memoryview:
        """To write and read; not to be used after `destroy`."""
        memory = (ctypes.c_ubyte * self.region.block_bytes).from_address(self.address(block))
        return memoryview(memory).cast("B")

    def destroy(self, timeout_s: float = 5.0) -> bool:
        """False: the daemon may still touch it, and it stays mapped until the session ends."""
        session = self._session
        if session._calls.foreign() or not self._address:
            return True
        self._address = 0
        status = session._library.terrace_staging_destroy(
            session._client, self.region.number, milliseconds(timeout_s)
        )
        return status == Status.OK


def _new(parts: Sequence[Part], context: object) -> Call:
    in_region = any(part.region is not None for part in parts)
    return Call(sum(len(part.keys) for part in parts), context, in_region)


def _block_bytes(spec: abi.RegionSpec) -> int:
    if not spec.planes:
        return spec.block_bytes
    planes = (spec.planes[index] for index in range(spec.plane_count))
    return sum(plane.segments[i].bytes for plane in planes for i in range(plane.segment_count))
