"""Terrace for Python: libterrace by ctypes, and the plug-ins of inference engines over it.

    terrace.Session           the client itself
    terrace.vllm_connector    vLLM's KVConnectorBase_V1: HBM
    terrace.vllm              vLLM's SecondaryTierManager (KV offloading)
    terrace.sglang            SGLang's dynamic HiCache backend
    terrace.lmcache           LMCache's native_plugin

It needs Python 3.9, libterrace.so and nothing else. A plug-in imports its engine and is imported by
it; the rest imports none.
"""
from terrace.abi import GetOutcome, KeyState, Level, PutOutcome, Reason, Rule, Sharding, Status
from terrace.answer import Answer, Lease
from terrace.calls import Call, Namespace, Part, Region
from terrace.record import NamespaceRecord
from terrace.session import Piece, Session, Staging

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Call",
    "GetOutcome",
    "KeyState",
    "Lease",
    "Level",
    "Namespace",
    "NamespaceRecord",
    "Part",
    "Piece",
    "PutOutcome",
    "Reason",
    "Region",
    "Rule",
    "Session",
    "Sharding",
    "Staging",
    "Status",
]
