"""Logs what strangers can cause as often as they like: the first ones as they are, later ones in sum. Any thread."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Callable, Dict, Tuple

log = logging.getLogger("oncecast")

LINES_AT_ONCE = 5
LINES_PER_S = 1.0


class _Sum:
    def __init__(self, now: float) -> None:
        self.tokens = float(LINES_AT_ONCE)
        self.at = now
        self.left_out = 0
        self.level = logging.INFO
        self.latest = ""

    def may_log(self, now: float) -> bool:
        self.tokens = min(self.tokens + (now - self.at) * LINES_PER_S, LINES_AT_ONCE)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Sums:
    """Events of a few kinds, each with its own pace. `rest` is to be called each second or so."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._kinds: Dict[str, _Sum] = {}

    def note(self, kind: str, level: int, text: str) -> None:
        with self._lock:
            now = self._clock()
            sum = self._kinds.setdefault(kind, _Sum(now))
            if sum.left_out or not sum.may_log(now):
                sum.left_out += 1
                sum.level, sum.latest = level, text
                return
        log.log(level, "%s", text)

    def rest(self, all: bool = False) -> None:
        """Logs how many were left out, of the kinds that may be logged again."""
        lines = []
        with self._lock:
            now = self._clock()
            for sum in self._kinds.values():
                if sum.left_out and (sum.may_log(now) or all):
                    lines.append((sum.level, sum.left_out, sum.latest))
                    sum.left_out = 0
        for level, count, latest in lines:
            log.log(level, "%s" if count == 1 else "%s (and %d more of this kind)", *_arguments(latest, count))


def _arguments(latest: str, count: int) -> Tuple[object, ...]:
    return (latest,) if count == 1 else (latest, count - 1)
