"""What runs handlers: threads for plain functions, an asyncio loop on a thread of its own for `async def`.

Both take jobs from the desk's queue and put answers into a queue. A failing handler fails only its own message.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread, current_thread
from typing import Any, Awaitable, Callable, List, Optional, Tuple, Type

from . import frames
from .delivery import Answer, Delivery, Handler, describe, failure, success
from .desk import Answered, Desk
from .lanes import Job
from .retry import RetryPolicy

log = logging.getLogger("oncecast")

# Failures that are logged each second, at most.
FAILURES_PER_S = 10
# When so many answers wait, a handler thread lets the others run. Otherwise they would wait for Python's lock for 5 ms.
_YIELD_AT = 128
# Handlers that don't wait for anything would keep the loop from all else.
_YIELD_EVERY = 64


class FailureLog:
    """Logs failures of handlers, and how many were left out."""

    def __init__(self, trace: bool) -> None:
        self._trace = trace
        self._lock = Lock()
        self._second = 0.0
        self._logged = 0
        self._left_out = 0

    def add(self, delivery: Delivery, error: BaseException) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._second >= 1.0:
                if self._left_out:
                    log.warning("%d more failures of handlers were not logged", self._left_out)
                self._second, self._logged, self._left_out = now, 0, 0
            if self._logged >= FAILURES_PER_S:
                self._left_out += 1
                return
            self._logged += 1
        traceparent = delivery.traceparent if self._trace else None
        trace = f" traceparent={traceparent}," if traceparent else ""
        log.warning("message %s, delivery %d,%s failed: %s", delivery.key, delivery.number, trace, describe(error))


def is_async(handler: Handler) -> bool:
    """Whether calling the handler makes a coroutine."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))


class Pool:
    """What both kinds have."""

    def __init__(
        self,
        handler: Handler,
        desk: Desk,
        answers: SimpleQueue[Optional[Answered]],
        concurrency: int,
        trace: bool,
        retry: Optional[RetryPolicy] = None,
    ) -> None:
        self._handler: Callable[[Delivery], Any] = handler
        self._desk = desk
        self._answers = answers
        self._failures = FailureLog(trace)
        self._retry = retry
        self._stopping = False
        # The jobs of as many workers, each a thread or a task.
        self._running: List[Optional[Job]] = [None] * concurrency
        self._prepare()

    def _prepare(self) -> None:
        """Makes what only this kind has."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def stop(self, timeout: float) -> bool:
        """Starts no more handlers, and waits for those that run. Whether all have ended."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Ends what was started, without waiting, after starting has failed."""

    def all_hang(self) -> bool:
        """Whether no handler can start, because all that run have been given up."""
        latest = self._latest_start()
        return latest is not None and all(job is not None and 0.0 < job.started < latest for job in self._running)

    def _latest_start(self) -> Optional[float]:
        """A handler that started earlier has been given up."""
        timeout = self._desk.handler_timeout
        return None if timeout is None else time.monotonic() - timeout

    def _failed(self, delivery: Delivery, error: BaseException) -> Answer:
        """Never raises, whatever the error or the program's logging does: the message would stay held."""
        try:
            self._failures.add(delivery, error)
            delay_ms = frames.NACK_BACKOFF if self._retry is None else self._retry.delay_ms(delivery.number)
            return failure(delivery.id, error, delay_ms)
        except Exception:
            return frames.NACK, frames.nack_payload(delivery.id, frames.NACK_BACKOFF, type(error).__name__)


