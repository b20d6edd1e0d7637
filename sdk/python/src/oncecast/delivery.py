"""What a handler receives, and what it may return or raise.

Pure. `Delivery`, `Retry` and `Reject` mean what the types of the same names mean in the Rust library.
"""

from __future__ import annotations

import json
import math
import re
import traceback
from typing import Any, Awaitable, Callable, List, Mapping, Optional, Tuple, Union

from . import frames

# version-traceid-parentid-flags. Neither id is zero, ff is no version, and those after 00 may add to it.
_TRACEPARENT = re.compile(
    "(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[0-9a-z-]{0,72})?"
)

Text = Union[str, bytes]
Value = Union[str, bytes, int, float, bool]
# A mapping's type of keys has no subtypes: dict[str, str] is no Mapping[Text, Value].
Outcome = Optional[Union[Mapping[str, Value], Mapping[bytes, Value], Mapping[Text, Value]]]


class Delivery:
    """A message as a handler receives it. Tests of handlers make their own: ``Delivery(b"hello", number=3)``.

    A message may be delivered more than once: after a failure, or when its consumer seemed dead and was not. Only one
    outcome is recorded. Make other side effects idempotent, for instance by the `key`.
    """

    __slots__ = ("id", "number", "channel", "payload", "consumer_id", "lane")

    id: int
    """Unique in its lane, the same in each delivery."""
    number: int
    """1 for the first delivery, 2 for the first redelivery, and so on. Not a count of executions."""
    channel: Optional[bytes]
    """The channel that the message was published on, or None if the group listens to one channel by name."""
    payload: bytes
    """What was published."""
    consumer_id: str
    """The id of this consumer."""
    lane: int
    """The number of the message's lane: 0, unless the group's dispatchers listen to several nodes of a cluster."""

    def __init__(
        self,
        payload: bytes,
        id: int = 1,
        number: int = 1,
        channel: Optional[bytes] = None,
        consumer_id: str = "test",
        lane: int = 0,
    ) -> None:
        self.payload = payload
        self.id = id
        self.number = number
        self.channel = channel
        self.consumer_id = consumer_id
        self.lane = lane

    @property
    def key(self) -> str:
        """A name for the message that is unique in its group, the same in each delivery: the id in 16 hexadecimal
        digits, in other lanes than lane 0 with the lane's number and ``/`` before it."""
        return f"{self.lane}/{self.id:016x}" if self.lane else f"{self.id:016x}"

    @property
    def traceparent(self) -> Optional[str]:
        """The trace context (W3C): the member ``traceparent`` if the payload is a JSON object and the member valid.

        The payload is parsed each time this is read, and never otherwise.
        """
        try:
            message = json.loads(self.payload.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        value = message.get("traceparent") if isinstance(message, dict) else None
        return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None

    def __repr__(self) -> str:
        return f"Delivery(id={self.id}, number={self.number}, channel={self.channel!r}, {len(self.payload)} bytes)"


Handler = Callable[[Delivery], Union[Outcome, Awaitable[Outcome]]]


class Retry(Exception):
    """Deliver the message again: after so many seconds, or as the setting ``retry`` says, of this consumer or else of
    the dispatchers.

    After the last allowed delivery, the message goes to the dead letters.
    """

    def __init__(self, reason: str = "", after: Optional[float] = None) -> None:
        super().__init__(reason)
        if after is not None and math.isnan(after):
            raise ValueError("after must be a number of seconds")
        self.reason = reason
        self.after = after

    @property
    def delay_ms(self) -> int:
        """The delay as NACK has it: 1 ms to 49 days, or 0 if none was given."""
        if self.after is None:
            return frames.NACK_BACKOFF
        return int(min(max(self.after * 1000, 1), frames.NACK_NEVER - 1))


class Reject(Exception):
    """Do not deliver the message again: it goes to the dead letters with this reason."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# An answer to a delivery: the command, RESULT or NACK, and its payload.
Answer = Tuple[int, bytes]


def success(id: int, outcome: Any) -> Answer:
    """The answer for what a handler returned. Raises TypeError for what can't be recorded."""
    if outcome is None:
        return frames.RESULT, frames.result_payload(id, ())
    if not isinstance(outcome, Mapping):
        raise TypeError(f"the handler returned {type(outcome).__name__}, not None or a mapping of names to values")
    if len(outcome) > frames.MAX_FIELDS:
        return _rejected(id, f"an outcome of {len(outcome)} fields, at most {frames.MAX_FIELDS}")
    fields: List[Tuple[bytes, bytes]] = []
    for name, value in outcome.items():
        raw_name = _name(name)
        if len(raw_name) > 0xFFFF:
            return _rejected(id, f"an outcome with a name of {len(raw_name)} bytes, at most 65535")
        fields.append((raw_name, _value(value)))
    if sum(len(name) + len(value) + 6 for name, value in fields) + 10 > frames.MAX_PAYLOAD_BYTES:
        return _rejected(id, "an outcome of more than 12 MiB")
    return frames.RESULT, frames.result_payload(id, fields)


def failure(id: int, error: BaseException, delay_ms: int = frames.NACK_BACKOFF) -> Answer:
    """The answer for what a handler raised, with this delay if it asked for none.

    Never without a reason: that has another meaning after DRAIN.
    """
    if isinstance(error, Reject):
        return _rejected(id, error.reason)
    if isinstance(error, Retry):
        reason = str(error.reason) or "the handler asked for a retry"
        return frames.NACK, frames.nack_payload(id, delay_ms if error.after is None else error.delay_ms, reason)
    return frames.NACK, frames.nack_payload(id, delay_ms, describe(error))


def describe(error: BaseException) -> str:
    """The error's type and text."""
    try:
        if isinstance(error, (Retry, Reject)):
            return f"{type(error).__name__}: {error}"
        return traceback.format_exception_only(type(error), error)[-1].strip() or type(error).__name__
    except Exception:  # A __str__ of the handler's own may raise anything.
        return type(error).__name__


def _rejected(id: int, reason: str) -> Answer:
    return frames.NACK, frames.nack_payload(id, frames.NACK_NEVER, str(reason) or "the handler rejected the message")


def _name(name: Any) -> bytes:
    if isinstance(name, str):
        return name.encode()
    if isinstance(name, (bytes, bytearray, memoryview)):
        return bytes(name)
    raise TypeError(f"the name of a field is a {type(name).__name__}, not str or bytes")


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    # Not repr(): a subclass, such as an enumeration, may have its own.
    if isinstance(value, int):
        return int.__repr__(value).encode()
    if isinstance(value, float):
        return float.__repr__(value).encode()
    raise TypeError(f"the value of a field is a {type(value).__name__}, not str, bytes, int, float or bool")
