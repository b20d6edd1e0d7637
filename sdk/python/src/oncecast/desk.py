"""The state of a consumer: the active connection, the messages it holds, and the results it keeps.

One lock guards all of it (docs/PROTOCOL.md, section 5.2): making a connection active, the list for HELD and accepting
a message exclude each other. Nothing here blocks while it holds the lock: `Link.send` only queues. Readers, the thread
that sends answers, the ticker and callers of the consumer share it.

A result is *kept* until it can't be needed any more. On a connection with oncecast.2 that is when RECORDED names it. In
version 1 nothing confirms a result, so it moves to *recent* once it is sent: it is listed and sent again after the next
LEAD, once. A leader counts results for what is no longer pending, over all connections.
"""

from __future__ import annotations

import logging
import time
from queue import Empty, SimpleQueue
from threading import Condition
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from . import frames
from .delivery import Delivery
from .frames import FrameError, Process

if TYPE_CHECKING:
    from .link import Link

log = logging.getLogger("oncecast")

# Version 1: how long a result that was sent is kept, how many, and how many bytes.
RECENT_S = 10.0
MAX_RECENT = 1_000
MAX_RECENT_BYTES = 16 << 20
# How far ahead of this clock an epoch may be.
MAX_AHEAD_S = 24 * 3600.0
# How long a connection that was drained is kept for what the consumer still holds, once it can work again.
FINISH_S = 10.0


class Job:
    """A message that the consumer holds, delivered on `link`. `started` is 0 until a handler begins."""

    __slots__ = ("delivery", "started", "link")

    def __init__(self, delivery: Delivery, link: Optional[Link] = None) -> None:
        self.delivery = delivery
        self.started = 0.0
        self.link = link


# A job, and the command (RESULT or NACK) and the payload of its answer.
Answered = Tuple[Job, int, bytes]


