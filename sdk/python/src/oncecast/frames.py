"""The frames of docs/PROTOCOL.md, sections 2 and 3, and of the subprotocol oncecast.2.

Pure. The decoder handles every input: it returns frames or raises FrameError, rejects bytes that are left over, and
never reserves memory for more than it was given.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Type, Union

VERSION = 1

PROCESS, ACK, NACK, LEAD, READY, HELD, PROGRESS, RESULT, DRAIN, ERROR, DELIVER = range(11)
RESULTS, HELLO, RECORDED, CREDIT, PROOF = range(11, 16)

# Error codes, section 5.8.
E_VERSION, E_COMMAND, E_TOO_LARGE, E_MALFORMED, E_UNEXPECTED, E_STALE, E_GROUP, E_OVER_PREFETCH = range(1, 9)
E_UNAVAILABLE, E_REPLACED, E_NOT_AUTHENTICATED = 9, 10, 11

HEADER_BYTES = 6
MAX_BODY_BYTES = 8_388_608
MAX_PAYLOAD_BYTES = 12_582_912
MAX_TEXT_BYTES = 4_096
MAX_IDS = 65_536
PROOF_BYTES = 32
MAX_PREFETCH = 65_536
MAX_FIELDS = 3_900
# The largest message that a dispatcher sends: a DELIVER with its header.
MAX_RECEIVED_BYTES = HEADER_BYTES + 8_392_716
# Messages of about this size are fast, section 5.6.
GOOD_MESSAGE_BYTES = 131_072

# The delays of NACK with a meaning of their own, section 3.
NACK_BACKOFF = 0
NACK_NEVER = 0xFFFF_FFFF

FLAG_DELIVER = 2

SUBPROTOCOL_1 = "oncecast.1"
SUBPROTOCOL_2 = "oncecast.2"

_LIMITS = {
    PROCESS: 10 + MAX_BODY_BYTES,
    ACK: 8 * MAX_IDS,
    NACK: 12 + MAX_TEXT_BYTES,
    LEAD: 8 + MAX_TEXT_BYTES,
    READY: 5 + MAX_TEXT_BYTES,
    HELD: 8 * MAX_IDS,
    PROGRESS: 8 * MAX_IDS,
    RESULT: MAX_PAYLOAD_BYTES,
    DRAIN: 0,
    ERROR: 2 + MAX_TEXT_BYTES,
    DELIVER: 12 + MAX_TEXT_BYTES + MAX_BODY_BYTES,
    RESULTS: MAX_PAYLOAD_BYTES,
    HELLO: MAX_TEXT_BYTES,
    RECORDED: 8 * MAX_IDS,
    CREDIT: 4,
    PROOF: PROOF_BYTES,
}
_NAMES = (
    "PROCESS ACK NACK LEAD READY HELD PROGRESS RESULT DRAIN ERROR DELIVER RESULTS HELLO RECORDED CREDIT PROOF".split()
)

_HEADER = struct.Struct(">BBI")
_PROCESS = struct.Struct(">QH")
_DELIVER = struct.Struct(">QHH")
_NACK = struct.Struct(">QI")
_READY = struct.Struct(">IB")
_ID_COUNT = struct.Struct(">QH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")

Fields = Sequence[Tuple[bytes, bytes]]


class FrameError(Exception):
    """What is wrong with a message, with the code for an ERROR frame."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Process(NamedTuple):
    """A PROCESS, or a DELIVER if the channel is there."""

    id: int
    delivery: int
    body: bytes
    channel: Optional[bytes] = None


class Ack(NamedTuple):
    ids: Tuple[int, ...]


class Nack(NamedTuple):
    id: int
    delay_ms: int
    reason: str


class Lead(NamedTuple):
    epoch: int
    group: str


class Ready(NamedTuple):
    prefetch: int
    flags: int
    consumer: str


class Held(NamedTuple):
    ids: Tuple[int, ...]


class Progress(NamedTuple):
    ids: Tuple[int, ...]


class Result(NamedTuple):
    id: int
    fields: Fields


class Drain(NamedTuple):
    pass


class Error(NamedTuple):
    code: int
    text: str


class Results(NamedTuple):
    results: Sequence[Result]


class Hello(NamedTuple):
    """The members that a HELLO has; unknown ones included."""

    members: Any


class Recorded(NamedTuple):
    ids: Tuple[int, ...]


class Credit(NamedTuple):
    prefetch: int


class Proof(NamedTuple):
    """That the dispatcher knows the link secret."""

    proof: bytes


Frame = Union[
    Process, Ack, Nack, Lead, Ready, Held, Progress, Result, Drain, Error, Results, Hello, Recorded, Credit, Proof
]

