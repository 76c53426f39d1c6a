"""The scheduler's half of vLLM's connector: what the daemon holds of a request's prompt, and what
workers are to load and save.

Nothing here waits, and nothing is asked of the daemon before all workers have said what they have
registered: then a probe has a part for each of them, and a block counts where all hold it. Confined
to the scheduler's thread.
"""
import logging
import time
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from terrace import abi
from terrace.abi import KeyState, Rule
from terrace.calls import Call, Namespace, Part
from terrace.keys import fitted
from terrace.session import Session
from terrace.tally import Complaints, Tally
from terrace.vllm_orders import LoadOrder, Options, Report, SaveOrder

logger = logging.getLogger(__name__)

MOST_LOOKUPS = 96  # under way; requests beyond are asked for again in the next step
# A request is not loaded for more often than that; it is computed then.
_MOST_LOADS = 4
# Questions that wait for the workers' first report, all together.
_MOST_BLIND = 256


class Plan(NamedTuple):
    """Of a step."""

    loads: List[LoadOrder]
    saves: List[SaveOrder]
    preempted: Set[str]


class _Lookup:
    """Blocks first to first + count of a request; `hits` of them, from the first on, are there."""

    __slots__ = ("first", "count", "open", "hits", "holds", "answered_at", "used", "forgotten")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self.open = 0
        self.hits = count
        self.holds: List[bytes] = []
        self.answered_at = 0.0
        self.used = False
        self.forgotten = False


class _Seen:
    """A request that vLLM has not finished."""

    __slots__ = ("request", "blocks", "saved", "ordered", "lookup", "asked", "loads", "holds")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.blocks: List[int] = []
        self.saved = 0  # of its blocks
        self.ordered = False  # saves, since it was preempted last
        self.lookup: Optional[_Lookup] = None
        self.asked = 0  # the first block of the last question
        self.loads = 0
        self.holds: List[bytes] = []  # of the load under way


