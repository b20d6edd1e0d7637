"""The lanes of a group (docs/PROTOCOL.md, section 5.11): their names, what a consumer knows of each, and their turns.

Nothing here blocks, except `Turns.get`.
"""

from __future__ import annotations

import re
from collections import deque
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Deque, Dict, Iterable, Optional, Tuple

from .delivery import Delivery

if TYPE_CHECKING:
    from .link import Link

# The most lanes that are served at a time, and how long one may have neither a connection nor a message nor a result.
MAX_LANES = 256
IDLE_S = 300.0
_MAX_NUMBER = 65_535

# As Redis Cluster finds it: between the first brace that opens and the first one that closes after it.
_TAG = re.compile(r"([^{]*\{[^}]+)(\}.*)", re.DOTALL)
_LANE = re.compile(r"[^{]*\{[^}]+/([1-9][0-9]{0,4})\}")


def lane_number(group: str, name: str) -> Optional[int]:
    """Which lane of the group has this name: 0 for the group's own, 3 for ``{orders/3}`` of ``{orders}``."""
    if name == group:
        return 0
    tagged = _TAG.fullmatch(group)
    if tagged is None or len(name.encode()) > 256:
        return None
    before, after = tagged.groups()
    # Plain digits, without a sign or leading zeros.
    found = re.fullmatch(re.escape(before) + "/([1-9][0-9]{0,4})" + re.escape(after), name)
    number = 0 if found is None else int(found.group(1))
    return number if 0 < number <= _MAX_NUMBER else None


def is_lane(name: str) -> bool:
    """Whether a name is that of a lane, other than lane 0, of some group. No group may be named so."""
    found = _LANE.match(name)
    return found is not None and int(found.group(1)) <= _MAX_NUMBER


class Job:
    """A message that the consumer holds, delivered on `link`. `started` is 0 until a handler begins."""

    __slots__ = ("delivery", "lane", "started", "link")

    def __init__(self, delivery: Delivery, lane: Lane, link: Optional[Link] = None) -> None:
        self.delivery = delivery
        self.lane = lane
        self.started = 0.0
        self.link = link


class Lane:
    """What a consumer knows of a lane. Guarded by the desk's lock, except `waiting`, which is the turns'."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.active: Optional[Link] = None
        self.highest = 0
        self.held: Dict[int, Job] = {}
        self.kept: Dict[int, bytes] = {}
        self.recent: Dict[int, Tuple[float, bytes]] = {}
        self.recent_bytes = 0
        self.failed: Dict[int, bytes] = {}
        # Seconds between PROGRESS frames: a third of the leader's link timeout if that is less than 3 s.
        self.progress_interval = 1.0
        self.idle_since: Optional[float] = None
        # Messages that no handler has begun.
        self.waiting: Deque[Job] = deque()

    def is_idle(self) -> bool:
        """Whether there is nothing that a leader could still need."""
        return self.active is None and not (self.held or self.kept or self.recent or self.failed)

    def forget_oldest(self) -> None:
        """Drops the oldest result that version 1 was sent."""
        id = next(iter(self.recent))
        self.recent_bytes -= len(self.recent.pop(id)[1])


class Turns:
    """Messages for the handlers. Lanes with messages take turns, whatever each of them has waiting."""

    def __init__(self) -> None:
        # One for each message, and None for each thread that is to end.
        self._tickets: SimpleQueue[Optional[bool]] = SimpleQueue()
        self._lock = Lock()
        self._line: Deque[Deque[Job]] = deque()
        self.qsize = self._tickets.qsize

    def put_all(self, lane: Lane, jobs: Iterable[Job]) -> None:
        """Queues messages of a lane."""
        waiting = lane.waiting
        with self._lock:
            before = len(waiting)
            waiting.extend(jobs)
            count = len(waiting) - before
            if count and not before:
                self._line.append(waiting)
        for _ in range(count):
            self._tickets.put(True)

    def put_end(self) -> None:
        """Ends one thread."""
        self._tickets.put(None)

    def get(self) -> Optional[Job]:
        """Waits for the next message; None ends the calling thread."""
        return None if self._tickets.get() is None else self._next()

    def get_nowait(self) -> Optional[Job]:
        """Like `get`; raises Empty if there is none."""
        return None if self._tickets.get_nowait() is None else self._next()

    def _next(self) -> Job:
        with self._lock:
            line = self._line
            waiting = line.popleft()
            job = waiting.popleft()
            if waiting:
                line.append(waiting)
        return job
