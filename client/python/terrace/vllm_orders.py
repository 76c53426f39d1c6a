"""What vLLM's scheduler tells its workers to load and save, and what they tell of themselves. Plain
values, which vLLM pickles."""
import dataclasses
from typing import Any, Dict, List, Optional, Set, Tuple

from terrace.record import NamespaceRecord


@dataclasses.dataclass
class LoadOrder:
    """Blocks of a request, to be filled before it runs. Without keys, all of them fail."""

    request: str
    keys: List[bytes]
    blocks: List[int]


@dataclasses.dataclass
class SaveOrder:
    """Full blocks of a request, which the step that carries the order computes at the latest.
    `parent`: the key before the first; none where it is empty."""

    request: str
    keys: List[bytes]
    blocks: List[int]
    first_token: int
    parent: bytes


@dataclasses.dataclass
class RankFacts:
    """What a worker has registered: a namespace for each allocation that its layers lie in; none
    where it cannot share its memory, and why."""

    records: Tuple[NamespaceRecord, ...]
    refusal: str = ""


@dataclasses.dataclass
class Report:
    """Of one worker, or of several. `failed`: requests whose load did not bring all blocks."""

    ranks: Dict[int, RankFacts] = dataclasses.field(default_factory=dict)
    failed: Set[str] = dataclasses.field(default_factory=set)

    def merged(self, other: "Report") -> "Report":
        return Report({**self.ranks, **other.ranks}, self.failed | other.failed)


@dataclasses.dataclass
class Options:
    """`kv_connector_extra_config`, beside what vllm_facts.Given says. Seconds."""

    runtime_dir: Optional[str] = None
    library: Optional[str] = None
    cuda_driver: Optional[str] = None
    lookup_deadline_s: float = 0.5
    load_deadline_s: float = 10.0
    save_deadline_s: float = 30.0
    # How long what a lookup promised stays for its load; also how long an answer is believed.
    hold_s: float = 5.0
    # After a load that failed, nothing is looked up for so long.
    pause_s: float = 2.0
    # A worker waits so long for copies out of blocks that are about to be overwritten.
    preempt_limit_s: float = 60.0
    save_decode: bool = False
    reconnect_s: float = 1.0

    @classmethod
    def of(cls, config: Dict[str, Any]) -> Tuple["Options", Dict[str, Any]]:
        """And what is left of the configuration. Raises ValueError for a wrong type."""
        ours: Dict[str, Any] = {}
        left = dict(config)
        for field in dataclasses.fields(cls):
            if field.name not in left:
                continue
            value = left.pop(field.name)
            if isinstance(field.default, bool) != isinstance(value, bool):
                raise ValueError(f"{field.name}: {value!r}")
            if isinstance(field.default, float):
                value = float(value)
                if not 0 < value < 3600:
                    raise ValueError(f"{field.name}: {value!r}")
            ours[field.name] = value
        return cls(**ours), left