_ID_LISTS: Dict[int, Union[Type[Ack], Type[Held], Type[Progress], Type[Recorded]]] = {
    ACK: Ack,
    HELD: Held,
    PROGRESS: Progress,
    RECORDED: Recorded,
}


def decode(message: bytes) -> List[Frame]:
    """All frames of a WebSocket message, in order. Raises FrameError for the first that is wrong."""
    frames: List[Frame] = []
    position, end = 0, len(message)
    while position < end:
        if message[position] != VERSION:
            raise FrameError(E_VERSION, f"version {message[position]}, not {VERSION}")
        begin = position + HEADER_BYTES
        if begin > end:
            raise FrameError(E_MALFORMED, f"the message ends inside a header, after {end - position} bytes")
        _, command, length = _HEADER.unpack_from(message, position)
        limit = _LIMITS.get(command)
        if limit is None:
            raise FrameError(E_COMMAND, f"unknown command {command}")
        if length > limit:
            raise FrameError(E_TOO_LARGE, f"{_NAMES[command]} of {length} bytes, at most {limit}")
        position = begin + length
        if position > end:
            raise FrameError(E_MALFORMED, f"{_NAMES[command]} of {length} bytes, of which {end - begin} are there")
        if command == DELIVER and length >= 12:
            id, delivery, channel_bytes = _DELIVER.unpack_from(message, begin)
            body = begin + 12 + channel_bytes
            if not 1 <= channel_bytes <= MAX_TEXT_BYTES or body > position:
                raise FrameError(E_MALFORMED, f"DELIVER with a channel of {channel_bytes} bytes")
            _check_body(position - body)
            frames.append(Process(id, delivery, message[body:position], message[begin + 12 : body]))
        elif command == PROCESS and length >= 10:
            id, delivery = _PROCESS.unpack_from(message, begin)
            frames.append(Process(id, delivery, message[begin + 10 : position]))
        else:
            frames.append(_decode_payload(command, message[begin:position]))
    return frames


def _check_body(length: int) -> None:
    if length > MAX_BODY_BYTES:
        raise FrameError(E_MALFORMED, f"a body of {length} bytes, at most {MAX_BODY_BYTES}")


def _malformed(command: int, problem: str) -> FrameError:
    return FrameError(E_MALFORMED, f"{_NAMES[command]}: {problem}")


def _decode_payload(command: int, payload: bytes) -> Frame:
    try:
        if command in (ACK, HELD, PROGRESS, RECORDED):
            return _ID_LISTS[command](_ids(command, payload))
        if command == NACK:
            id, delay_ms = _NACK.unpack_from(payload)
            return Nack(id, delay_ms, _text(command, payload, 12))
        if command == LEAD:
            return Lead(_U64.unpack_from(payload)[0], _text(command, payload, 8))
        if command == READY:
            prefetch, flags = _READY.unpack_from(payload)
            return Ready(prefetch, flags, _text(command, payload, 5))
        if command == RESULT:
            result, end = _result(command, payload, 0)
            if end != len(payload):
                raise _malformed(command, "bytes are left over")
            return result
        if command == RESULTS:
            return Results(_results(payload))
        if command == DRAIN:
            return Drain()
        if command == ERROR:
            return Error(_U16.unpack_from(payload)[0], _text(command, payload, 2))
        if command == HELLO:
            return Hello(_members(payload))
        if command == CREDIT:
            return Credit(_U32.unpack(payload)[0])
        if command == PROOF and len(payload) == PROOF_BYTES:
            return Proof(payload)
    except struct.error:
        pass
    raise _malformed(command, f"a payload of {len(payload)} bytes is too short")


def _text(command: int, payload: bytes, begin: int) -> str:
    try:
        return payload[begin:].decode()
    except UnicodeDecodeError:
        raise _malformed(command, "the text is not UTF-8") from None


def _ids(command: int, payload: bytes) -> Tuple[int, ...]:
    if len(payload) % 8:
        raise _malformed(command, "the list of ids is not a multiple of 8 bytes")
    return struct.unpack(f">{len(payload) // 8}Q", payload)


def _members(payload: bytes) -> Any:
    try:
        members = json.loads(payload.decode())
    except (ValueError, RecursionError):
        raise _malformed(HELLO, "not JSON") from None
    if not isinstance(members, dict):
        raise _malformed(HELLO, "not a JSON object")
    return members


def _result(command: int, payload: bytes, begin: int) -> Tuple[Result, int]:
    """The result that begins there, and where it ends."""
    id, count = _ID_COUNT.unpack_from(payload, begin)
    position = begin + 10
    fields = []
    for _ in range(count):
        (length,) = _U16.unpack_from(payload, position)
        name = _take(command, payload, position + 2, length)
        position += 2 + length
        (length,) = _U32.unpack_from(payload, position)
        fields.append((name, _take(command, payload, position + 4, length)))
        position += 4 + length
    return Result(id, fields), position


