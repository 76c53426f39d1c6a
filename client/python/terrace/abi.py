"""libterrace's C interface by ctypes: its constants, its structs and its functions, and nothing
else.

The structs are those of terrace/terrace.h and watch.h, field by field; a test compares size and
offsets with what a C++ compiler says of them. Whoever wants to use the library takes
`terrace.session` and `terrace.watch`.
"""
import ctypes
import enum
import os
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int,
    c_int32,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Optional

LIBRARY = "libterrace.so.0"
HANDLE_BYTES = 64
NO_SPIN = 0xFFFFFFFF
LEAST_KEY_BYTES, MOST_KEY_BYTES = 16, 64
MOST_KEYS, MOST_PARTS = 16384, 64
MOST_BLOCK_BYTES = 64 << 20


class Status(enum.IntEnum):
    """Of a whole call; what became of a key is in the answer."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Rule(enum.IntEnum):
    PREFIX = 1
    WINDOW = 2
    STATE_AT_END = 3
    INDEPENDENT = 4


class KeyState(enum.IntEnum):
    MISS = 0
    READY = 1
    PENDING = 2
    LOWER = 3
    INVALID = 4


class GetOutcome(enum.IntEnum):
    MISS = 0
    OK = 1
    CORRUPT = 2
    BUSY = 3
    DEADLINE = 4
    INVALID = 5
    REGION_FAILED = 6
    TRIMMED = 7
    CANCELLED = 8


class PutOutcome(enum.IntEnum):
    NONE = 0
    STORED = 1
    DUPLICATE = 2
    DECLINED = 3
    FAILED = 4


class Reason(enum.IntEnum):
    NONE = 0
    NO_SPACE = 1
    QUOTA = 2
    ADMISSION = 3
    DRAINING = 4
    INVALID = 5
    REGION_FAILED = 6
    DEADLINE = 7
    CANCELLED = 8
    CLEARED = 9
    TIER_FAULT = 10
    NOT_PRESENT = 11
    BUSY = 12
    TOO_LATE = 13


class Level(enum.IntEnum):
    SOURCE_FREE = 1
    DRAM = 2
    LOCAL_WRITTEN = 3
    LOCAL_SYNCED = 4
    POOL = 5


class EventKind(enum.IntEnum):
    """As watch.h says it."""

    STORED = 1
    REMOVED = 2
    MOVED = 3
    CLEARED = 4
    GAP = 5
    SNAPSHOT_END = 7
    UP = 64
    DOWN = 65
    SNAPSHOT_BEGIN = 66
    NAMESPACE = 67


class Priority(enum.IntEnum):
    LOW = 1
    NORMAL = 2
    HIGH = 3


class Connection(enum.IntEnum):
    DOWN = 0
    CONNECTING = 1
    UP = 2
    DRAINING = 3


class Memory(enum.IntEnum):
    HOST = 0
    CUDA_IPC = 2
    CUDA_VMM = 3


class Sharding(enum.IntEnum):
    SHARDED = 1
    CANONICAL = 2
    REPLICATED = 3


class Delivery(enum.IntEnum):
    LEASE = 2
    REGION = 3


class Verb(enum.IntEnum):
    CLEAR_NAMESPACE = 3
    PROBE = 6
    PREFETCH = 7
    TICKET = 8
    GET = 9
    RELEASE = 10
    PUT = 11
    DELETE = 13
    PIN = 14
    UNPIN = 15
    CANCEL = 16


# ---------------------------------------------------------------- structs

Id128 = c_uint8 * 16
SlabTold = CFUNCTYPE(None, c_void_p, c_void_p, c_uint64)


class SlabWatch(Structure):
    _fields_ = [("mapped", SlabTold), ("unmapping", SlabTold), ("context", c_void_p)]


class Options(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("runtime_dir", c_char_p),
        ("client_name", c_char_p),
        ("default_deadline_ms", c_uint32),
        ("reconnect_ms", c_uint32),
        ("spin_us", c_uint32),
        ("slabs", SlabWatch),
    ]


class ClientState(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("connection", c_int),
        ("boot_id", c_uint64),
        ("reconnects", c_uint32),
        ("calls_in_flight", c_uint32),
        ("features", c_uint64),
        ("leased_bytes", c_uint64),
        ("lease_limit_bytes", c_uint64),
        ("mapped_bytes", c_uint64),
        ("leases_allowed", c_int32),
    ]


class Label(Structure):
    _fields_ = [("key", c_char_p), ("value", c_char_p)]


class Record(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("model", c_char_p),
        ("weights_revision", c_char_p),
        ("kv_dtype", c_char_p),
        ("quantization", c_char_p),
        ("layout", c_char_p),
        ("engine_format", c_char_p),
        ("hash_algorithm", c_char_p),
        ("hash_seed", c_char_p),
        ("block_tokens", c_uint32),
        ("block_bytes", c_uint64),
        ("group", c_uint32),
        ("group_kind", c_char_p),
        ("shard_count", c_uint32),
        ("shard_rank", c_uint32),
        ("sharding", c_uint32),
        ("parallel", c_char_p),
        ("key_suffix", c_char_p),
        ("key_suffix_bytes", c_uint32),
        ("labels", POINTER(Label)),
        ("label_count", c_uint32),
    ]


class Segment(Structure):
    _fields_ = [("offset", c_uint64), ("bytes", c_uint64)]


class Plane(Structure):
    _fields_ = [
        ("offset", c_uint64),
        ("block_stride", c_uint64),
        ("segments", POINTER(Segment)),
        ("segment_count", c_uint32),
    ]


class RegionSpec(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("fd", c_int),
        ("offset", c_uint64),
        ("bytes", c_uint64),
        ("block_count", c_uint32),
        ("planes", POINTER(Plane)),
        ("plane_count", c_uint32),
        ("block_bytes", c_uint64),
        ("read_only", c_int32),
        ("memory", c_int),
        ("handle", c_void_p),
        ("device_uuid", c_uint8 * 16),
        ("allocation_bytes", c_uint64),
        ("planes_per_layer", c_uint32),
        ("canary_block", c_uint32),
    ]


class Part(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("ns", c_uint32),
        ("rule", c_int),
        ("salt", c_char_p),
        ("salt_bytes", c_uint32),
        ("keys", c_char_p),
        ("key_bytes", c_uint32),
        ("key_count", c_uint32),
        ("first_token", c_uint64),
        ("end_tokens", c_void_p),
        ("window_tokens", c_uint32),
        ("region", c_uint32),
        ("block_indexes", c_void_p),
        ("after_event", c_void_p),
        ("progress_slot", c_uint32),
    ]


class CallSpec(Structure):
    """terrace_call."""

    _fields_ = [
        ("struct_bytes", c_uint32),
        ("tag", c_uint64),
        ("deadline_ms", c_uint32),
        ("parts", POINTER(Part)),
        ("part_count", c_uint32),
        ("request_id", c_char_p),
        ("request_id_bytes", c_uint32),
    ]


class GetOptions(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("delivery", c_int),
        ("hold", Id128),
        ("wait_pending", c_int32),
    ]


class PutOptions(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("payload_bytes", c_void_p),
        ("parent", c_char_p),
        ("parent_bytes", c_uint32),
        ("wait_for", c_int),
        ("output_tokens", c_uint32),
        ("stop_reason", c_char_p),
        ("session_end", c_int32),
        ("expected_return_ms", c_uint32),
        ("compute_us", c_uint64),
    ]


class Completion(Structure):
    _fields_ = [
        ("call_id", c_uint64),
        ("tag", c_uint64),
        ("verb", c_int),
        ("status", c_int),
        ("key_count", c_uint32),
        ("states", c_void_p),
        ("outcomes", c_void_p),
        ("reasons", c_void_p),
        ("levels", c_void_p),
        ("payload_bytes", c_void_p),
        ("data", c_void_p),
        ("lease", Id128),
        ("part_count", c_uint32),
        ("part_hits", c_void_p),
        ("part_boundary_keys", c_void_p),
        ("boundary_tokens", c_uint64),
        ("load_us", c_uint64),
        ("hit_bytes", c_uint64),
        ("hold", Id128),
        ("hold_ms", c_uint32),
        ("ticket", c_uint64),
        ("ticket_state", c_uint32),
        ("keys_total", c_uint32),
        ("keys_arrived", c_uint32),
        ("keys_failed", c_uint32),
        ("bytes_arrived", c_uint64),
        ("count", c_uint32),
        ("generation", c_uint64),
        ("error", c_char_p),
        ("recompute_us", c_uint64),
        ("worth_tokens", c_uint64),
    ]


class Event(Structure):
    _fields_ = [
        ("kind", c_int),
        ("key_count", c_uint32),
        ("publisher_id", c_uint64),
        ("sequence", c_uint64),
        ("ns", Id128),
        ("keys", c_void_p),
        ("key_bytes", c_uint32),
        ("parent_bytes", c_uint32),
        ("parent", c_void_p),
        ("salt", c_void_p),
        ("salt_bytes", c_uint32),
        ("block_tokens", c_uint32),
        ("first_token", c_uint64),
        ("tier", c_char_p),
        ("record", POINTER(Record)),
        ("family", Id128),
    ]


class WatchOptions(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("runtime_dir", c_char_p),
        ("client_name", c_char_p),
        ("reconnect_ms", c_uint32),
        ("snapshots", c_int32),
        ("publisher_id", c_uint64),
        ("after_sequence", c_uint64),
        ("namespaces", c_char_p),
        ("namespace_count", c_uint32),
        ("heartbeat_ms", c_uint32),
    ]


class WatchState(Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("connection", c_int),
        ("publisher_id", c_uint64),
        ("sequence", c_uint64),
        ("complete", c_int32),
        ("reconnects", c_uint32),
        ("error", c_char * 160),
    ]


# Names of the headers for the structs above; the test of layouts goes by it.
STRUCTS = {
    "terrace_slab_watch": SlabWatch,
    "terrace_options": Options,
    "terrace_client_state": ClientState,
    "terrace_label": Label,
    "terrace_namespace_record": Record,
    "terrace_segment": Segment,
    "terrace_plane": Plane,
    "terrace_region_spec": RegionSpec,
    "terrace_part": Part,
    "terrace_call": CallSpec,
    "terrace_get_options": GetOptions,
    "terrace_put_options": PutOptions,
    "terrace_completion": Completion,
    "terrace_event": Event,
    "terrace_watch_options": WatchOptions,
    "terrace_watch_state": WatchState,
}

# The headers' enumerations for the enums above, and what their enumerators begin with.
ENUMS = {
    "terrace_status": ("TERRACE_", Status),
    "terrace_rule": ("TERRACE_RULE_", Rule),
    "terrace_key_state": ("TERRACE_KEY_", KeyState),
    "terrace_get_outcome": ("TERRACE_GET_", GetOutcome),
    "terrace_put_outcome": ("TERRACE_PUT_", PutOutcome),
    "terrace_reason": ("TERRACE_REASON_", Reason),
    "terrace_level": ("TERRACE_LEVEL_", Level),
    "terrace_priority": ("TERRACE_PRIORITY_", Priority),
    "terrace_connection": ("TERRACE_CONNECTION_", Connection),
    "terrace_memory": ("TERRACE_MEMORY_", Memory),
    "terrace_delivery": ("TERRACE_DELIVER_", Delivery),
    "terrace_verb": ("TERRACE_VERB_", Verb),
    "terrace_event_kind": ("TERRACE_EVENT_", EventKind),
}


def sized(struct: Structure) -> Structure:
    """The struct, which says its own size: that is what lets the header's structs grow."""
    struct.struct_bytes = ctypes.sizeof(struct)
    return struct


