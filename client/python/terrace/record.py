"""What must be equal for two blocks to be exchangeable, as an engine tells it."""
import ctypes
import dataclasses
import logging
import uuid
from typing import Dict, List, Optional

from terrace import abi

logger = logging.getLogger(__name__)

_MOST_TEXT_BYTES = 256


@dataclasses.dataclass(frozen=True)
class NamespaceRecord:
    """As message NamespaceRecord of cache.proto; texts are at most 256 bytes of UTF-8."""

    model: str
    weights_revision: str
    kv_dtype: str
    layout: str
    hash_algorithm: str
    block_bytes: int
    quantization: str = ""
    engine_format: str = ""
    hash_seed: str = ""
    block_tokens: int = 0
    group: int = 0
    group_kind: str = ""
    shard_count: int = 1
    shard_rank: int = 0
    sharding: int = abi.Sharding.SHARDED
    parallel: str = ""
    key_suffix: bytes = b""
    labels: Dict[str, str] = dataclasses.field(default_factory=dict)

    def to_struct(self) -> abi.Record:
        """The struct, which holds on to all that it points to."""
        labels = (abi.Label * len(self.labels))()
        for label, (key, value) in zip(labels, sorted(self.labels.items())):
            label.key, label.value = key.encode(), value.encode()
        record = abi.Record(
            block_tokens=self.block_tokens,
            block_bytes=self.block_bytes,
            group=self.group,
            shard_count=self.shard_count,
            shard_rank=self.shard_rank,
            sharding=int(self.sharding),
            key_suffix=self.key_suffix or None,
            key_suffix_bytes=len(self.key_suffix),
            labels=ctypes.cast(labels, ctypes.POINTER(abi.Label)) if self.labels else None,
            label_count=len(self.labels),
        )
        for name in _TEXTS:
            setattr(record, name, getattr(self, name).encode())
        return abi.sized(record)

    @classmethod
    def from_struct(cls, struct: abi.Record) -> "NamespaceRecord":
        """Copies what the struct points to. Texts that are no UTF-8 have replacements."""
        labels = (struct.labels[place] for place in range(struct.label_count))
        return cls(
            block_bytes=struct.block_bytes,
            block_tokens=struct.block_tokens,
            group=struct.group,
            shard_count=struct.shard_count,
            shard_rank=struct.shard_rank,
            sharding=struct.sharding,
            key_suffix=_suffix(struct),
            labels={_text(label.key): _text(label.value) for label in labels},
            **{name: _text(getattr(struct, name)) for name in _TEXTS},
        )


def _text(value: Optional[bytes]) -> str:
    return (value or b"").decode(errors="replace")


def _suffix(struct: abi.Record) -> bytes:
    # As a c_char_p it would end at the first zero.
    at = abi.Record.key_suffix.offset
    address = ctypes.c_void_p.from_buffer(struct, at).value
    return ctypes.string_at(address, struct.key_suffix_bytes) if address else b""


_TEXTS = [
    "model",
    "weights_revision",
    "kv_dtype",
    "quantization",
    "layout",
    "engine_format",
    "hash_algorithm",
    "hash_seed",
    "group_kind",
    "parallel",
]


class Facts:
    """Collects what an engine says of its blocks, and what it leaves open.

    What is not known is not shared: as long as something is open, the namespace carries a label of
    its own, so that no other engine, and not this one after a restart, takes its blocks for theirs.
    Nothing is guessed, nothing is refused, and the log says what to set.
    """

    PRIVATE = "private"

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._open: List[str] = []
        self.labels: Dict[str, str] = {}

    def need(self, name: str, value: object) -> str:
        """The value as a text; without one, the fact is open."""
        text = "" if value is None else str(value)
        if not text:
            self._open.append(name)
            return "unknown"
        return clipped(text)

    def label(self, name: str, value: object) -> None:
        """One more thing that must match; nothing where there is no value."""
        if value is not None and str(value):
            self.labels[name] = clipped(str(value))

    def seal(self) -> Dict[str, str]:
        """All labels; says once what is open, and what follows from it."""
        if self._open and self.PRIVATE not in self.labels:
            self.labels[self.PRIVATE] = uuid.uuid4().hex
            logger.warning(
                "%s does not tell Terrace its %s. Blocks of this process are kept apart: other "
                "engines do not find them, nor does this one after a restart. Set %s in the "
                "connector's configuration to share them.",
                self._engine,
                ", ".join(self._open),
                "it" if len(self._open) == 1 else "them",
            )
        return dict(self.labels)

    @property
    def shared(self) -> bool:
        return not self._open


def clipped(text: str) -> str:
    """A text that a record can carry: one that is too long ends in a digest of all of it."""
    coded = text.encode()
    if len(coded) <= _MOST_TEXT_BYTES:
        return text
    import hashlib

    digest = hashlib.blake2b(coded, digest_size=16).hexdigest()
    return coded[: _MOST_TEXT_BYTES - 34].decode(errors="ignore") + "#" + digest
