"""What a plug-in counts and what it complains of."""
import logging
import threading
import time
from typing import Dict, Sequence, Tuple

logger = logging.getLogger(__name__)

_COMPLAIN_AGAIN_S = 60.0
_MOST_COMPLAINTS = 64


class Tally:
    """Named counters. Thread-safe."""

    def __init__(self, names: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(names, 0)
        self._taken = dict.fromkeys(names, 0)

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._totals[name] += count

    def totals(self) -> Dict[str, int]:
        with self._lock:
            return dict(self._totals)

    def take(self) -> Dict[str, int]:
        """What was counted since the last time, without what was not."""
        with self._lock:
            new = {
                name: total - self._taken[name]
                for name, total in self._totals.items()
                if total != self._taken[name]
            }
            self._taken = dict(self._totals)
        return new


class Complaints:
    """Warnings that a fault which lasts repeats once a minute, with how often it came.
    Thread-safe."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._lock = threading.Lock()
        self._seen: Dict[str, Tuple[float, int]] = {}

    def say(self, what: str, exception: bool = False) -> None:
        now = time.monotonic()
        with self._lock:
            due, count = self._seen.get(what, (0.0, 0))
            if now < due:
                self._seen[what] = (due, count + 1)
                return
            if len(self._seen) >= _MOST_COMPLAINTS:
                self._seen.clear()
            self._seen[what] = (now + _COMPLAIN_AGAIN_S, 0)
        times = f" ({count} more times since)" if count else ""
        logger.warning("%s: %s%s", self._who, what, times, exc_info=exception)
