"""One connection of a dispatcher: the WebSocket server's side of it, with a thread that reads and one that writes.

Uses the part of `websockets` that does no IO, because its threaded server shows no pings, limits neither connections
nor the time for a write, and stops listening when accept() fails once.

Only the reader uses the protocol object. All bytes are written by the writer, in the order in which they were queued.
A writer that waits for the dispatcher blocks nothing else. It may wait for long: a dispatcher does not read while it
has many results to record.

With TLS, the reader hands what it receives to the connection's `Session`, and the writer sends what that has to say, so
the handshake takes place in these two threads and has the deadline of LEAD.
"""

from __future__ import annotations

import logging
import socket
import time
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from . import frames, tls
from .frames import FrameError, Hello, Lead, Process, Proof, Recorded
from .secret import NO_NONCE, NO_PROOF, NONCE_HEADER, WRONG_PROOF, Challenge, LinkSecret
from .sums import Sums
from .tls import Certificates, Session, TlsError

if TYPE_CHECKING:
    from .desk import Desk
    from .lanes import Lane

log = logging.getLogger("oncecast")
# What the library logs are details of connections, and errors of peers.
_websockets_log = logging.getLogger("oncecast.websockets")
_websockets_log.setLevel(logging.CRITICAL)

# From the connection to a complete LEAD.
LEAD_S = 5.0
# The most bytes in one message before LEAD.
MAX_FIRST_BYTES = 65_536
# How long the other side may take to close its end, after ours has been closed.
LINGER_S = 1.0
# How long a connection that is closing may take to write what is queued.
LAST_WRITES_S = 5.0
READ_BYTES = 262_144
WRITE_BYTES = 262_144
# When so many bytes wait to be written, nothing is added that can be left out.
BEHIND_BYTES = 1 << 20

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Optional[Subprotocol]:
    for known in (frames.SUBPROTOCOL_2, frames.SUBPROTOCOL_1):
        if known in offered:
            return Subprotocol(known)
    return None


def _pieces(chunks: List[bytes]) -> Iterator[bytes]:
    """Joins small chunks, so that few calls write them. Large ones are not copied."""
    small: List[bytes] = []
    size = 0
    for chunk in chunks:
        if size + len(chunk) > WRITE_BYTES and small:
            yield b"".join(small)
            small, size = [], 0
        small.append(chunk)
        size += len(chunk)
    yield small[0] if len(small) == 1 else b"".join(small)


class Terms(NamedTuple):
    """What holds for all connections of a consumer."""

    certificates: Optional[Certificates]
    secret: Optional[LinkSecret]
    # What strangers can cause is logged here.
    sums: Sums


