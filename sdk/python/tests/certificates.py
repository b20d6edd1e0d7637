"""Certificates for tests, made with the command `openssl`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Tuple

is_available = shutil.which("openssl") is not None
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """Its certificate is `path`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.path = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *EC, "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.path)

    def issue(self, name: str, days: int = 2) -> Tuple[str, str]:
        """Certificate and key, for servers at 127.0.0.1 and for clients; expired if `days` is negative."""
        cert, key, request, extensions = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", *EC, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", cert),
        )
        return str(cert), str(key)


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


def replace(path: str, content: bytes) -> None:
    """Writes beside the file and renames, as a program that renews certificates should."""
    beside = f"{path}.new"
    Path(beside).write_bytes(content)
    os.replace(beside, path)
