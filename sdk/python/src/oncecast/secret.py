"""The link secret: what a dispatcher and a consumer of a group prove to each other (docs/PROTOCOL.md, section 5.10).

A file has the secret in a line, or the new and the old one in two, so that it can be changed without a break. A
`Challenge` is one connection's: the lines that count for it, and both sides' random numbers.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import struct
from typing import List, NamedTuple, Optional, Sequence, Tuple

from .files import FileProblem, Watched, check_file, is_exposed
from .tls import Path

MIN_BYTES, MAX_BYTES, MAX_LINES = 16, 1_024, 2
# Lines and the white space around them.
_MAX_FILE_BYTES = 65_536
_WHITE = b" \t\r\f"
NONCE_BYTES = 16
_NONCE = re.compile(r"[0-9a-f]{32}")

NONCE_HEADER = "Oncecast-Nonce"
PROOF_HEADER = "Oncecast-Proof"

# What an ERROR tells a dispatcher.
NO_NONCE = "this consumer has a link secret; give the dispatcher the same with --link-secret-file"
NO_PROOF = "this consumer has a link secret, and the first frame is not PROOF; give the dispatcher the same secret"
WRONG_PROOF = "the dispatcher does not know this consumer's link secret; do both have the same file, or a line of it?"


def proof_of_consumer(secret: bytes, group: str, dispatchers: bytes, consumers: bytes) -> bytes:
    """The last two are the nonces."""
    return hmac.digest(secret, b"oncecast consumer\0" + _sized(group) + dispatchers + consumers, "sha256")


def proof_of_dispatcher(secret: bytes, group: str, epoch: int, dispatchers: bytes, consumers: bytes) -> bytes:
    """The last two are the nonces."""
    text = b"oncecast dispatcher\0" + _sized(group) + struct.pack(">Q", epoch) + dispatchers + consumers
    return hmac.digest(secret, text, "sha256")


def _sized(group: str) -> bytes:
    encoded = group.encode()
    return struct.pack(">I", len(encoded)) + encoded


class Challenge(NamedTuple):
    """See the module's text."""

    lines: Sequence[bytes]
    dispatchers: bytes
    consumers: bytes

    def headers(self, group: str) -> List[Tuple[str, str]]:
        """What is added to the answer of the handshake."""
        proofs = [proof_of_consumer(line, group, self.dispatchers, self.consumers).hex() for line in self.lines]
        return [(NONCE_HEADER, self.consumers.hex()), (PROOF_HEADER, ", ".join(proofs))]

    def is_met(self, proof: bytes, epoch: int, group: str) -> bool:
        """Whether a dispatcher that knows one of the lines has made this proof."""
        return any(
            [
                hmac.compare_digest(proof_of_dispatcher(line, group, epoch, self.dispatchers, self.consumers), proof)
                for line in self.lines
            ]
        )


class LinkSecret:
    """The lines of the file as it is, or as it was when it could be used last."""

    def __init__(self, path: Path) -> None:
        """Raises FileProblem."""
        self._path = os.path.abspath(path)
        self._lines = Watched("link secret", [self._path], self._read)

    def challenge(self, nonces: Sequence[str]) -> Optional[Challenge]:
        """For a handshake with these values of the header, or None if they are not one nonce."""
        if len(nonces) != 1 or _NONCE.fullmatch(nonces[0]) is None:
            return None
        return Challenge(self._lines.current(), bytes.fromhex(nonces[0]), secrets.token_bytes(NONCE_BYTES))

    def _read(self) -> Sequence[bytes]:
        where = f"link_secret_file: {self._path}"
        check_file("link_secret_file", self._path)
        if is_exposed(self._path):
            raise FileProblem(f"{where}: every user can read it; take that right away, with chmod o-r")
        try:
            with open(self._path, "rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise FileProblem(f"{where}: {error.strerror}") from None
        lines = [line for line in (line.strip(_WHITE) for line in content.split(b"\n")) if line]
        if len(content) > _MAX_FILE_BYTES or not 1 <= len(lines) <= MAX_LINES:
            raise FileProblem(f"{where}: write the secret in one line, or the new and the old one in two")
        if not all(MIN_BYTES <= len(line) <= MAX_BYTES for line in lines):
            size = f"{MIN_BYTES} to {MAX_BYTES} bytes"
            raise FileProblem(f"{where}: a secret has {size}; openssl rand -hex 32 makes one")
        return lines
