"""What Terrace holds of the keys that vLLM's scheduler asks for, without its ever waiting.

A key is asked for once, with all other new ones of a scheduler step, and its answer stays for as
long as a request asks for it; then it is forgotten. Confined to vLLM's executor.
"""
from typing import Callable, Dict, Iterable, List, Optional, Set, Tuple

from terrace import abi
from terrace.calls import Call, Namespace, Part
from terrace.keys import by_length
from terrace.session import Session
from terrace.tally import Tally

# Keys that are known at a time: at 36 bytes a key some 100 MiB of Python objects.
MOST_KEYS = 1 << 18


class _Verdict:
    __slots__ = ("found", "requests")

    def __init__(self) -> None:
        self.found: Optional[bool] = None
        self.requests: Set[str] = set()


class Lookups:
    """`name_of` gives the namespace and the key within it."""

    def __init__(
        self,
        session: Session,
        name_of: Callable[[bytes], Tuple[Namespace, bytes]],
        deadline_s: float,
        hold_s: float,
        tally: Tally,
    ) -> None:
        self._session = session
        self._name_of = name_of
        self._deadline_s = deadline_s
        self._hold_s = hold_s
        self._tally = tally
        self._verdicts: Dict[bytes, _Verdict] = {}
        self._keys_of: Dict[str, Set[bytes]] = {}
        self._new: List[bytes] = []

    def ask(self, key: bytes, request: str) -> Optional[bool]:
        """Whether the key is there; None: not known yet."""
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= MOST_KEYS:
                self._tally.add("lookups_refused")
                return False
            verdict = self._verdicts[key] = _Verdict()
            self._new.append(key)
        verdict.requests.add(request)
        self._keys_of.setdefault(request, set()).add(key)
        return verdict.found

    def flush(self) -> None:
        """Asks the daemon for all new keys, in as few calls as its limits allow. Raises what went
        wrong when all have been asked for; keys that could not be are misses, and not asked for
        for ever."""
        new, self._new = self._new, []
        fault: Optional[Exception] = None
        for keys, parts in self._batches(new):
            self._tally.add("lookups", len(keys))
            told = ("probe", keys)
            try:
                self._session.probe(
                    parts, hold_s=self._hold_s, deadline_s=self._deadline_s, context=told
                )
            except Exception as error:
                self.miss(keys)
                fault = error
        if fault is not None:
            raise fault

    def touch(self, keys: Iterable[bytes]) -> None:
        """Tells the daemon that these were used; what it answers is not looked at."""
        for _, parts in self._batches(list(keys)):
            self._session.probe(parts, deadline_s=self._deadline_s)

    def answered(self, keys: List[bytes], call: Call) -> None:
        """Takes the answer of a probe; nobody answered: misses."""
        hits = 0
        for key, found in zip(keys, call.answer.found()):
            verdict = self._verdicts.get(key)
            if verdict is not None and verdict.found is None:
                verdict.found = found
                hits += found
        self._tally.add("lookup_hits", hits)

    def miss(self, keys: Iterable[bytes]) -> None:
        """These could not be loaded: whoever asks for them again is told so, or would try for
        ever."""
        for key in keys:
            verdict = self._verdicts.get(key)
            if verdict is not None:
                verdict.found = False

    def forget(self, request: str) -> None:
        for key in self._keys_of.pop(request, ()):
            verdict = self._verdicts[key]
            verdict.requests.discard(request)
            if not verdict.requests:
                del self._verdicts[key]

    def __len__(self) -> int:
        return len(self._verdicts)

    def _batches(self, keys: List[bytes]) -> Iterable[Tuple[List[bytes], List[Part]]]:
        """Calls: their keys in the order of their parts."""
        by_namespace: Dict[Namespace, List[bytes]] = {}
        names = {}
        for key in keys:
            try:
                namespace, names[key] = self._name_of(key)
            except ValueError:  # of a group that there cannot be
                self._tally.add("lookups_refused")
                self.miss([key])
                continue
            by_namespace.setdefault(namespace, []).append(key)
        batch: List[bytes] = []
        parts: List[Part] = []
        for namespace, members in by_namespace.items():
            for positions, fitted in by_length([names[key] for key in members]):
                at = 0
                while at < len(positions):
                    room = abi.MOST_KEYS - len(batch)
                    end = min(len(positions), at + room)
                    parts.append(Part(namespace, fitted[at:end]))
                    batch += [members[position] for position in positions[at:end]]
                    at = end
                    if len(batch) == abi.MOST_KEYS or len(parts) == abi.MOST_PARTS:
                        yield batch, parts
                        batch, parts = [], []
        if batch:
            yield batch, parts
