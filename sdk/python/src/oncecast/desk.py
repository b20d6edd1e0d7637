"""The state of a consumer: of each lane the active connection, the messages it holds, and the results it keeps.

What is known of one lane says nothing about another. One lock guards all of it (docs/PROTOCOL.md, section 5.2): making
a connection active, the list for HELD and accepting a message exclude each other. Nothing here blocks while it holds
the lock: `Link.send` only queues. Readers, the thread that sends answers, the ticker and callers of the consumer share
it.

A result is *kept* until it can't be needed any more. On a connection with oncecast.2 that is when RECORDED names it. In
version 1 nothing confirms a result, so it moves to *recent* once it is sent: it is listed and sent again after the next
LEAD, once. A leader counts results for what is no longer pending, over all connections.
"""

from __future__ import annotations

import logging
import time
from queue import Empty
from threading import Condition
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from . import frames
from .delivery import Delivery
from .frames import FrameError, Process
from .lanes import IDLE_S, MAX_LANES, Job, Lane, Turns, lane_number

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


# A job, and the command (RESULT or NACK) and the payload of its answer.
Answered = Tuple[Job, int, bytes]


class Desk:
    """See the module's text."""

    def __init__(self, group: str, consumer_id: str, prefetch: int, handler_timeout: Optional[float]) -> None:
        self.group = group
        self.consumer_id = consumer_id
        self.prefetch = prefetch
        self.handler_timeout = handler_timeout
        # Messages for the handlers.
        self.jobs = Turns()
        # Called after messages were queued.
        self.on_jobs: Callable[[], None] = lambda: None
        self._changed = Condition()
        self._lanes: Dict[int, Lane] = {0: Lane(0)}
        self._paused = False
        self._draining = False
        self._hurried = False
        # All threads run handlers that were given up.
        self._unable = False
        # The shortest of the lanes'.
        self.progress_interval = 1.0
        # A leader may count each twice, in HELD and as RESULT (section 5.9).
        self._most_recent = min(MAX_RECENT, (prefetch + MAX_RECENT) // 2)

    # Called by readers.

    def lead(self, link: Link, epoch: int, group: str) -> None:
        """Makes a connection active in a lane, and queues READY, HELD and what must follow them. Raises FrameError."""
        number = lane_number(self.group, group)
        if number is None:
            raise FrameError(frames.E_GROUP, f"this consumer is for the group {self.group}")
        if epoch > (time.time() + MAX_AHEAD_S) * 1000:
            # Epochs follow the clock of Redis, in ms. This one would keep out every true leader.
            raise FrameError(frames.E_STALE, f"epoch {epoch} is more than a day ahead of this consumer's clock")
        with self._changed:
            lane = self._lane(number)
            if epoch < lane.highest:
                raise FrameError(frames.E_STALE, f"epoch {epoch} is over")
            replaced, code = lane.active, frames.E_STALE if epoch > lane.highest else frames.E_REPLACED
            lane.highest = epoch
            lane.active = link
            link.lane = lane
            again = {id: payload for id, (_, payload) in lane.recent.items() if id not in lane.kept}
            lane.recent.clear()
            lane.recent_bytes = 0
            self._greet(link, lane, again)
            self._changed.notify_all()
        if replaced is not None:
            replaced.refuse(code, "another connection has taken over")

    def _lane(self, number: int) -> Lane:
        lane = self._lanes.get(number)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._remove_idle(0.0, time.monotonic())
            if self._draining or len(self._lanes) >= MAX_LANES:
                why = "stops" if self._draining else "serves too many lanes"
                raise FrameError(frames.E_UNAVAILABLE, f"lane {number} is not served: this consumer {why}")
            lane = self._lanes[number] = Lane(number)
        return lane

    def _remove_idle(self, limit: float, now: float) -> None:
        for lane in [lane for lane in self._lanes.values() if lane.number]:
            if not lane.is_idle():
                lane.idle_since = None
            else:
                lane.idle_since = now if lane.idle_since is None else lane.idle_since
                if now - lane.idle_since >= limit:
                    del self._lanes[lane.number]

    def _greet(self, link: Link, lane: Lane, again: Dict[int, bytes]) -> None:
        """`again`: results that were sent by version 1. They are sent once more, and kept only if it confirms them."""
        offered = 0 if self._paused and link.second else self.prefetch
        held = self._live(lane)
        listed = dict.fromkeys([*held, *lane.failed, *again, *lane.kept])
        if len(listed) > frames.MAX_IDS:
            log.warning("%d messages do not fit into HELD; some results are dropped", len(listed))
        ids = list(listed)[: frames.MAX_IDS]
        ready = frames.Ready(offered, frames.FLAG_DELIVER, self.consumer_id)
        link.offered = offered
        link.send([frames.encode(ready) + frames.encode(frames.Held(tuple(ids)))])
        results = [*again.values(), *lane.kept.values()]
        link.send(frames.answer_messages(results, list(lane.failed.values()), link.second))
        lane.failed.clear()
        if link.second:
            lane.kept = {**again, **lane.kept}
        else:
            self._remember(lane, lane.kept)
            lane.kept.clear()
        if self._draining or self._unable or (self._paused and not link.second):
            self._drain(link)

    def accept(self, link: Link, processes: Sequence[Process]) -> None:
        """Holds the messages and queues them for the handlers: all, or none of them and raises FrameError."""
        consumer_id = self.consumer_id
        taken: Dict[int, Job] = {}
        lane = link.lane
        with self._changed:
            if lane is None or link is not lane.active:
                raise FrameError(frames.E_STALE, "another connection has taken over")
            held = lane.held
            # With oncecast.2, a result that is kept was sent on this connection and has crossed the message.
            answered = lane.kept if link.second else {}
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
                taken[id] = Job(Delivery(body, id, number, channel, consumer_id, lane.number), lane, link)
            if len(taken) > room and len(taken) > link.offered - self._taking_room(link, lane):
                raise FrameError(frames.E_OVER_PREFETCH, f"more messages than the prefetch of {link.offered}")
            held.update(taken)
        if taken:
            self.jobs.put_all(lane, taken.values())
            self.on_jobs()

    def recorded(self, link: Link, ids: Sequence[int]) -> None:
        """Drops results that need not be kept any more."""
        with self._changed:
            lane = link.lane
            if lane is not None and link is lane.active:
                pop = lane.kept.pop
                for id in ids:
                    pop(id, None)
                if self._draining and not lane.kept:
                    self._changed.notify_all()

    def hello(self, link: Link, link_timeout_ms: object) -> None:
        """Notes the link timeout of a lane's leader, if it is one."""
        interval = 1.0
        if isinstance(link_timeout_ms, (int, float)) and 0 < link_timeout_ms < 3e9:
            interval = min(interval, max(link_timeout_ms / 3000, 0.01))
        with self._changed:
            if link.lane is not None:
                link.lane.progress_interval = interval
            self.progress_interval = min(lane.progress_interval for lane in self._lanes.values())

    def lost(self, link: Link) -> None:
        """The connection has ended."""
        with self._changed:
            lane = link.lane
            if lane is not None and link is lane.active:
                lane.active = None

    def lanes(self) -> int:
        """How many are served."""
        return len(self._lanes)

    def is_active(self, link: Link) -> bool:
        """Whether messages from this connection are accepted."""
        lane = link.lane
        return lane is not None and link is lane.active

    # Called by the thread that sends answers.

    def answer(self, batch: Sequence[Answered]) -> None:
        """Releases messages that were answered, and sends the answers, or keeps them for the next leader."""
        with self._changed:
            first = batch[0][0].lane
            if all(job.lane is first for job, _, _ in batch):
                self._answer(first, batch)
            else:
                by_lane: Dict[Lane, List[Answered]] = {}
                for answered in batch:
                    by_lane.setdefault(answered[0].lane, []).append(answered)
                for lane, part in by_lane.items():
                    self._answer(lane, part)
            if self._draining:
                self._changed.notify_all()

    def _answer(self, lane: Lane, batch: Sequence[Answered]) -> None:
        """Does that for the messages of one lane."""
        results: Dict[int, bytes] = {}
        nacks: List[bytes] = []
        link, held = lane.active, lane.held
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
                lane.failed[id] = payload
            else:
                nacks.append(payload)
        if link is None or link.second:
            lane.kept.update(results)
        if link is not None:
            link.send(frames.answer_messages(list(results.values()), nacks, link.second))
            if not link.second:
                self._remember(lane, results)

    def _remember(self, lane: Lane, results: Dict[int, bytes]) -> None:
        """Version 1: keeps results that were sent, the latest only."""
        now, recent = time.monotonic(), lane.recent
        for id, payload in results.items():
            if id in recent:
                lane.recent_bytes -= len(recent.pop(id)[1])
            recent[id] = (now, payload)
            lane.recent_bytes += len(payload)
        while len(recent) > self._most_recent or (lane.recent_bytes > MAX_RECENT_BYTES and recent):
            lane.forget_oldest()

    # Called by the ticker, and by readers for each ping.

    def progress(self, link: Optional[Link] = None) -> None:
        """Reports all that is held on each active connection (on this one, if it is)."""
        with self._changed:
            for lane in self._lanes.values():
                active = lane.active
                if active is not None and (link is None or link is active) and lane.held and not active.is_behind():
                    active.send(frames.progress_messages(list(self._live(lane))))

    def tick(self, all_hang: bool) -> None:
        """What time changes."""
        with self._changed:
            now = time.monotonic()
            for lane in self._lanes.values():
                if lane.active is not None and not lane.active.is_behind():
                    while lane.recent and next(iter(lane.recent.values()))[0] < now - RECENT_S:
                        lane.forget_oldest()
            if all_hang != self._unable:
                self._unable = all_hang
                if all_hang:
                    log.error("no handler can start: all that run take longer than handler_timeout; see why")
                    self._drain_active()
                    self._return_unstarted()
            for link, lane in self._active_links():
                if link.drained and not (self._draining or self._paused or self._unable):
                    if link.finish_by is None:
                        link.finish_by = now + FINISH_S
                    if now >= link.finish_by or not self._live(lane):
                        # The dispatcher connects again, and READY offers the full prefetch.
                        lane.active = None
                        link.close()
            self._remove_idle(IDLE_S, now)

    # Called by the consumer.

    def pause(self) -> None:
        """Asks for no more messages."""
        with self._changed:
            self._paused = True
            for link, _ in self._active_links():
                if link.second:
                    link.send([frames.encode(frames.Credit(0))])
                else:
                    self._drain(link)

    def resume(self) -> None:
        """Asks for messages again. In version 1 the ticker closes the connection for that."""
        with self._changed:
            self._paused = False
            for link, _ in self._active_links():
                if link.second and not link.drained:
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
            lanes = self._lanes.values()
            return sum(len(self._live(lane)) for lane in lanes), sum(len(lane.kept) for lane in lanes)

    # With the lock held.

    def _active_links(self) -> Iterator[Tuple[Link, Lane]]:
        for lane in self._lanes.values():
            if lane.active is not None:
                yield lane.active, lane

    def _given_up(self, job: Job, now: float) -> bool:
        return self.handler_timeout is not None and 0.0 < job.started < now - self.handler_timeout

    def _live(self, lane: Lane) -> List[int]:
        """The ids of what is held, less what is given up (section 5.4)."""
        if self.handler_timeout is None:
            return list(lane.held)
        now = time.monotonic()
        return [id for id, job in lane.held.items() if not self._given_up(job, now)]

    def _taking_room(self, link: Link, lane: Lane) -> int:
        """How many held messages count against the connection's prefetch. By version 1 the leader gives no place to
        what was held before and is no longer pending."""
        return len(self._live(lane)) if link.second else sum(lane.held[id].link is link for id in self._live(lane))

    def _is_done(self) -> bool:
        return not any(lane.kept or self._live(lane) for lane in self._lanes.values())

    def _is_done_or_hurried(self) -> bool:
        return self._hurried or self._is_done()

    def _drain_active(self) -> None:
        for link, _ in self._active_links():
            self._drain(link)

    def _drain(self, link: Link) -> None:
        if not link.drained:
            link.drained = True
            link.send([frames.encode(frames.Drain())])

    def _return_unstarted(self) -> int:
        nacks: Dict[Lane, List[bytes]] = {}
        try:
            while True:
                job = self.jobs.get_nowait()
                if job is not None and job.lane.held.get(job.delivery.id) is job:
                    del job.lane.held[job.delivery.id]
                    nacks.setdefault(job.lane, []).append(frames.nack_payload(job.delivery.id, 0, ""))
        except Empty:
            pass
        for lane, payloads in nacks.items():
            if lane.active is not None and lane.active.drained:
                lane.active.send(frames.answer_messages([], payloads, lane.active.second))
        self._changed.notify_all()
        return sum(map(len, nacks.values()))