# ---------------------------------------------------------------- functions

_CALL = [c_void_p, POINTER(CallSpec)]
_CALL_ID = POINTER(c_uint64)
_FUNCTIONS = {
    "terrace_open": (c_int, [POINTER(Options), POINTER(c_void_p)]),
    "terrace_close": (None, [c_void_p]),
    "terrace_last_error": (c_char_p, []),
    "terrace_version": (c_char_p, []),
    "terrace_state": (c_int, [c_void_p, POINTER(ClientState)]),
    "terrace_wait_connected": (c_int, [c_void_p, c_uint32]),
    "terrace_open_namespace": (c_int, [c_void_p, POINTER(Record), POINTER(c_uint32)]),
    "terrace_register_region": (c_int, [c_void_p, POINTER(RegionSpec), POINTER(c_uint32)]),
    "terrace_unregister_region": (c_int, [c_void_p, c_uint32, c_uint32]),
    "terrace_wait_layers": (c_int, [c_void_p, c_uint64, c_uint32, c_uint32, c_uint32, c_uint32]),
    "terrace_progress_page": (c_int, [c_void_p, c_uint32, POINTER(c_int)]),
    "terrace_staging_create": (
        c_int,
        [c_void_p, c_uint64, c_uint32, POINTER(c_uint32), POINTER(c_void_p), POINTER(c_uint64)],
    ),
    "terrace_staging_destroy": (c_int, [c_void_p, c_uint32, c_uint32]),
    "terrace_submit_probe": (c_int, _CALL + [c_uint32, c_int, _CALL_ID]),
    "terrace_submit_prefetch": (c_int, _CALL + [c_int, c_uint32, _CALL_ID]),
    "terrace_submit_ticket": (c_int, [c_void_p, c_uint64, c_uint32, c_uint64, _CALL_ID]),
    "terrace_submit_get": (c_int, _CALL + [POINTER(GetOptions), _CALL_ID]),
    "terrace_submit_put": (c_int, _CALL + [POINTER(PutOptions), c_void_p, c_uint64, _CALL_ID]),
    "terrace_submit_release": (
        c_int,
        [c_void_p, c_char_p, c_uint32, c_char_p, c_uint32, c_uint64, _CALL_ID],
    ),
    "terrace_submit_delete": (c_int, _CALL + [_CALL_ID]),
    "terrace_submit_clear_namespace": (c_int, [c_void_p, c_uint32, c_uint32, c_uint64, _CALL_ID]),
    "terrace_submit_pin": (c_int, _CALL + [c_uint32, _CALL_ID]),
    "terrace_submit_unpin": (c_int, _CALL + [_CALL_ID]),
    "terrace_submit_cancel": (c_int, [c_void_p, c_uint64, c_uint64, c_uint64, _CALL_ID]),
    "terrace_event_fd": (c_int, [c_void_p]),
    "terrace_drain": (c_uint32, [c_void_p, POINTER(POINTER(Completion)), c_uint32, c_uint32]),
    "terrace_completion_free": (None, [POINTER(Completion)]),
    "terrace_watch_open": (c_int, [POINTER(WatchOptions), POINTER(c_void_p)]),
    "terrace_watch_close": (None, [c_void_p]),
    "terrace_watch_next": (c_uint32, [c_void_p, POINTER(POINTER(Event)), c_uint32]),
    "terrace_watch_event_fd": (c_int, [c_void_p]),
    "terrace_watch_get_state": (c_int, [c_void_p, POINTER(WatchState)]),
}

_loaded = {}


def load(path: Optional[str] = None) -> ctypes.CDLL:
    """The library: `path`, else $TERRACE_LIBRARY, else what the dynamic loader has by its soname.

    Raises OSError that says where it was looked for."""
    name = os.fspath(path) if path else os.environ.get("TERRACE_LIBRARY") or LIBRARY
    library = _loaded.get(name)
    if library is None:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            raise OSError(
                f"libterrace: {error}; install it, or name the file in TERRACE_LIBRARY"
            ) from None
        for function, (result, arguments) in _FUNCTIONS.items():
            declared = getattr(library, function)
            declared.restype, declared.argtypes = result, arguments
        _loaded[name] = library
    return library