def _take(command: int, payload: bytes, begin: int, length: int) -> bytes:
    if begin + length > len(payload):
        raise _malformed(command, "a field is longer than the payload")
    return payload[begin : begin + length]


def _results(payload: bytes) -> List[Result]:
    results = []
    position = 0
    while position < len(payload):
        result, position = _result(RESULTS, payload, position)
        results.append(result)
    if not 1 <= len(results) <= MAX_IDS:
        raise _malformed(RESULTS, f"{len(results)} results, not 1 to {MAX_IDS}")
    return results


def frame(command: int, payload: bytes) -> bytes:
    """A frame with this payload."""
    return _HEADER.pack(VERSION, command, len(payload)) + payload


def ids_payload(ids: Sequence[int]) -> bytes:
    """The payload of ACK, HELD, PROGRESS and RECORDED."""
    return struct.pack(f">{len(ids)}Q", *ids)


def nack_payload(id: int, delay_ms: int, reason: str) -> bytes:
    """The payload of NACK. A reason that is too long is cut."""
    return _NACK.pack(id, delay_ms) + cut_text(reason)


def result_payload(id: int, fields: Iterable[Tuple[bytes, bytes]]) -> bytes:
    """The payload of RESULT; RESULTS holds several of these one after the other."""
    parts = [b""]
    for name, value in fields:
        parts += (_U16.pack(len(name)), name, _U32.pack(len(value)), value)
    parts[0] = _ID_COUNT.pack(id, len(parts) // 4)
    return b"".join(parts)


def cut_text(text: str, most: int = MAX_TEXT_BYTES) -> bytes:
    """The text as UTF-8, cut at a character's border to at most this many bytes."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most:
        return encoded
    return encoded[:most].decode("utf-8", "ignore").encode()


def encode(value: Frame) -> bytes:
    """One frame as bytes."""
    if isinstance(value, Process):
        if value.channel is None:
            return frame(PROCESS, _PROCESS.pack(value.id, value.delivery) + value.body)
        return frame(
            DELIVER, _DELIVER.pack(value.id, value.delivery, len(value.channel)) + value.channel + value.body
        )
    if isinstance(value, (Ack, Held, Progress, Recorded)):
        command = next(command for command, kind in _ID_LISTS.items() if isinstance(value, kind))
        return frame(command, ids_payload(value.ids))
    if isinstance(value, Nack):
        return frame(NACK, nack_payload(*value))
    if isinstance(value, Lead):
        return frame(LEAD, _U64.pack(value.epoch) + cut_text(value.group))
    if isinstance(value, Ready):
        return frame(READY, _READY.pack(value.prefetch, value.flags) + cut_text(value.consumer))
    if isinstance(value, Result):
        return frame(RESULT, result_payload(*value))
    if isinstance(value, Results):
        return frame(RESULTS, b"".join(result_payload(*result) for result in value.results))
    if isinstance(value, Drain):
        return frame(DRAIN, b"")
    if isinstance(value, Error):
        return frame(ERROR, _U16.pack(value.code) + cut_text(value.text))
    if isinstance(value, Hello):
        return frame(HELLO, json.dumps(value.members, separators=(",", ":")).encode())
    if isinstance(value, Proof):
        return frame(PROOF, value.proof)
    return frame(CREDIT, _U32.pack(value.prefetch))


def progress_messages(ids: Sequence[int]) -> List[bytes]:
    """PROGRESS for any number of ids, one frame a message."""
    return [frame(PROGRESS, ids_payload(ids[at : at + MAX_IDS])) for at in range(0, len(ids), MAX_IDS)]


def answer_messages(results: Sequence[bytes], nacks: Sequence[bytes], second: bool) -> List[bytes]:
    """Messages with these payloads of RESULT and NACK, of about 128 KiB each, for oncecast.2 or for version 1."""
    messages = []
    for group in _groups(results):
        if second:
            messages.append(frame(RESULTS, b"".join(group)))
        else:
            messages.append(b"".join([frame(RESULT, payload) for payload in group]))
    for group in _groups(nacks):
        messages.append(b"".join([frame(NACK, payload) for payload in group]))
    return messages


def _groups(payloads: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    """Splits a list into runs of about 128 KiB. The smallest payload has 10 bytes, so no run has too many."""
    begin = size = 0
    for at, payload in enumerate(payloads):
        length = len(payload)
        if size + length > GOOD_MESSAGE_BYTES and at > begin:
            yield payloads[begin:at]
            begin, size = at, 0
        size += length
    if begin < len(payloads):
        yield payloads[begin:]
