"""TLS on the links: the certificates, and the state of one connection.

A `Session` does no IO. It is used by both threads of a connection, under one lock that is never held while a socket is
waited for: the reader puts in what it received, and only the writer takes out what is to be sent, in order. Python's
own TLS sockets would not do, because one of them must not be used by two threads at a time.
"""

from __future__ import annotations

import logging
import os
import ssl
from threading import Lock
from typing import Optional, Tuple, Union

from .files import FileProblem, Watched, check_file, is_exposed

log = logging.getLogger("oncecast")

Path = Union[str, "os.PathLike[str]"]

# When so many bytes wait for the writer that the peer has caused, such as answers to new keys, it is no dispatcher.
MAX_CAUSED_BYTES = 262_144
_READ_BYTES = 65_536

NOT_TLS = "it speaks no TLS on this port; is its address for this consumer without wss:// ?"
SLOW = "it did not complete the TLS handshake in time"
CLOSED = "it closed the connection during the TLS handshake"
UNEXPECTED_TLS = (
    "it begins with TLS, and this consumer has none; give tls_cert and tls_key here, or remove wss:// from its address"
    " for this consumer"
)
# For what is HTTP without TLS.
_SAID = b"This port of an Oncecast consumer has TLS: use wss://.\n"
_ANSWER = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_SAID), _SAID)


class TlsError(Exception):
    """Why TLS failed: a sentence about the peer."""


class Certificates:
    """The consumer's certificate and key, and the authorities of the dispatchers' certificates."""

    def __init__(self, cert: Path, key: Path, client_ca: Optional[Path]) -> None:
        """Raises FileProblem."""
        self._cert, self._key = os.path.abspath(cert), os.path.abspath(key)
        self.client_ca = None if client_ca is None else os.path.abspath(client_ca)
        paths = [self._cert, self._key] + ([] if self.client_ca is None else [self.client_ca])
        self._context = Watched("certificates", paths, self._make)

    def session(self) -> Session:
        """For a new connection, with the files as they are now."""
        return Session(self._context.current(), self.client_ca)

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A session that is resumed would not show its certificate again.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        check_file("tls_cert", self._cert)
        check_file("tls_key", self._key)
        if is_exposed(self._key):
            log.warning("tls_key: %s: every user can read it; take that right away, with chmod o-r", self._key)
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise _bad_certificate(self._cert, self._key, error) from None
        if self.client_ca is not None:
            check_file("tls_client_ca", self.client_ca)
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                what = "it must be a PEM file with the certificates of authorities"
                raise FileProblem(f"tls_client_ca: {self.client_ca}: {what} ({_shown(error)})") from None
            context.verify_mode = ssl.CERT_REQUIRED
            # An authority in the file is trusted whether or not another one has signed it. New in Python 3.10.
            context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
        return context


def _no_password() -> str:
    raise ValueError("it is encrypted")


def _bad_certificate(cert: str, key: str, error: Exception) -> FileProblem:
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    if reason == "KEY_VALUES_MISMATCH":
        return FileProblem(f"tls_key: {key}: it is not the key of the certificate in {cert}")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return FileProblem(f"tls_cert, tls_key: {cert} or {key} can't be read: {error.strerror}")
    try:  # Which of the two it is.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except (OSError, ValueError):
        what = "it must be a PEM file with a certificate, followed by those between it and its authority"
        return FileProblem(f"tls_cert: {cert}: {what} ({_shown(error)})")
    what = "it must be a PEM file with the certificate's key, not encrypted"
    return FileProblem(f"tls_key: {key}: {what} ({_shown(error)})")


def _shown(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


class Session:
    """See the module's text."""

    def __init__(self, context: ssl.SSLContext, client_ca: Optional[str]) -> None:
        self._client_ca = client_ca
        self._lock = Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._first = b""
        self.is_complete = False

    def receive(self, data: bytes) -> Tuple[bytes, bool]:
        """What these bytes from the peer bring, and whether it sends no more. Raises TlsError."""
        with self._lock:
            if len(self._first) < 2:
                self._first += data[:2]
            self._incoming.write(data)
            try:
                if not self.is_complete:
                    self._object.do_handshake()
                    self.is_complete = True
                return self._read()
            except ssl.SSLWantReadError:
                return b"", False
            except ssl.SSLError as error:
                raise TlsError(self._sentence(error)) from None
            finally:
                if self._outgoing.pending > MAX_CAUSED_BYTES:
                    raise TlsError("it does not read what it makes this consumer send")

    def _read(self) -> Tuple[bytes, bool]:
        parts = []
        ended = False
        try:
            while not ended:
                part = self._object.read(_READ_BYTES)
                parts.append(part)
                ended = not part
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts), ended

    def seal(self, data: memoryview) -> bytes:
        """What is to be sent for this, behind all that is to be sent already. For the writer."""
        with self._lock:
            try:
                while data:
                    data = data[self._object.write(data) :]
            except ssl.SSLError:  # The session has failed, as the reader has found and says. Only an alert is left.
                pass
            return self._outgoing.read()

    def has_output(self) -> bool:
        """Whether something is to be sent that the reader has caused."""
        return self._outgoing.pending > 0

    def output(self) -> bytes:
        """All of that. For the writer."""
        with self._lock:
            return self._outgoing.read()

    def last_output(self) -> bytes:
        """The same, and the end if there was a beginning. For the writer."""
        with self._lock:
            if self.is_complete:
                try:
                    self._object.unwrap()
                except (ssl.SSLError, ValueError):  # It waits for the peer's end, which nobody needs.
                    pass
            return self._outgoing.read()

    def _sentence(self, error: ssl.SSLError) -> str:
        if not self.is_complete and not _begins_as_tls(self._first):
            self._outgoing.read()
            self._outgoing.write(_ANSWER)
            return NOT_TLS
        reason = error.reason or str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return _bad_client(error, self._client_ca)
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it showed no certificate; give --tls-cert and --tls-key to the dispatcher"
        if reason in _NOTHING_IN_COMMON:
            return f"no TLS version or cipher in common: {reason}"
        if "_ALERT_" in reason:
            alert = reason.partition("_ALERT_")[2].lower().replace("_", " ")
            return f"it refuses our certificate, or what else we said: {alert}; see its log"
        return f"TLS failed: {reason}"


_NOTHING_IN_COMMON = {
    "NO_SHARED_CIPHER",
    "UNSUPPORTED_PROTOCOL",
    "VERSION_TOO_LOW",
    "NO_SUITABLE_SIGNATURE_ALGORITHM",
    "NO_SUITABLE_KEY_SHARE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
}
# Numbers of OpenSSL's reasons for not trusting a certificate.
_NOT_YET_VALID, _EXPIRED, _UNKNOWN_AUTHORITIES = 9, 10, (2, 18, 19, 20, 21)


def _bad_client(error: ssl.SSLCertVerificationError, client_ca: Optional[str]) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate, or one between it and its authority, has expired; renew it"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; is a clock wrong?"
    if code in _UNKNOWN_AUTHORITIES:
        return f"its certificate was not signed by an authority in {client_ca}"
    return f"its certificate can't be used: {error.verify_message}"


def _begins_as_tls(data: bytes) -> bool:
    """Whether these bytes are the beginning of a record: its type (20 to 24) and the version's first byte."""
    return 20 <= data[0] <= 24 and data[1:2] in (b"", b"\x03") if data else True


def is_hello(data: bytes) -> bool:
    """Whether a connection that begins so wants TLS."""
    return data[:2] == b"\x16\x03"
