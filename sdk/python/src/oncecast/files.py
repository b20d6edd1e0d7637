"""What was made of files, made anew when they have changed. Any thread; the lock is held while files are read.

Files that can't be used any more are reported, and what was made of the last ones that could be is kept: a renewal
replaces a certificate and its key one after the other.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from threading import Lock
from typing import Callable, Generic, List, Optional, Sequence, Tuple, TypeVar

log = logging.getLogger("oncecast")

# Modified when, rights changed when, size, number.
_Stamp = Optional[Tuple[int, int, int, int]]

# How soon files that could not be used are read again: what was wrong may not be in them.
_RETRY_AFTER_S = 1.0

T = TypeVar("T")


class FileProblem(ValueError):
    """Why a file can't be used; it names the setting and the file."""


def check_file(setting: str, path: str) -> None:
    """Opening a pipe would wait for its writer, so it must be a file."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise FileProblem(f"{setting}: {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise FileProblem(f"{setting}: {path}: it is not a file")


def is_exposed(path: str) -> bool:
    """Whether every user of the machine can read this file: it, and all folders above, allow it."""
    path = os.path.realpath(path)
    # Where Docker and Podman mount secrets, for the only user of a container.
    if path.startswith("/run/secrets/"):
        return False
    try:
        exposed = os.stat(path).st_mode & stat.S_IROTH != 0
        while exposed and path != os.path.dirname(path):
            path = os.path.dirname(path)
            exposed = os.stat(path).st_mode & stat.S_IXOTH != 0
        return exposed
    except OSError:
        return False


class Watched(Generic[T]):
    """See the module's text. `what` names the value in the log."""

    def __init__(self, what: str, paths: Sequence[str], make: Callable[[], T]) -> None:
        """Makes the value for the first time. Raises FileProblem."""
        self._what = what
        self._paths = paths
        self._make = make
        self._lock = Lock()
        # Before they are read: a change in between is then seen as one.
        self._stamps = self._now()
        self._value = make()
        # Why they could not be used, and when that was found.
        self._problem: Optional[Tuple[str, float]] = None

    def current(self) -> T:
        """The value of the files as they are now, or of the last ones that could be used."""
        with self._lock:
            stamps = self._now()
            known, at = self._problem or ("", 0.0)
            if stamps != self._stamps or (known and time.monotonic() - at >= _RETRY_AFTER_S):
                self._stamps = stamps
                try:
                    self._value = self._make()
                    self._problem = None
                    log.info("%s read again from %s", self._what, ", ".join(self._paths))
                except FileProblem as problem:
                    if str(problem) != known:
                        log.warning("%s; new connections use the %s read before", problem, self._what)
                    self._problem = (str(problem), time.monotonic())
            return self._value

    def _now(self) -> List[_Stamp]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
