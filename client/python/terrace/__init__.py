"""Terrace for Python: libterrace by ctypes, and the plug-ins of inference engines over it.

    terrace.Session           the client itself
    terrace.Watch             what a node holds, as it changes
    terrace.vllm_connector    vLLM's KVConnectorBase_V1: HBM
    terrace.vllm              vLLM's SecondaryTierManager (KV offloading)
    terrace.sglang            SGLang's dynamic HiCache backend
    terrace.lmcache           LMCache's native_plugin

It needs Python 3.9, libterrace.so and nothing else. A plug-in imports its engine and is imported by
it; the rest imports none.
"""
from terrace.abi import (
    EventKind,
    GetOutcome,
    KeyState,
    Level,
    PutOutcome,
    Reason,
    Rule,
    Sharding,
    Status,
)
from terrace.answer import Answer, Lease
from terrace.calls import Call, Namespace, Part, Region
from terrace.record import NamespaceRecord
from terrace.session import Piece, Session, Staging
from terrace.watch import Event, Place, Watch

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Call",
    "Event",
    "EventKind",
    "GetOutcome",
    "KeyState",
    "Lease",
    "Level",
    "Namespace",
    "NamespaceRecord",
    "Part",
    "Piece",
    "Place",
    "PutOutcome",
    "Reason",
    "Region",
    "Rule",
    "Session",
    "Sharding",
    "Staging",
    "Status",
    "Watch",
]
