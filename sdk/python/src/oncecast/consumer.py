"""The consumer: its settings, its threads, and how it stops."""

from __future__ import annotations

import logging
import os
import signal
import threading
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from types import FrameType, TracebackType
from typing import Any, Dict, List, Optional, Type

from . import frames
from .delivery import Handler
from .desk import Answered, Desk
from .lanes import is_lane
from .link import Terms
from .pool import kind_of_pool
from .retry import RetryPolicy
from .secret import LinkSecret
from .server import Server
from .sums import Sums
from .tls import Certificates, Path

log = logging.getLogger("oncecast")

# How long handlers that run get once the drain timeout is over.
GRACE_S = 1.0
# How often signals are looked for that have not ended a wait.
SIGNAL_CHECK_S = 0.5
# How long writing what is left and closing connections may take.
CLOSE_S = 2.0
# The most answers in one step.
MAX_BATCH = 4_096
MAX_CONCURRENCY = 4_096
_OPEN = (
    "whoever reaches %s may claim to be the dispatcher; give link_secret_file here and --link-secret-file to the"
    " dispatchers, or require certificates of them with tls_client_ca"
)
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Consumer:
    """Receives messages from Oncecast's dispatchers, runs a handler for each, and sends back what to record.

    The handler is a function of a `Delivery`. It returns None, or a mapping of names to values that are recorded in
    the group's result stream; it raises `Retry`, `Reject`, or anything else, which is a retry. A plain function is
    called on `concurrency` threads; an ``async def`` function runs on an asyncio loop of its own, so many at a time.

    `run` does all that a program needs. `start` and `stop`, or ``with``, are for embedding.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        group: str = "messages",
        listen: str = "127.0.0.1:6969",
        consumer_id: Optional[str] = None,
        concurrency: Optional[int] = None,
        prefetch: Optional[int] = None,
        handler_timeout: Optional[float] = None,
        drain_timeout: float = 7.0,
        retry: Optional[str] = None,
        trace: bool = False,
        tls_cert: Optional[Path] = None,
        tls_key: Optional[Path] = None,
        tls_client_ca: Optional[Path] = None,
        link_secret_file: Optional[Path] = None,
    ) -> None:
        """
        :param group: The consumer group, the same as the dispatchers'.
        :param listen: Where dispatchers connect, as ``host:port``; port 0 selects any free port.
        :param consumer_id: The name by which dispatchers know this consumer. Default: the listen address.
        :param concurrency: How many handlers run at the same time. Default: the number of cores.
        :param prefetch: The most messages held at a time, including those that wait for a handler. Default: twice the
            concurrency, which suits slow handlers. Fast handlers need more, such as 1024.
        :param handler_timeout: Seconds after which a handler is given up: its message goes to another consumer. A
            thread stays occupied until its handler returns; a coroutine is cancelled. Default: no limit.
        :param drain_timeout: How many seconds a stopping consumer works on the messages that it holds.
        :param retry: How long a message that failed waits for its next delivery, unless the handler raised a `Retry`
            with ``after``: ``exponential:200ms..5m*4``, ``fixed:5s`` or ``none``. Default: what the dispatchers'
            setting of this name says.
        :param trace: Whether the log of failed handlers has the messages' `Delivery.traceparent`.
        :param tls_cert: A PEM file with this consumer's certificate, followed by those between it and its authority.
            Dispatchers then need TLS: their addresses for it begin with ``wss://``. It and the other files are read
            again when they have changed.
        :param tls_key: A PEM file with the certificate's key, not encrypted.
        :param tls_client_ca: A PEM file with certificates of authorities. Dispatchers then need a certificate that one
            of them has signed.
        :param link_secret_file: A file with a secret in its only line, the same as the dispatchers'; consumer and
            dispatchers prove to each other that they know it. In two lines, both count. It is read again when it has
            changed.
        """
        if not callable(handler):
            raise TypeError("handler must be callable")
        if concurrency is None:
            concurrency = os.cpu_count() or 1
        if prefetch is None:
            prefetch = 2 * concurrency
        _check("group", group, 1 <= len(group.encode()) <= 256 and not any(map(str.isspace, group)))
        if is_lane(group):
            problem = "/ and a number end its braces, which names a lane of another group"
            raise ValueError(f"group can't be {group!r}: {problem}: give that group, or another name")
        _check("concurrency", concurrency, _is_whole(concurrency) and 1 <= concurrency <= MAX_CONCURRENCY)
        _check("prefetch", prefetch, _is_whole(prefetch) and 1 <= prefetch <= frames.MAX_PREFETCH)
        _check("handler_timeout", handler_timeout, handler_timeout is None or handler_timeout > 0)
        _check("drain_timeout", drain_timeout, 0 <= drain_timeout <= threading.TIMEOUT_MAX / 2)
        _check("consumer_id", consumer_id, consumer_id is None or _is_consumer_id(consumer_id))
        self._handler = handler
        self._group = group
        self._listen = self._address = listen
        self._consumer_id = consumer_id
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._handler_timeout = handler_timeout
        self._drain_timeout = drain_timeout
        self._retry = None if retry is None else RetryPolicy(retry)
        self._trace = bool(trace)
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or none")
        if tls_client_ca is not None and tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        self._tls_cert, self._tls_key, self._tls_client_ca = tls_cert, tls_key, tls_client_ca
        self._link_secret_file = link_secret_file
        self._lock = Lock()
        self._running: Optional[_Running] = None
        self._paused = False
        self._started = False
        self._ran = False
        self._stopped = Event()
        # What `run` waits for: "signal" or "stopped". A SimpleQueue may be used in a signal handler.
        self._news: SimpleQueue[str] = SimpleQueue()

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``; before it is started, what `listen` was."""
        return self._address

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT, or until `stop` is called, and finishes what the consumer holds.

        It starts the consumer unless it is started already. In a thread other than the main one, signals are left
        alone. A second signal ends the waiting.
        """
        with self._lock:
            if self._ran or self._stopped.is_set():
                raise RuntimeError("a consumer can be run once, and not after it was stopped")
            self._ran = True
        previous: Dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                previous[number] = signal.signal(number, self._on_signal)
        try:
            if not self._started:
                self.start()
            running = self._running
            if self._next_news() == "signal":
                stopper = Thread(target=self.stop, name="oncecast-stop", daemon=True)
                stopper.start()
                if self._next_news() == "signal":
                    if running is not None:
                        running.desk.hurry()
                stopper.join()
        finally:
            self.stop()
            for taken, handler in previous.items():
                # None: it was not installed from Python, and can't be installed again.
                signal.signal(taken, signal.SIG_DFL if handler is None else handler)

    def _next_news(self) -> str:
        # A signal that the system gives to another thread, or just before the wait, does not end the wait: the handler
        # runs once this thread runs again.
        while True:
            try:
                return self._news.get(timeout=SIGNAL_CHECK_S)
            except Empty:
                pass

    def start(self) -> None:
        """Listens, and returns.

        Raises OSError if the address can't be listened on, and ValueError if a file that a setting names can't be used.
        """
        with self._lock:
            if self._started:
                raise RuntimeError("a consumer can be started once")
            server = Server(self._listen, self._terms())
            self._address = server.address
            consumer_id = self._consumer_id or server.address
            desk = Desk(self._group, consumer_id, self._prefetch, self._handler_timeout)
            if self._paused:
                desk.pause()
            try:
                self._running = _Running(self._handler, desk, server, self._concurrency, self._trace, self._retry)
            except BaseException:  # For instance if there can be no more threads.
                server.abandon()
                raise
            self._started = True

    def _terms(self) -> Terms:
        """Reads the files."""
        certificates = None
        if self._tls_cert is not None and self._tls_key is not None:
            certificates = Certificates(self._tls_cert, self._tls_key, self._tls_client_ca)
        secret = None if self._link_secret_file is None else LinkSecret(self._link_secret_file)
        return Terms(certificates, secret, Sums())

    def stop(self, timeout: Optional[float] = None) -> None:
        """Stops: asks for no more messages, works on those it holds for so many seconds, returns the rest.

        The default is the `drain_timeout`. Calls after the first one wait for the end.
        """
        with self._lock:
            running, self._running = self._running, None
            if not self._started:
                return
        if running is not None:
            try:
                running.stop(self._drain_timeout if timeout is None else timeout)
            finally:
                self._stopped.set()
                self._news.put("stopped")
        self._stopped.wait()

    def pause(self) -> None:
        """Asks for no more messages until `resume`. What it holds is finished."""
        with self._lock:
            self._paused = True
            if self._running is not None:
                self._running.desk.pause()

    def resume(self) -> None:
        """Asks for messages again."""
        with self._lock:
            self._paused = False
            if self._running is not None:
                self._running.desk.resume()

    def __enter__(self) -> Consumer:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        self._news.put("signal")


class _Running:
    """The threads of a consumer."""

    def __init__(
        self,
        handler: Handler,
        desk: Desk,
        server: Server,
        concurrency: int,
        trace: bool,
        retry: Optional[RetryPolicy],
    ) -> None:
        self.desk = desk
        self._server = server
        self._answers: SimpleQueue[Optional[Answered]] = SimpleQueue()
        self._pool = kind_of_pool(handler)(handler, desk, self._answers, concurrency, trace, retry)
        self._ended = Event()
        self._threads = [
            Thread(target=self._send_answers, name="oncecast-answers", daemon=True),
            Thread(target=self._tick, name="oncecast-tick", daemon=True),
        ]
        try:
            self._pool.start()
            for thread in self._threads:
                thread.start()
            server.start(desk)
        except BaseException:
            self._ended.set()
            self._answers.put(None)
            self._pool.abandon()
            raise
        log.info("listening on %s for the group %s", server.address, desk.group)
        if server.is_open():
            log.warning(_OPEN, server.address)

    def stop(self, timeout: float) -> None:
        """The order of the end (section 5.7): DRAIN, finish, and only then close the listener and the connections."""
        log.info("stopping")
        self.desk.drain()
        if not self.desk.wait_until_done(timeout):
            returned = self.desk.return_unstarted()
            if returned:
                log.info("%d messages that were not started go to other consumers", returned)
            self.desk.wait_until_done(GRACE_S)
        held, kept = self.desk.unfinished()
        if held or kept:
            log.warning("%d messages are not finished and %d results not known to be recorded", held, kept)
        self._server.stop(CLOSE_S)
        self._ended.set()
        self._answers.put(None)
        self._pool.stop(0.1)
        for thread in self._threads:
            thread.join()
        log.info("stopped")

    def _send_answers(self) -> None:
        """A thread's loop: gathers answers, so that many share a message."""
        get, get_nowait, answer = self._answers.get, self._answers.get_nowait, self.desk.answer
        while True:
            first = get()
            batch: List[Answered] = []
            while first is not None:
                batch.append(first)
                if len(batch) == MAX_BATCH:
                    break
                try:
                    first = get_nowait()
                except Empty:
                    break
            if batch:
                answer(batch)
            if first is None:
                return

    def _tick(self) -> None:
        """A thread's loop: what time changes."""
        while not self._ended.wait(self.desk.progress_interval):
            try:
                self.desk.progress()
                self.desk.tick(self._pool.all_hang())
                self._server.tick()
            except Exception:
                log.exception("a periodic step failed")


def _check(name: str, value: object, is_valid: bool) -> None:
    if not is_valid:
        raise ValueError(f"{name} can't be {value!r}")


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _is_consumer_id(id: str) -> bool:
    return 1 <= len(id.encode()) <= 256 and not any(c.isspace() or not c.isprintable() for c in id)
