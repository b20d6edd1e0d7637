"""A scripted dispatcher: connects to a consumer, sends frames and collects what comes back."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from oncecast import Consumer, frames

GROUP = "messages"
BOTH = ["oncecast.1", "oncecast.2"]
FIRST_ID = 1_790_000_000_123_456

F = TypeVar("F")


class Dispatcher:
    """One connection. `second` offers both subprotocols, as a dispatcher of today does."""

    def __init__(
        self, consumer: Consumer, second: bool = True, tls: Optional[ssl.SSLContext] = None, **options: Any
    ) -> None:
        host, port = consumer.address.rsplit(":", 1)
        self.second = second
        self.pongs = 0
        self._frames: List[frames.Frame] = []
        self._taken = 0
        self._changed = threading.Condition()
        self._ended = False
        sock = socket.create_connection((host, int(port)), timeout=10)
        sock.settimeout(None)
        options.setdefault("subprotocols", BOTH if second else None)
        if tls is not None:
            options["ssl"] = tls
        scheme = "ws" if tls is None else "wss"
        self.websocket: ClientConnection = connect(
            f"{scheme}://{consumer.address}/", sock=sock, compression=None, max_size=None, **options
        ).__enter__()
        threading.Thread(target=self._receive, daemon=True).start()

    @staticmethod
    def connect_only(address: str) -> socket.socket:
        """A connection on which nothing is sent."""
        host, port = address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=10)

    def _receive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self.websocket:
                assert isinstance(message, bytes)
                received = frames.decode(message)
                with self._changed:
                    self._frames += received
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def send(self, *values: frames.Frame) -> None:
        """Sends these frames in one message."""
        self.websocket.send(b"".join(map(frames.encode, values)))

    def lead(self, epoch: int = 1, group: str = GROUP, hello: Optional[Dict[str, Any]] = None) -> None:
        hellos = [frames.Hello(hello or {"link_timeout_ms": 3000})] if self.second else []
        self.send(frames.Lead(epoch, group), *hellos)

    def greet(self, epoch: int = 1, **options: Any) -> Tuple[frames.Ready, Tuple[int, ...]]:
        """LEAD, and what answers it: READY, and the ids in HELD."""
        self.lead(epoch, **options)
        return self.greeting()

    def greeting(self) -> Tuple[frames.Ready, Tuple[int, ...]]:
        ready, held = self.next(frames.Ready), self.next(frames.Held)
        return ready, held.ids

    def process(self, *ids: int, body: bytes = b"x", delivery: int = 1) -> None:
        self.send(*[frames.Process(id, delivery, body) for id in ids])

    def next(self, kind: Type[F], timeout: float = 5.0) -> F:
        """The next frame, which must be of this kind. PROGRESS is skipped unless it is asked for."""
        until = time.monotonic() + timeout
        while True:
            frame = self._next(until)
            if isinstance(frame, kind):
                return frame
            if not isinstance(frame, frames.Progress):
                raise AssertionError(f"{frame}, not {kind.__name__}")

    def _next(self, until: float) -> frames.Frame:
        with self._changed:
            left = until - time.monotonic()
            if not self._changed.wait_for(lambda: len(self._frames) > self._taken or self._ended, left):
                raise AssertionError("no frame came in time")
            if len(self._frames) == self._taken:
                raise AssertionError("the connection has ended")
            self._taken += 1
            return self._frames[self._taken - 1]

    def results(self, count: int) -> Dict[int, List[Tuple[bytes, bytes]]]:
        """So many results, from RESULT or RESULTS."""
        found: Dict[int, List[Tuple[bytes, bytes]]] = {}
        while len(found) < count:
            if self.second:
                results: Sequence[frames.Result] = self.next(frames.Results).results
            else:
                results = [self.next(frames.Result)]
            found.update((result.id, list(result.fields)) for result in results)
        return found

    def record(self, *ids: int) -> None:
        if self.second:
            self.send(frames.Recorded(ids))

    def silence(self, seconds: float) -> List[frames.Frame]:
        """What comes within this time, PROGRESS excepted."""
        time.sleep(seconds)
        with self._changed:
            came, self._taken = self._frames[self._taken :], len(self._frames)
        return [frame for frame in came if not isinstance(frame, frames.Progress)]

    def error(self) -> int:
        """The code of the ERROR that comes next; the connection must end after it."""
        code = self.next(frames.Error).code
        self.wait_for_end()
        return code

    def wait_for_end(self, timeout: float = 5.0) -> Optional[int]:
        """Waits until the consumer has closed; gives the status."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, timeout), "the connection is still open"
        return self.websocket.protocol.close_code

    @property
    def ended(self) -> bool:
        return self._ended

    def drop(self) -> None:
        """Ends the connection as a dispatcher that dies does."""
        self.websocket.socket.shutdown(socket.SHUT_RDWR)
        self.wait_for_end()


class Gate:
    """A handler that waits until its message's id is let through, and then does what it is told."""

    def __init__(self) -> None:
        self.begun: List[int] = []
        self._outcomes: Dict[int, Callable[[], Any]] = {}
        self._changed = threading.Condition()

    def __call__(self, delivery: Any) -> Any:
        with self._changed:
            self.begun.append(delivery.id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: delivery.id in self._outcomes)
            outcome = self._outcomes.pop(delivery.id)
        return outcome()

    def wait_for(self, *ids: int) -> None:
        """Waits until the handler has begun with these."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(ids) <= set(self.begun), 5.0), f"{self.begun} of {ids} begun"

    def finish(self, id: int, outcome: Any = None) -> None:
        """Ends the handler of this message: it returns this, or raises it."""

        def end() -> Any:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        with self._changed:
            self._outcomes[id] = end
            self._changed.notify_all()


def ids(count: int) -> List[int]:
    return list(itertools.islice(itertools.count(FIRST_ID), count))


@contextlib.contextmanager
def consumer_of(handler: Any, **options: Any) -> Iterator[Consumer]:
    options = {"listen": "127.0.0.1:0", "concurrency": 4, "prefetch": 16, "drain_timeout": 0.2, **options}
    with Consumer(handler, **options) as consumer:
        yield consumer
