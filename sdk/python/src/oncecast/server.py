"""The listener, with a thread that accepts, and the limit on connections (docs/PROTOCOL.md, section 1)."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import selectors
import socket
import time
import weakref
from threading import Lock, Thread
from typing import Dict, Optional, Tuple

from .desk import Desk
from .link import Link, Terms

log = logging.getLogger("oncecast")

# With one lane. Each further lane adds two: that of its leader, and that of the one before.
MAX_CONNECTIONS = 64
# The process is short of something: file descriptors, mostly.
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SHORT_WAIT_S = 0.1


def split_address(listen: str) -> Tuple[str, int]:
    """Host and port of ``host:port`` or ``[address]:port``. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"listen must be host:port, with brackets around an IPv6 address: {listen!r}")
    return host, int(port)


# Those of this process. A forked child has no thread of theirs, but their sockets: it would keep the port, and
# connections that its parent has lost.
_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _close_in_child() -> None:
    for server in list(_servers):
        server.close_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class Server:
    """Accepts connections until it is stopped."""

    def __init__(self, listen: str, terms: Terms) -> None:
        """Listens. Raises OSError if that is not possible, ValueError if the address is not one."""
        host, port = split_address(listen)
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._listener = socket.create_server(address[:2], family=family, backlog=128)
        self._listener.setblocking(False)
        bound = self._listener.getsockname()
        self.address = f"[{bound[0]}]:{bound[1]}" if family == socket.AF_INET6 else f"{bound[0]}:{bound[1]}"
        self._is_loopback = ipaddress.ip_address(bound[0].partition("%")[0]).is_loopback
        self._terms = terms
        self._desk: Optional[Desk] = None
        self._lock = Lock()
        self._links: Dict[int, Link] = {}
        self._count = 0
        self._stopping = False
        self._waker, self._wake = socket.socketpair()
        self._thread = Thread(target=self._accept, name="oncecast-accept", daemon=True)
        _servers.add(self)

    def is_open(self) -> bool:
        """Whether anybody on other machines may claim to be the dispatcher."""
        certificates = self._terms.certificates
        proves = self._terms.secret is not None or (certificates is not None and certificates.client_ca is not None)
        return not self._is_loopback and not proves

    def start(self, desk: Desk) -> None:
        """Begins to accept, for this desk."""
        self._desk = desk
        self._thread.start()

    def close_in_child(self) -> None:
        """Closes the copies of the sockets in a forked child. Another thread may have held the lock, so without it."""
        for link in list(self._links.values()):
            link.close_in_child()
        self.abandon()

    def abandon(self) -> None:
        """Closes the listener of a server that was not started."""
        self._listener.close()
        self._waker.close()
        self._wake.close()

    def stop(self, timeout: float) -> None:
        """Closes the listener, then all connections, each once what is queued for it is written."""
        self._stopping = True
        self._wake.send(b"x")
        self._thread.join()
        self._listener.close()
        self._waker.close()
        self._wake.close()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.close()
        until = time.monotonic() + timeout
        for link in links:
            link.join(max(until - time.monotonic(), 0))
            link.abort()
        self._terms.sums.rest(all=True)

    def tick(self) -> None:
        """Ends connections that take too long to close."""
        now = time.monotonic()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.tick(now)
        self._terms.sums.rest()

    def _accept(self) -> None:
        """The thread's loop."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping:
                selector.select()
                try:
                    sock, peer = self._listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in _SHORT:
                        log.warning("can't accept a connection: %s", error)
                        self._make_room()
                        time.sleep(_SHORT_WAIT_S)
                    continue
                try:
                    self._begin(sock, f"{peer[0]}:{peer[1]}")
                except (OSError, RuntimeError) as error:  # It has ended already, or no thread can be started.
                    log.warning("can't serve the connection from %s: %s", peer, error)
                    sock.close()

    def _begin(self, sock: socket.socket, peer: str) -> None:
        assert self._desk is not None
        with self._lock:
            full = len(self._links) >= MAX_CONNECTIONS + 2 * (self._desk.lanes() - 1)
        if full and not self._make_room():
            sock.close()
            return
        self._count += 1
        sock.setblocking(True)
        link = Link(sock, peer, self._count, self._desk, self._terms, self._end)
        with self._lock:
            self._links[link.number] = link
        try:
            link.start()
        except BaseException:
            self._end(link)
            raise

    def _make_room(self) -> bool:
        """Ends a connection that is closing, else the oldest without LEAD; never the active one."""
        assert self._desk is not None
        with self._lock:
            links = list(self._links.values())
        candidates = [link for link in links if link.closing_since is not None]
        candidates += [link for link in links if not link.led]
        candidates += [link for link in links if not self._desk.is_active(link)]
        for link in candidates[:1]:
            link.abort()
            link.join(1.0)
            self._end(link)
        return bool(candidates)

    def _end(self, link: Link) -> None:
        with self._lock:
            self._links.pop(link.number, None)