class Link:
    """See the module's text."""

    def __init__(
        self, sock: socket.socket, peer: str, number: int, desk: Desk, terms: Terms, on_end: Callable[[Link], None]
    ) -> None:
        self.peer = peer
        self.number = number
        # Whether the connection speaks oncecast.2.
        self.second = False
        self.led = False
        # Set by the desk when LEAD is accepted.
        self.lane: Optional[Lane] = None
        # Owned by the desk: the largest prefetch that was offered; whether DRAIN was sent; when to close at the latest.
        self.offered = 0
        self.drained = False
        self.finish_by: Optional[float] = None
        self.closing_since: Optional[float] = None
        self._sock = sock
        self._desk = desk
        self._terms = terms
        # Made by the reader, which may read files for it.
        self._tls: Optional[Session] = None
        self._received_any = False
        # With a link secret: what the dispatcher has to prove, and its proof.
        self._challenge: Optional[Challenge] = None
        self._proof: Optional[bytes] = None
        self._on_end = on_end
        self._protocol = ServerProtocol(
            max_size=frames.MAX_RECEIVED_BYTES,
            logger=_websockets_log,
            select_subprotocol=_select,
            subprotocols=[Subprotocol(frames.SUBPROTOCOL_2), Subprotocol(frames.SUBPROTOCOL_1)],
        )
        self._queued = Condition()
        self._outbox: List[bytes] = []
        self._behind_bytes = 0
        self._closed = False
        self._ended = Event()
        # The message whose last fragment has not come, and the bytes received since the last complete message.
        self._parts: Optional[bytearray] = None
        self._unfinished_bytes = 0
        self._writer = Thread(target=self._write, name=f"oncecast-write-{number}", daemon=True)
        self._reader = Thread(target=self._run, name=f"oncecast-read-{number}", daemon=True)

    # Called by any thread.

    def start(self) -> None:
        """Starts both threads."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(LEAD_S)
        self._writer.start()
        self._reader.start()

    def send(self, messages: Sequence[bytes]) -> None:
        """Queues binary messages."""
        if messages:
            self._queue([Frame(Opcode.BINARY, message).serialize(mask=False) for message in messages])

    def is_behind(self) -> bool:
        """Whether much waits to be written."""
        return self._behind_bytes > BEHIND_BYTES

    def close_in_child(self) -> None:
        """Closes the copy of the socket in a forked child, which does not end the connection."""
        self._sock.close()

    def refuse(self, code: int, text: str) -> None:
        """Sends an ERROR and closes."""
        if self.closing_since is not None:
            return
        level = logging.INFO if code == frames.E_REPLACED or code == frames.E_STALE else logging.WARNING
        self._terms.sums.note(f"refused {code}", level, f"closing the connection from {self.peer}: {text}")
        if self._protocol.state is not State.CONNECTING:
            self.send([frames.encode(frames.Error(code, text))])
        self.close()

    def close(self) -> None:
        """Closes once all that is queued is written."""
        with self._queued:
            if self.closing_since is None:
                self.closing_since = time.monotonic()
                close = Close(CloseCode.GOING_AWAY, "").serialize()
                if self._protocol.state is not State.CONNECTING:
                    self._outbox.append(Frame(Opcode.CLOSE, close).serialize(mask=False))
                self._closed = True
                self._queued.notify()

    def abort(self) -> None:
        """Closes at once."""
        with self._queued:
            if self.closing_since is None:
                self.closing_since = time.monotonic()
            self._closed = True
            self._queued.notify()
        self._shutdown(socket.SHUT_RDWR)

    def tick(self, now: float) -> None:
        """Ends a connection that takes too long to close."""
        if self.closing_since is not None and now - self.closing_since > LAST_WRITES_S + LINGER_S:
            self._shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float) -> None:
        """Waits for the end."""
        self._ended.wait(timeout)

    # The writer.

    def _queue(self, chunks: Sequence[bytes]) -> None:
        with self._queued:
            if not self._closed:
                self._outbox += chunks
                self._behind_bytes += sum(map(len, chunks))
                self._queued.notify()

    def _write(self) -> None:
        while True:
            with self._queued:
                self._behind_bytes = 0
                while not self._outbox and not self._closed and not self._has_output():
                    self._queued.wait()
                chunks, self._outbox = self._outbox, []
                self._behind_bytes = sum(map(len, chunks))
            if not chunks:
                if self._has_output():
                    assert self._tls is not None
                    if not self._send_raw(memoryview(self._tls.output())):
                        self.abort()
                        return
                    continue
                break
            for piece in _pieces(chunks):
                if not self._send_all(memoryview(piece)):
                    self.abort()
                    return
        if self._tls is not None:
            self._send_raw(memoryview(self._tls.last_output()))
        self._shutdown(socket.SHUT_WR)
        # Closing while unread data has arrived would make the system drop what was written.
        if not self._ended.wait(LINGER_S):
            self._shutdown(socket.SHUT_RDWR)

    def _has_output(self) -> bool:
        return self._tls is not None and self._tls.has_output()

    def _send_all(self, data: memoryview) -> bool:
        if self._tls is None:
            return self._send_raw(data)
        # In parts, because the reader waits for the session meanwhile.
        for begin in range(0, len(data), WRITE_BYTES):
            if not self._send_raw(memoryview(self._tls.seal(data[begin : begin + WRITE_BYTES]))):
                return False
        return True

    def _send_raw(self, data: memoryview) -> bool:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except socket.timeout:  # Before LEAD, and on others that are slow: `tick` ends those that are closing.
                if not self._desk.is_active(self):
                    return False
            except OSError:
                return False
        return True

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:  # It has ended already.
            pass

    # The reader.

    def _run(self) -> None:
        try:
            self._read()
        except FrameError as error:
            self.refuse(error.code, error.text)
            self._desk.lost(self)
            self._discard()
        except TlsError as error:
            self._tls_failed(str(error))
            self._desk.lost(self)
            self.close()
            self._discard()
        except OSError as error:
            log.debug("the connection from %s broke: %s", self.peer, error)
        except Exception:
            log.exception("the connection from %s failed", self.peer)
        finally:
            self._desk.lost(self)
            if self.led:
                log.info("the connection from %s has ended", self.peer)
            self.close()
            self._ended.set()
            self._writer.join()
            self._sock.close()
            self._on_end(self)

    def _read(self) -> None:
        """The reader's loop, until the connection ends."""
        deadline = time.monotonic() + LEAD_S
        if self._terms.certificates is not None:
            session = self._terms.certificates.session()
            with self._queued:
                self._tls = session
        protocol = self._protocol
        while self.closing_since is None:
            if not self.led:
                left = deadline - time.monotonic()
                if left <= 0:
                    if self._tls is not None and not self._tls.is_complete:
                        raise TlsError(tls.SLOW)
                    raise FrameError(frames.E_UNEXPECTED, "no LEAD in time")
                self._sock.settimeout(left)
            try:
                data = self._sock.recv(READ_BYTES)
            except socket.timeout:
                continue
            ended = not data
            if self._tls is None:
                if not self._received_any and tls.is_hello(data):
                    self._tls_failed(tls.UNEXPECTED_TLS)
            elif data:
                data, ended = self._open(self._tls, data)
            elif self._received_any and not self._tls.is_complete:
                raise TlsError(tls.CLOSED)
            self._received_any = True
            if ended and not data:
                return
            if not data:
                continue
            protocol.receive_data(data)
            self._unfinished_bytes += len(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    self._answer_request(event)
                else:
                    self._on_frame(event)
            self._after_reading()
            if ended:
                return
        self._desk.lost(self)
        self._discard()

    def _open(self, session: Session, data: bytes) -> Tuple[bytes, bool]:
        """What was received, decrypted, and whether it was the last."""
        try:
            return session.receive(data)
        finally:
            if session.has_output():
                with self._queued:
                    self._queued.notify()

    def _tls_failed(self, why: str) -> None:
        self._terms.sums.note("tls", logging.WARNING, f"TLS failed with {self.peer}: {why}")

    def _after_reading(self) -> None:
        protocol = self._protocol
        broken = protocol.parser_exc
        if broken is not None:
            code = frames.E_TOO_LARGE if isinstance(broken, PayloadTooBig) else frames.E_MALFORMED
            raise FrameError(code, f"broken WebSocket framing: {broken}")
        out = protocol.data_to_send()
        chunks = [chunk for chunk in out if chunk]
        ends = len(chunks) < len(out)
        if ends and not chunks and protocol.state is State.CONNECTING:
            # The library ends a connection that is not HTTP without a word.
            chunks = [BAD_REQUEST]
        if chunks and not self.is_behind():
            self._queue(chunks)
        if ends:
            self.close()
        if not self.led and self._unfinished_bytes > 2 * MAX_FIRST_BYTES + READ_BYTES:
            raise FrameError(frames.E_TOO_LARGE, "too many bytes before LEAD")

    def _discard(self) -> None:
        """Reads until the other side has closed, or the writer shuts the socket down."""
        try:
            while self._sock.recv(READ_BYTES):
                pass
        except OSError:
            pass

    def _answer_request(self, request: Request) -> None:
        protocol = self._protocol
        self._unfinished_bytes = 0
        if request.headers.get_all("Origin"):
            response = protocol.reject(403, "Browsers are not served here.\n")
        elif request.path.partition("?")[0] != "/":
            response = protocol.reject(404, "The path is /.\n")
        else:
            response = protocol.accept(request)
            if response.status_code == 101 and self._terms.secret is not None:
                self._challenge = self._terms.secret.challenge(request.headers.get_all(NONCE_HEADER))
                if self._challenge is not None:
                    response.headers.update(self._challenge.headers(self._desk.group))
        protocol.send_response(response)
        self.second = protocol.subprotocol == frames.SUBPROTOCOL_2
        if protocol.state is State.OPEN and self._terms.secret is not None and self._challenge is None:
            self._after_reading()
            raise FrameError(frames.E_NOT_AUTHENTICATED, NO_NONCE)

    def _on_frame(self, event: Any) -> None:
        """Obeys one WebSocket frame."""
        opcode = event.opcode
        if opcode is Opcode.BINARY or opcode is Opcode.CONT:
            if event.fin and self._parts is None:
                message = bytes(event.data)
            else:
                self._parts = bytearray() if self._parts is None else self._parts
                self._parts += event.data
                if not event.fin:
                    return
                message, self._parts = bytes(self._parts), None
            self._unfinished_bytes = 0
            self._on_message(message)
        elif opcode is Opcode.TEXT:
            raise FrameError(frames.E_MALFORMED, "a text message")
        elif opcode is Opcode.PING:
            self._desk.progress(self)
        elif opcode is Opcode.CLOSE:
            self.close()

    def _on_message(self, message: bytes) -> None:
        """Obeys all frames of a message, or none of them if one is wrong."""
        if not self.led and len(message) > MAX_FIRST_BYTES:
            raise FrameError(frames.E_TOO_LARGE, f"a message of {len(message)} bytes before LEAD")
        received = frames.decode(message)
        for frame in received:
            if isinstance(frame, frames.Error):
                text = f"the dispatcher {self.peer} reports error {frame.code}: {frame.text}"
                # One of each kind of its own, but strangers invent codes.
                kind = min(frame.code, frames.E_NOT_AUTHENTICATED + 1)
                self._terms.sums.note(f"reported {kind}", logging.WARNING, text)
                self.close()
                return
        if self._challenge is not None and self._proof is None:
            received = self._after_proof(received)
        if not received:
            return
        rest = received if self.led else self._after_lead(received)
        recorded: List[int] = []
        for frame in rest:
            if isinstance(frame, Recorded) and self.second:
                recorded += frame.ids
            elif not isinstance(frame, Process):
                raise FrameError(frames.E_UNEXPECTED, f"{type(frame).__name__.upper()} was not expected")
        if not self.led:
            self._lead(received[0], received[1:2])
        if recorded:
            self._desk.recorded(self, recorded)
        processes = [frame for frame in rest if isinstance(frame, Process)]
        if processes:
            self._desk.accept(self, processes)

    def _after_proof(self, received: List[frames.Frame]) -> List[frames.Frame]:
        """What follows PROOF, which is checked when LEAD is there."""
        if received:
            if not isinstance(received[0], Proof):
                raise FrameError(frames.E_NOT_AUTHENTICATED, NO_PROOF)
            self._proof = received[0].proof
        return received[1:]

    def _after_lead(self, received: List[frames.Frame]) -> List[frames.Frame]:
        """What follows LEAD, and HELLO behind it."""
        if not isinstance(received[0], Lead):
            raise FrameError(frames.E_UNEXPECTED, "the first frame is not LEAD")
        if self.second and len(received) > 1 and isinstance(received[1], Hello):
            return received[2:]
        return received[1:]

    def _lead(self, lead: frames.Frame, following: Sequence[frames.Frame]) -> None:
        """Obeys LEAD, and HELLO if it follows."""
        assert isinstance(lead, Lead)
        if self._challenge is not None:
            assert self._proof is not None
            if not self._challenge.is_met(self._proof, lead.epoch, lead.group):
                raise FrameError(frames.E_NOT_AUTHENTICATED, WRONG_PROOF)
        # Before the writer has anything to send, which may take long.
        self._sock.settimeout(None)
        self._desk.lead(self, lead.epoch, lead.group)
        self.led = True
        if self.second and following and isinstance(following[0], Hello):
            self._desk.hello(self, following[0].members.get("link_timeout_ms"))
        else:
            self._desk.hello(self, None)
        spoken = "oncecast.2" if self.second else "version 1"
        log.info("the dispatcher %s leads %s in epoch %d (%s)", self.peer, lead.group, lead.epoch, spoken)