class ThreadPool(Pool):
    """Calls the handler on so many threads."""

    def _prepare(self) -> None:
        self._threads = [
            Thread(target=self._run, args=(at,), name=f"oncecast-handler-{at}", daemon=True)
            for at in range(len(self._running))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> bool:
        self._stopping = True
        for _ in self._threads:
            self._desk.jobs.put_end()
        until = time.monotonic() + timeout
        others = [thread for thread in self._threads if thread is not current_thread()]
        for thread in others:
            thread.join(max(until - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in others)

    def abandon(self) -> None:
        for _ in self._threads:
            self._desk.jobs.put_end()

    def _run(self, at: int) -> None:
        """A thread's loop."""
        handler, get, put, running = self._handler, self._desk.jobs.get, self._answers.put, self._running
        clock, waiting = time.monotonic, self._answers.qsize
        while True:
            job = get()
            if job is None:
                return
            job.started = clock()
            running[at] = job
            delivery = job.delivery
            try:
                command, payload = success(delivery.id, handler(delivery))
            except BaseException as error:  # SystemExit, too: a handler doesn't end the process.
                command, payload = self._failed(delivery, error)
            running[at] = None
            put((job, command, payload))
            if waiting() >= _YIELD_AT:
                time.sleep(0)


class AsyncioPool(Pool):
    """Awaits the handler in so many tasks of one loop."""

    def _prepare(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._ready = Event()
        self._workers: List[asyncio.Future[None]] = []
        self._waiting: List[asyncio.Future[None]] = []
        self._wake_is_due = False
        self._wake_due_since = 0.0
        self._thread = Thread(target=self._run, name="oncecast-asyncio", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        self._desk.on_jobs = self._wake

    def stop(self, timeout: float) -> bool:
        self._stopping = True
        self._wake()
        if self._thread is current_thread():
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._call(self._cancel)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        self._stopping = True
        if self._loop is not None:
            self._call(self._cancel)

    def all_hang(self) -> bool:
        latest = self._latest_start()
        blocked = latest is not None and self._wake_is_due and self._wake_due_since < latest
        return blocked or super().all_hang()

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # The loop has ended.
            pass

    def _run(self) -> None:
        """The thread."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            work = loop.create_task(self._work())
            while not work.done():
                _run_until_done(loop, work)
            # What handlers have started and not awaited.
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                _run_until_done(loop, asyncio.ensure_future(asyncio.wait(left, timeout=1.0), loop=loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        self._workers = [asyncio.ensure_future(self._worker(at)) for at in range(len(self._running))]
        # All end when the pool is stopped, some by being cancelled.
        await asyncio.wait(self._workers)

    def _wake(self) -> None:
        """Called by readers after they queued jobs."""
        if not self._wake_is_due or self._stopping:
            self._wake_due_since = time.monotonic()
            self._wake_is_due = True
            self._call(self._wake_workers)

    def _wake_workers(self) -> None:
        # Before the queue is read: what is queued later wakes again.
        self._wake_is_due = False
        count = len(self._waiting) if self._stopping else min(len(self._waiting), self._desk.jobs.qsize())
        for _ in range(count):
            waiting = self._waiting.pop()
            if not waiting.done():
                waiting.set_result(None)

    async def _worker(self, at: int) -> None:
        """A task's loop."""
        handler, get, put, running = self._handler, self._desk.jobs.get_nowait, self._answers.put, self._running
        assert self._loop is not None
        handled = 0
        while not self._stopping:
            try:
                job = get()
            except Empty:
                waiting = self._loop.create_future()
                self._waiting.append(waiting)
                await waiting
                continue
            if job is None:
                continue
            job.started = time.monotonic()
            running[at] = job
            delivery = job.delivery
            try:
                command, payload = success(delivery.id, await self._limited(handler(delivery)))
            except BaseException as error:
                if self._stopping or isinstance(error, GeneratorExit):
                    raise
                command, payload = self._failed(delivery, error)
            running[at] = None
            put((job, command, payload))
            handled += 1
            if handled % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _limited(self, call: Awaitable[Any]) -> Awaitable[Any]:
        timeout = self._desk.handler_timeout
        return call if timeout is None else self._in_time(call, timeout)

    async def _in_time(self, call: Awaitable[Any], timeout: float) -> Any:
        try:
            result, error = await asyncio.wait_for(_contained(call), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"the handler took longer than {timeout} s") from None
        if error is not None:
            raise error
        return result


async def _contained(call: Awaitable[Any]) -> Tuple[Any, Optional[BaseException]]:
    """The result or the error. The loop ends if a task of its own, which `wait_for` makes, raises one of these."""
    try:
        return await call, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def _run_until_done(loop: asyncio.AbstractEventLoop, work: asyncio.Future[Any]) -> None:
    """Runs the loop until this is done, or until a task that a handler has created ends it."""
    try:
        loop.run_until_complete(work)
    except (SystemExit, KeyboardInterrupt) as error:
        log.error("a task that a handler has created raised %s, which ends nothing here", describe(error))
    except RuntimeError as error:
        if work.done():
            raise
        log.error("a handler has stopped the loop, which goes on: %s", error)


def kind_of_pool(handler: Handler) -> Type[Pool]:
    """The pool that suits the handler."""
    return AsyncioPool if is_async(handler) else ThreadPool
