"""Outcomes of handlers, as answers."""

import enum
import json
import math

import pytest

from oncecast import Delivery, Reject, Retry, frames
from oncecast.delivery import failure, success


def answered(answer):
    command, payload = answer
    return frames.decode(frames.frame(command, payload))[0]


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    "value,recorded",
    [
        ("é", "é".encode()),
        (b"\xff\x00", b"\xff\x00"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (42, b"42"),
        (-(2**70), b"-1180591620717411303424"),
        (0.1, b"0.1"),
        (True, b"true"),
        (False, b"false"),
        (Size.LARGE, b"3"),
        ("", b""),
    ],
)
def test_values(value, recorded):
    assert answered(success(7, {"name": value, b"\xfe": b"x"})) == (7, [(b"name", recorded), (b"\xfe", b"x")])


@pytest.mark.parametrize("outcome", [None, {}])
def test_nothing_is_recorded(outcome):
    assert answered(success(7, outcome)) == (7, [])


@pytest.mark.parametrize("outcome", ["text", 42, ["a"], {"a": None}, {"a": [1]}, {1: "a"}, {"a": object()}])
def test_what_can_not_be_recorded(outcome):
    with pytest.raises(TypeError):
        success(7, outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        {str(n): "" for n in range(3_901)},
        {"a": "x" * (12 << 20)},
        {"n" * 65_536: ""},
    ],
    ids=["fields", "bytes", "name"],
)
def test_too_large_outcomes_are_rejected(outcome):
    nack = answered(success(7, outcome))
    assert nack.delay_ms == frames.NACK_NEVER and "outcome" in nack.reason


def test_the_largest_outcomes_are_recorded():
    assert len(answered(success(7, {str(n): "" for n in range(3_900)})).fields) == 3_900
    assert answered(success(7, {"a": "x" * (frames.MAX_PAYLOAD_BYTES - 10 - 7)})).fields[0][0] == b"a"


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error,delay_ms,reason",
    [
        (Retry("busy"), 0, "busy"),
        (Retry("busy", after=1.5), 1_500, "busy"),
        (Retry("busy", after=0), 1, "busy"),
        (Retry("busy", after=-1), 1, "busy"),
        (Retry("busy", after=1e12), 0xFFFF_FFFE, "busy"),
        (Retry("busy", after=math.inf), 0xFFFF_FFFE, "busy"),
        (Retry(), 0, "the handler asked for a retry"),
        (Reject("broken"), 0xFFFF_FFFF, "broken"),
        (Reject(), 0xFFFF_FFFF, "the handler rejected the message"),
        (ValueError("no luck"), 0, "ValueError: no luck"),
        (KeyError("id"), 0, "KeyError: 'id'"),
        (ValueError(), 0, "ValueError"),
        (SystemExit(3), 0, "SystemExit: 3"),
    ],
)
def test_failures(error, delay_ms, reason):
    assert answered(failure(7, error)) == (7, delay_ms, reason)


def test_an_error_without_a_text_has_a_reason():
    assert "Silent" in answered(failure(7, Silent())).reason


def test_after_is_a_number():
    with pytest.raises(ValueError):
        Retry("busy", after=math.nan)


def test_a_delivery_for_a_test():
    delivery = Delivery(b"hello", number=3)
    assert (delivery.id, delivery.number, delivery.channel, delivery.payload) == (1, 3, None, b"hello")
    assert delivery.consumer_id == "test" and "5 bytes" in repr(delivery)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LATER = "42" + PARENT[2:]


def traced(value):
    return json.dumps({"traceparent": value}).encode()


@pytest.mark.parametrize("parent", [PARENT, LATER, LATER + "-n3w", LATER + "-" + "x" * 72])
def test_the_trace_context_of_an_object(parent):
    assert Delivery(traced(parent)).traceparent == parent


@pytest.mark.parametrize(
    "payload",
    [
        f' {{"a":[1,{{"traceparent":5}}],"traceparent":"x","traceparent":"{PARENT}"}} ',
        f'{{"trace\\u0070arent":"\\u0030{PARENT[1:]}"}}',
        f'{{"n":{"9" * 10_000},"e":1e999,"traceparent":"{PARENT}"}}',
        f'{{"filling":"{"x" * (10 << 20)}","traceparent":"{PARENT}"}}',
    ],
    ids=range(4),
)
def test_where_the_trace_context_may_be(payload):
    assert Delivery(payload.encode()).traceparent == PARENT


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no JSON",
        b"null",
        b"17",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps([{"traceparent": PARENT}]).encode(),
        json.dumps({"a": {"traceparent": PARENT}}).encode(),
        json.dumps(PARENT).encode(),
        traced(PARENT)[:-1],
        traced(PARENT) + b" x",
        b"\xef\xbb\xbf" + traced(PARENT),
        traced(PARENT).decode().encode("utf-16"),
        traced(PARENT)[:-1] + b',"a":NaN}',
        traced(PARENT)[:-1] + b',"traceparent":null}',
        traced([PARENT]),
        traced(None),
        traced(5),
        traced(""),
        traced(PARENT[:-1]),
        traced(PARENT + "0"),
        traced(PARENT + "-"),
        traced(PARENT + "\n"),
        traced(" " + PARENT),
        traced(PARENT.upper()),
        traced("ff" + PARENT[2:]),
        traced(PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)),
        traced(PARENT.replace("b7ad6b7169203331", "0" * 16)),
        traced("000-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        traced(LATER + "x"),
        traced(LATER + "-A"),
        traced(LATER + "-a\r\nX: 1"),
        traced(LATER + "-" + "x" * 73),
        traced("\u0661" + PARENT[1:]),
        traced("x" * (10 << 20)),
    ],
    ids=range(36),
)
def test_payloads_without_a_trace_context(payload):
    assert Delivery(payload).traceparent is None
