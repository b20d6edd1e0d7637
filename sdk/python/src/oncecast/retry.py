"""A consumer's own policy for failed messages: how long each waits for its next delivery.

Pure. The same forms as the setting ``retry`` of dispatchers and of the consumer program.
"""

from __future__ import annotations

import math
import random
import re
from typing import Optional, Tuple

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_WAIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SHORTEST_S, _LONGEST_S = 1e-3, 86_400.0
_MOST_FACTOR = 100.0
# The longest jitter, as a fraction of the wait.
_MOST_JITTER = 0.25
_FORMS = "exponential:FIRST..MOST*FACTOR such as exponential:200ms..5m*4, fixed:WAIT such as fixed:5s, or none"


class RetryPolicy:
    """``exponential:200ms..5m*4``, ``fixed:5s`` or ``none``. Raises ValueError for any other text."""

    __slots__ = ("_first", "_most", "_factor")

    def __init__(self, text: str) -> None:
        self._first, self._most, self._factor = _parsed(text)

    def wait(self, delivery: int) -> float:
        """The seconds before the delivery with this number, without jitter."""
        try:
            return min(self._first * self._factor ** max(delivery - 2, 0), self._most)
        except OverflowError:
            return self._most

    def delay_ms(self, failed: int, chance: Optional[float] = None) -> int:
        """The delay of a NACK after the delivery with this number, with jitter. At least 1: 0 would leave it open."""
        chance = random.random() if chance is None else chance
        return max(1, math.ceil(self.wait(failed + 1) * (1 + _MOST_JITTER * chance) * 1000))


def _parsed(text: str) -> Tuple[float, float, float]:
    if text == "none":
        return 0.0, 0.0, 1.0
    kind, _, rest = text.partition(":")
    if kind == "fixed":
        wait = _wait(rest)
        if wait is not None:
            return wait, wait, 1.0
    elif kind == "exponential":
        found = re.fullmatch(r"([^.]+(?:\.[^.]+)?)\.\.([^*]+)\*([0-9]+(?:\.[0-9]+)?)", rest)
        first, most = (_wait(found[1]), _wait(found[2])) if found else (None, None)
        if found and first is not None and most is not None and first <= most:
            factor = float(found[3])
            if 1.0 <= factor <= _MOST_FACTOR:
                return first, most, factor
    raise ValueError(f"retry takes {_FORMS}, with waits from 1ms to 24h; not {text!r}")


def _wait(text: str) -> Optional[float]:
    found = _WAIT.fullmatch(text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    return seconds if _SHORTEST_S <= seconds <= _LONGEST_S else None