class Desk:
    """See the module's text."""

    def __init__(self, group: str, consumer_id: str, prefetch: int, handler_timeout: Optional[float]) -> None:
        self.group = group
        self.consumer_id = consumer_id
        self.prefetch = prefetch
        self.handler_timeout = handler_timeout
        # Messages for the handlers; None ends one of their threads.
        self.jobs: SimpleQueue[Optional[Job]] = SimpleQueue()
        # Called after messages were queued.
        self.on_jobs: Callable[[], None] = lambda: None
        self._changed = Condition()
        self._active: Optional[Link] = None
        self._highest = 0
        self._held: Dict[int, Job] = {}
        self._kept: Dict[int, bytes] = {}
        self._recent: Dict[int, Tuple[float, bytes]] = {}
        self._recent_bytes = 0
        self._failed: Dict[int, bytes] = {}
        self._paused = False
        self._draining = False
        self._hurried = False
        # All threads run handlers that were given up.
        self._unable = False
        # Seconds between PROGRESS frames: a third of the leader's link timeout if that is less than 3 s.
        self.progress_interval = 1.0
        # A leader may count each twice, in HELD and as RESULT (section 5.9).
        self._most_recent = min(MAX_RECENT, (prefetch + MAX_RECENT) // 2)

    # Called by readers.

    def lead(self, link: Link, epoch: int) -> None:
        """Makes a connection active, and queues READY, HELD and what must follow them. Raises FrameError."""
        with self._changed:
            if epoch < self._highest:
                raise FrameError(frames.E_STALE, f"epoch {epoch} is over")
            if epoch > (time.time() + MAX_AHEAD_S) * 1000:
                # Epochs follow the clock of Redis, in ms. This one would keep out every true leader.
                raise FrameError(frames.E_STALE, f"epoch {epoch} is more than a day ahead of this consumer's clock")
            replaced, code = self._active, frames.E_STALE if epoch > self._highest else frames.E_REPLACED
            self._highest = epoch
            self._active = link
            again = {id: payload for id, (_, payload) in self._recent.items() if id not in self._kept}
            self._recent.clear()
            self._recent_bytes = 0
            self._greet(link, again)
            self._changed.notify_all()
        if replaced is not None:
            replaced.refuse(code, "another connection has taken over")

    def _greet(self, link: Link, again: Dict[int, bytes]) -> None:
        """`again`: results that were sent by version 1. They are sent once more, and kept only if it confirms them."""
        offered = 0 if self._paused and link.second else self.prefetch
        held = self._live()
        listed = dict.fromkeys([*held, *self._failed, *again, *self._kept])
        if len(listed) > frames.MAX_IDS:
            log.warning("%d messages do not fit into HELD; some results are dropped", len(listed))
        ids = list(listed)[: frames.MAX_IDS]
        ready = frames.Ready(offered, frames.FLAG_DELIVER, self.consumer_id)
        link.offered = offered
        link.send([frames.encode(ready) + frames.encode(frames.Held(tuple(ids)))])
        results = [*again.values(), *self._kept.values()]
        link.send(frames.answer_messages(results, list(self._failed.values()), link.second))
        self._failed.clear()
        if link.second:
            self._kept = {**again, **self._kept}
        else:
            self._remember(self._kept)
            self._kept.clear()
        if self._draining or self._unable or (self._paused and not link.second):
            self._drain(link)

    def accept(self, link: Link, processes: Sequence[Process]) -> None:
        """Holds the messages and queues them for the handlers: all, or none of them and raises FrameError."""
        consumer_id = self.consumer_id
        taken: Dict[int, Job] = {}
        held = self._held
        with self._changed:
            # With oncecast.2, a result that is kept was sent on this connection and has crossed the message.
            answered = self._kept if link.second else {}
            if link is not self._active:
                raise FrameError(frames.E_STALE, "another connection has taken over")
            if link.drained:
                # Without a reason: not started. Without this they would stay with us until the connection closes.
                late = [frames.nack_payload(p.id, 0, "") for p in processes if not (p.id in held or p.id in answered)]
                link.send(frames.answer_messages([], late, link.second))
                return
            room = link.offered - len(held)
            for id, number, body, channel in processes:
                job = held.get(id) or taken.get(id)
                if job is not None and not self._given_up(job, time.monotonic()):
                    job.link = link
                    if not job.started:
                        job.delivery.number = number
                    continue
                if id in answered:
                    continue
                taken[id] = Job(Delivery(body, id, number, channel, consumer_id), link)
            if len(taken) > room and len(taken) > link.offered - self._taking_room(link):
                raise FrameError(frames.E_OVER_PREFETCH, f"more messages than the prefetch of {link.offered}")
            held.update(taken)
        put = self.jobs.put
        for job in taken.values():
            put(job)
        if taken:
            self.on_jobs()

    def recorded(self, link: Link, ids: Sequence[int]) -> None:
        """Drops results that need not be kept any more."""
        with self._changed:
            if link is self._active:
                pop = self._kept.pop
                for id in ids:
                    pop(id, None)
                if self._draining and not self._kept:
                    self._changed.notify_all()

    def hello(self, link_timeout_ms: object) -> None:
        """Notes the leader's link timeout, if it is one."""
        interval = 1.0
        if isinstance(link_timeout_ms, (int, float)) and 0 < link_timeout_ms < 3e9:
            interval = min(interval, max(link_timeout_ms / 3000, 0.01))
        self.progress_interval = interval

    def lost(self, link: Link) -> None:
        """The connection has ended."""
        with self._changed:
            if link is self._active:
                self._active = None

    def is_active(self, link: Link) -> bool:
        """Whether messages from this connection are accepted."""
        return link is self._active

    # Called by the thread that sends answers.

    def answer(self, batch: Sequence[Answered]) -> None:
        """Releases messages that were answered, and sends the answers, or keeps them for the next leader."""
        results: Dict[int, bytes] = {}
        nacks: List[bytes] = []
        with self._changed:
            link, held = self._active, self._held
            for job, command, payload in batch:
                id = job.delivery.id
                # Another job holds the id if this one was given up and the message delivered again.
                current = held.get(id)
                if current is job:
                    del held[id]
                if command == frames.RESULT:
                    results[id] = payload
                elif current is not job:
                    continue
                elif link is None:
                    self._failed[id] = payload
                else:
                    nacks.append(payload)
            if link is None or link.second:
                self._kept.update(results)
            if link is not None:
                link.send(frames.answer_messages(list(results.values()), nacks, link.second))
                if not link.second:
                    self._remember(results)
            if self._draining:
                self._changed.notify_all()

    def _remember(self, results: Dict[int, bytes]) -> None:
        """Version 1: keeps results that were sent, the latest only."""
        now, recent = time.monotonic(), self._recent
        for id, payload in results.items():
            if id in recent:
                self._recent_bytes -= len(recent.pop(id)[1])
            recent[id] = (now, payload)
            self._recent_bytes += len(payload)
        while len(recent) > self._most_recent or (self._recent_bytes > MAX_RECENT_BYTES and recent):
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        id = next(iter(self._recent))
        self._recent_bytes -= len(self._recent.pop(id)[1])

    # Called by the ticker, and by readers for each ping.

    def progress(self, link: Optional[Link] = None) -> None:
        """Reports all that is held on the active connection (on this one, if it is)."""
        with self._changed:
            active = self._active
            if active is not None and (link is None or link is active) and self._held and not active.is_behind():
                active.send(frames.progress_messages(list(self._live())))

    def tick(self, all_hang: bool) -> None:
        """What time changes."""
        with self._changed:
            now, link = time.monotonic(), self._active
            if link is not None and not link.is_behind():
                while self._recent and next(iter(self._recent.values()))[0] < now - RECENT_S:
                    self._forget_oldest()
            if all_hang != self._unable:
                self._unable = all_hang
                if all_hang:
                    log.error("no handler can start: all that run take longer than handler_timeout; see why")
                    self._drain_active()
                    self._return_unstarted()
            if link is not None and link.drained and not (self._draining or self._paused or self._unable):
                if link.finish_by is None:
                    link.finish_by = now + FINISH_S
                if now >= link.finish_by or not self._live():
                    # The dispatcher connects again, and READY offers the full prefetch.
                    self._active = None
                    link.close()

    # Called by the consumer.

    def pause(self) -> None:
        """Asks for no more messages."""
        with self._changed:
            self._paused = True
            link = self._active
            if link is not None and link.second:
                link.send([frames.encode(frames.Credit(0))])
            elif link is not None:
                self._drain(link)

    def resume(self) -> None:
        """Asks for messages again. In version 1 the ticker closes the connection for that."""
        with self._changed:
            self._paused = False
            link = self._active
            if link is not None and link.second and not link.drained:
                link.offered = self.prefetch
                link.send([frames.encode(frames.Credit(self.prefetch))])

    def drain(self) -> None:
        """Asks for no more messages, ever."""
        with self._changed:
            self._draining = True
            self._drain_active()

    def wait_until_done(self, timeout: float) -> bool:
        """Waits until nothing is held and all results are sent (oncecast.2: recorded), or until `hurry`."""
        with self._changed:
            return self._changed.wait_for(self._is_done_or_hurried, timeout) and self._is_done()

    def hurry(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def return_unstarted(self) -> int:
        """Takes the messages that no handler has started from the queue, and returns them to the leader."""
        with self._changed:
            return self._return_unstarted()

    def unfinished(self) -> Tuple[int, int]:
        """How many messages are held, and how many results are not known to be recorded or not sent."""
        with self._changed:
            return len(self._live()), len(self._kept)

    # With the lock held.

    def _given_up(self, job: Job, now: float) -> bool:
        return self.handler_timeout is not None and 0.0 < job.started < now - self.handler_timeout

    def _live(self) -> List[int]:
        """The ids of what is held, less what is given up (section 5.4)."""
        if self.handler_timeout is None:
            return list(self._held)
        now = time.monotonic()
        return [id for id, job in self._held.items() if not self._given_up(job, now)]

    def _taking_room(self, link: Link) -> int:
        """How many held messages count against the connection's prefetch. By version 1 the leader gives no place to
        what was held before and is no longer pending."""
        return len(self._live()) if link.second else sum(self._held[id].link is link for id in self._live())

    def _is_done(self) -> bool:
        return not self._kept and not self._live()

    def _is_done_or_hurried(self) -> bool:
        return self._hurried or self._is_done()

    def _drain_active(self) -> None:
        if self._active is not None:
            self._drain(self._active)

    def _drain(self, link: Link) -> None:
        if not link.drained:
            link.drained = True
            link.send([frames.encode(frames.Drain())])

    def _return_unstarted(self) -> int:
        nacks = []
        try:
            while True:
                job = self.jobs.get_nowait()
                if job is not None and self._held.get(job.delivery.id) is job:
                    del self._held[job.delivery.id]
                    nacks.append(frames.nack_payload(job.delivery.id, 0, ""))
        except Empty:
            pass
        if self._active is not None and self._active.drained:
            self._active.send(frames.answer_messages([], nacks, self._active.second))
        self._changed.notify_all()
        return len(nacks)