class Matches:
    """See the module. `ranks`: how many workers there are."""

    def __init__(
        self,
        session: Session,
        options: Options,
        block_tokens: int,
        ranks: int,
        loads: bool,
        saves: bool,
        tally: Tally,
        complaints: Complaints,
    ) -> None:
        self._session = session
        self._options = options
        self._block_tokens = block_tokens
        self._ranks = ranks
        self._loads_wanted = loads
        self._saves_wanted = saves
        self._tally = tally
        self._complaints = complaints
        self._report = Report()
        self._namespaces: List[Namespace] = []
        self._refused = False
        self._seen: Dict[str, _Seen] = {}
        self._lookups = 0
        self._blind = 0
        self._paused_until = 0.0
        self._loads: List[LoadOrder] = []
        self._reach: Dict[str, int] = {}  # tokens that the step computes up to

    @property
    def informed(self) -> bool:
        """Whether all workers have said what they have."""
        return self._refused or bool(self._namespaces)

    # ------------------------------------------------------------ lookups

    def arrived(self, request: Any) -> None:
        """A new request, which vLLM asks about when it schedules: the answer may be there then, and
        what lies on lower tiers is on its way."""
        if not self._loads_wanted or not self._namespaces or self._refused:
            return
        if getattr(request, "skip_reading_prefix_cache", False):
            return
        end, now = self._usable(request), time.monotonic()
        if end > 0 and self._lookups < MOST_LOOKUPS and now >= self._paused_until:
            self._ask(self._seen.setdefault(request.request_id, _Seen(request)), 0, end)

    def matched(self, request: Any, computed_tokens: int) -> Optional[int]:
        """Tokens beyond those computed that can be loaded; None: not known yet."""
        self.advance()
        if not self._loads_wanted or getattr(request, "skip_reading_prefix_cache", False):
            return 0
        if not self.informed:
            self._blind += 1
            if self._blind > _MOST_BLIND:
                self._complaints.say("workers do not report; nothing is loaded until they do")
                return 0
            return None
        seen = self._seen.setdefault(request.request_id, _Seen(request))
        first, rest = divmod(computed_tokens, self._block_tokens)
        end = self._usable(request)
        if self._refused or rest or end <= first or seen.loads >= _MOST_LOADS:
            return 0
        if time.monotonic() < self._paused_until:
            return 0
        hits = self._hits(seen, first, end)
        if hits is None:
            return None
        seen.asked = first
        return hits * self._block_tokens

    def _usable(self, request: Any) -> int:
        """Blocks that may be loaded: full ones, and a token is left to be computed."""
        tokens, hashes = request.num_tokens, request.block_hashes
        if len(hashes) > tokens // self._block_tokens:
            self._complaints.say("hashes of something else than blocks; nothing is loaded")
            return 0
        return min((tokens - 1) // self._block_tokens, len(hashes))

    def _hits(self, seen: _Seen, first: int, end: int) -> Optional[int]:
        lookup = seen.lookup
        if lookup is not None and not self._fits(lookup, first, end):
            self._drop(seen)
            lookup = None
        if lookup is None:
            if self._lookups < MOST_LOOKUPS:
                self._ask(seen, first, end)
            return None
        if lookup.open:
            return None
        lookup.used = True
        return max(0, lookup.first + lookup.hits - first)

    def _fits(self, lookup: _Lookup, first: int, end: int) -> bool:
        """Whether it answers the question: vLLM may have found more of its own meanwhile, and what
        lies behind a block that only vLLM has was not looked at."""
        if lookup.first > first or lookup.first + lookup.count != end:
            return False
        if not lookup.open and lookup.first + lookup.hits < first:
            return False
        age = time.monotonic() - lookup.answered_at
        return bool(lookup.open) or not lookup.used or age < self._options.hold_s / 2

    def _ask(self, seen: _Seen, first: int, end: int) -> None:
        lookup = seen.lookup = _Lookup(first, end - first)
        keys = [_name(key) for key in seen.request.block_hashes[first:end]]
        room = abi.MOST_KEYS // len(self._namespaces)
        self._tally.add("lookups", len(keys))
        for at in range(0, len(keys), room):
            some = keys[at : at + room]
            token = (first + at) * self._block_tokens
            parts = [Part(ns, some, Rule.PREFIX, first_token=token) for ns in self._namespaces]
            lookup.open += 1
            self._lookups += 1
            try:
                self._session.probe(
                    parts,
                    hold_s=self._options.hold_s,
                    prefetch=True,
                    deadline_s=self._options.lookup_deadline_s,
                    context=(lookup, at, len(some)),
                )
            except Exception:
                self._answered(lookup, at, 0)
                raise

    def advance(self) -> None:
        """Takes the answers that have come."""
        for call in self._session.advance():
            lookup, at, count = call.context
            if call.answer.hold_id:
                lookup.holds.append(call.answer.hold_id)
            self._answered(lookup, at, self._leading(call, count))

    def _leading(self, call: Call, count: int) -> int:
        """Keys from the first on that every part has."""
        answer = call.answer
        if not answer.ok:
            if answer.status != abi.Status.UNAVAILABLE:
                self._complaints.say(f"lookup: {answer.status.name}: {answer.error}")
            return 0
        least = count
        for part in range(len(answer.states) // count):
            states = answer.states[part * count : part * count + least]
            for key, state in enumerate(states):
                if state & 0x0F not in (KeyState.READY, KeyState.PENDING, KeyState.LOWER):
                    least = key
                    break
        return least if answer.states else 0

    def _answered(self, lookup: _Lookup, at: int, leading: int) -> None:
        self._lookups -= 1
        lookup.open -= 1
        room = abi.MOST_KEYS // len(self._namespaces)
        if leading < min(room, lookup.count - at):
            lookup.hits = min(lookup.hits, at + leading)
        if lookup.open:
            return
        lookup.answered_at = time.monotonic()
        self._tally.add("lookup_hits", lookup.hits)
        if lookup.forgotten:
            self._release(lookup.holds)

    def _drop(self, seen: _Seen) -> None:
        lookup, seen.lookup = seen.lookup, None
        if lookup is not None:
            lookup.forgotten = True
            if not lookup.open:
                self._release(lookup.holds)

    def _release(self, holds: List[bytes]) -> None:
        if holds:
            self._session.release(holds=holds)
        holds.clear()

    def clear(self, timeout_s: float) -> bool:
        """Whether all that was stored of this model is a miss now, for everybody; waits for it.
        Saves that are under way are not kept either."""
        for seen in self._seen.values():
            self._drop(seen)
        if not self._namespaces:
            return False
        calls = [self._session.clear(ns, deadline_s=timeout_s) for ns in self._namespaces]
        until = time.monotonic() + timeout_s
        for call in calls:
            self._session.wait(call, max(0.0, until - time.monotonic()))
        return all(call.answer is not None and call.answer.ok for call in calls)

    # ------------------------------------------------------------ the step

    def allocated(self, request: Any, blocks: List[int], external_tokens: int) -> None:
        """vLLM has blocks for a request, of which so many tokens are to be loaded."""
        seen = self._seen.setdefault(request.request_id, _Seen(request))
        seen.blocks = list(blocks)
        if external_tokens <= 0:
            return
        first, count = seen.asked, external_tokens // self._block_tokens
        keys = [_name(key) for key in request.block_hashes[first : first + count]]
        places = seen.blocks[first : first + count]
        if len(keys) != count or len(places) != count or len({len(key) for key in keys}) != 1:
            self._complaints.say("vLLM wants to load what was not found; the load fails")
            keys = []  # vLLM waits for it
        self._loads.append(LoadOrder(request.request_id, keys, places))
        seen.loads += 1
        if seen.lookup is not None:
            seen.holds += seen.lookup.holds
            seen.lookup.holds = []
            self._drop(seen)

    def plan(self, output: Any) -> Plan:
        """Of vLLM's SchedulerOutput."""
        self.advance()
        told = getattr(output, "preempted_req_ids", None)
        if not hasattr(output, "preempted_req_ids") and self._saves_wanted:
            self._saves_wanted = False
            self._complaints.say("this vLLM does not tell what it preempts; nothing is saved")
        preempted = set(told or ())
        for request_id in preempted:
            self._preempted(request_id)
        for new in output.scheduled_new_reqs:
            self._scheduled(output, new.req_id, new.num_computed_tokens, new.block_ids, True)
        cached = output.scheduled_cached_reqs
        for index, request_id in enumerate(cached.req_ids):
            resumed = _resumed(cached, index, request_id)
            blocks, computed = cached.new_block_ids[index], cached.num_computed_tokens[index]
            self._scheduled(output, request_id, computed, blocks, resumed)
        saves = self._saves()
        loads, self._loads = self._loads, []
        return Plan(loads, saves, preempted)

    def _preempted(self, request_id: str) -> None:
        seen = self._seen.get(request_id)
        if seen is not None:
            seen.blocks, seen.saved, seen.ordered = [], 0, False

    def _scheduled(
        self, output: Any, request_id: str, computed: int, blocks: Any, whole: bool
    ) -> None:
        seen = self._seen.get(request_id)
        if seen is None:
            return
        new = list(blocks[0]) if blocks else []
        seen.blocks = new if whole else seen.blocks + new
        self._reach[request_id] = computed + output.num_scheduled_tokens[request_id]

    def _saves(self) -> List[SaveOrder]:
        reach, self._reach = self._reach, {}
        if not self._saves_wanted or self._refused:
            return []
        orders = []
        for request_id, tokens in reach.items():
            try:
                order = self._save(self._seen[request_id], request_id, tokens)
            except Exception as error:
                self._complaints.say(f"blocks are not saved: {error}")
                continue
            if order is not None:
                orders.append(order)
        return orders

    def _save(self, seen: _Seen, request_id: str, tokens: int) -> Optional[SaveOrder]:
        """Tokens that vLLM has accepted, of the prompt alone where that is enough; drafts of
        speculative decoding are none."""
        request, size = seen.request, self._block_tokens
        known = request.num_tokens if self._options.save_decode else request.num_prompt_tokens
        hashes = request.block_hashes
        if len(hashes) > request.num_tokens // size:
            return None
        full = min(min(tokens, known, request.num_tokens) // size, len(hashes), len(seen.blocks))
        first = seen.saved
        if full <= first:
            return None
        keys = [_name(key) for key in hashes[first:full]]
        parent = _name(hashes[first - 1]) if first else b""
        seen.saved, seen.ordered = full, True
        return SaveOrder(request_id, keys, seen.blocks[first:full], first * size, parent)

    # ------------------------------------------------------------ what becomes of requests

    def finished(self, request_id: str) -> bool:
        """Whether its blocks must stay until the workers have said that it is saved."""
        seen = self._seen.pop(request_id, None)
        if seen is None:
            return False
        self._drop(seen)
        self._release(seen.holds)
        return seen.ordered

    def told(self, report: Optional[Report], received: Set[str]) -> None:
        """What workers have reported, and which loads have ended."""
        for request_id in received:
            if request_id in self._seen:
                self._release(self._seen[request_id].holds)
        if report is None:
            return
        if report.failed:
            self._tally.add("failed_loads", len(report.failed))
            self._paused_until = time.monotonic() + self._options.pause_s
        if report.ranks and not self.informed:
            self._report = self._report.merged(report)
            if len(self._report.ranks) >= self._ranks:
                self._take_facts()

    def _take_facts(self) -> None:
        ranks = [facts for _, facts in sorted(self._report.ranks.items())]
        refusals = [facts.refusal for facts in ranks if facts.refusal]
        if refusals:
            self._refused = True
            logger.warning("terrace: nothing is loaded or saved: %s", refusals[0])
            return
        # Replicated ranks have one between them.
        unique = {repr(record): record for facts in ranks for record in facts.records}
        if len(unique) > abi.MOST_PARTS:
            self._refused = True
            logger.warning("terrace: %d ranks and allocations, at most 64", len(unique))
            return
        self._namespaces = [self._session.namespace(record) for record in unique.values()]


def _resumed(cached: Any, index: int, request_id: str) -> bool:
    """Whether a cached request's blocks are all given anew."""
    ids = getattr(cached, "resumed_req_ids", None)
    if ids is not None:
        return request_id in ids
    return bool(cached.resumed_from_preemption[index])


def _name(block_hash: Any) -> bytes:
    """Raises TypeError for hashes of builds that had numbers: two processes disagree on those."""
    if not isinstance(block_hash, (bytes, bytearray, memoryview)):
        raise TypeError(f"a block's hash is of {type(block_hash).__name__}, not of bytes")
    return fitted(bytes(block_hash))
