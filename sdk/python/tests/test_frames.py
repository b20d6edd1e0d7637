"""Frames: the examples of docs/PROTOCOL.md, the limits, and random bytes."""

import random
import re
from pathlib import Path

import pytest

from oncecast import frames
from oncecast.frames import FrameError

PROTOCOL = Path(__file__).resolve().parents[3] / "docs/PROTOCOL.md"
ID = 1_790_000_000_123_456


def examples():
    """The blocks of docs/PROTOCOL.md with frames: the frames in words, and their bytes.

    Without PART, which a dispatcher does not send to a consumer that does not announce it.
    """
    found, words, digits = [], [], []
    for block in re.findall(r"```frames\n(.*?)```", PROTOCOL.read_text(), re.S):
        for line in block.splitlines():
            if line.startswith(("C→D", "D→C")):
                if digits:
                    found.append((words, bytes.fromhex(" ".join(digits))))
                    words, digits = [], []
                words.append(line.split(" ", 1)[1])
            else:
                digits.append(line)
        found.append((words, bytes.fromhex(" ".join(digits))))
        words, digits = [], []
    return [(words, encoded) for words, encoded in found if not any(word.startswith("PART ") for word in words)]


@pytest.mark.parametrize("words,encoded", examples(), ids=lambda value: value[0] if isinstance(value, list) else "")
def test_the_examples_of_the_protocol(words, encoded):
    decoded = frames.decode(encoded)
    commands = [{"Process": "PROCESS"}.get(type(frame).__name__, type(frame).__name__.upper()) for frame in decoded]
    commands = ["DELIVER" if getattr(frame, "channel", None) else name for frame, name in zip(decoded, commands)]
    assert commands == [word.split()[0] for word in words]
    if "HELLO" not in commands:  # JSON has more than one form.
        assert b"".join(map(frames.encode, decoded)) == encoded
    for frame, word in zip(decoded, words):
        for value in re.findall(r"=(\d+)(?=\s|$)", word):
            assert value in repr(frame), f"{frame} lacks {value} of {word}"


def test_there_are_examples_of_each_frame_of_version_1():
    named = {word.split()[0] for words, _ in examples() for word in words}
    every = {"PROCESS", "ACK", "NACK", "LEAD", "READY", "HELD", "PROGRESS", "RESULT", "DRAIN", "ERROR", "DELIVER"}
    assert every <= named


@pytest.mark.parametrize(
    "frame",
    [
        frames.Results([frames.Result(ID, [(b"a", b"1"), (b"", b"")]), frames.Result(ID + 1, [])]),
        frames.Hello({"version": "0.1.0", "link_timeout_ms": 3000, "news": [None]}),
        frames.Recorded((ID, ID + 1)),
        frames.Recorded(()),
        frames.Credit(0),
        frames.Credit(65_536),
        frames.Proof(bytes(range(32))),
        frames.Process(ID, 1, b""),
        frames.Process(ID, 65_535, b"x" * 1000, b"\xff" * 4096),
        frames.Nack(ID, frames.NACK_NEVER, "é" * 100),
        frames.Ready(0, 2, "c"),
    ],
)
def test_frames_survive_encoding(frame):
    assert frames.decode(frames.encode(frame)) == [frame]
    assert frames.decode(frames.encode(frame) * 3) == [frame] * 3


@pytest.mark.parametrize(
    "message,code",
    [
        ("02 00 00 00 00 00", 1),
        ("02", 1),
        ("01", 4),
        ("01 00 00 00 00", 4),
        ("01 10 00 00 00 00", 2),
        ("01 ff 00 00 00 00", 2),
        ("01 00 00 80 00 0b", 3),
        ("01 08 00 00 00 01 00", 3),
        ("01 01 00 08 00 01", 3),
        ("01 0d 00 08 00 01", 3),
        ("01 0c 00 00 10 01", 3),
        ("01 0e 00 00 00 05", 3),
        ("01 01 00 00 00 01 00", 4),
        ("01 0e 00 00 00 03 00 00 00", 4),
        ("01 00 00 00 00 09 00 00 00 00 00 00 00 00 01", 4),
        ("01 03 00 00 00 09 00 00 00 00 00 00 00 01 ff", 4),
        ("01 0c 00 00 00 02 5b 5d", 4),
        ("01 0c 00 00 00 01 7b", 4),
        ("01 0b 00 00 00 00", 4),
        ("01 07 00 00 00 0b 00 00 00 00 00 00 00 01 00 00 00", 4),
        ("01 07 00 00 00 0a 00 00 00 00 00 00 00 01 ff ff", 4),
        ("01 07 00 00 00 0e 00 00 00 00 00 00 00 01 00 01 ff ff 00 00", 4),
        ("01 0a 00 00 00 0c 00 00 00 00 00 00 00 01 00 01 00 00", 4),
        ("01 0a 00 00 00 0d 00 00 00 00 00 00 00 01 00 01 00 02 61", 4),
        ("01 0a 00 00 00 0d 00 00 00 00 00 00 00 01 00 01 10 01 61", 4),
    ],
)
def test_what_is_wrong_has_its_code(message, code):
    with pytest.raises(FrameError) as caught:
        frames.decode(bytes.fromhex(message))
    assert caught.value.code == code


def test_deep_json_is_malformed():
    with pytest.raises(FrameError):
        frames.decode(frames.frame(frames.HELLO, b"[" * 4096))


def test_random_bytes_and_damaged_frames_are_decoded_or_refused():
    random.seed(14)
    good = b"".join(encoded for _, encoded in examples())
    good += frames.encode(frames.Results([frames.Result(ID, [(b"name", b"value")])] * 3))
    good += frames.encode(frames.Hello({"a": [1, {"b": None}]})) + frames.encode(frames.Credit(7))
    for _ in range(20_000):
        if random.random() < 0.5:
            message = bytes([1, random.randrange(16), 0, 0, 0]) + random.randbytes(random.randrange(60))
        else:
            begin = random.randrange(len(good))
            damaged = bytearray(good[begin : begin + random.randrange(1, 120)])
            damaged[random.randrange(len(damaged))] = random.randrange(256)
            message = bytes(damaged)
        try:
            decoded = frames.decode(message)
        except FrameError as error:
            assert 1 <= error.code <= 4 and error.text
        else:
            if not any(isinstance(frame, frames.Hello) for frame in decoded):
                assert b"".join(map(frames.encode, decoded)) == message


def test_answers_are_gathered_into_messages_of_about_128_kib():
    payloads = [frames.result_payload(ID + n, [(b"v", b"x" * 1000)]) for n in range(1000)]
    nacks = [frames.nack_payload(ID, 0, "no")] * 3
    for second in (True, False):
        messages = frames.answer_messages(payloads, nacks, second)
        assert 8 <= len(messages) <= 12 and max(map(len, messages)) < 160 * 1024
        decoded = [frame for message in messages for frame in frames.decode(message)]
        results = [frame for frame in decoded if not isinstance(frame, frames.Nack)]
        flat = [result for frame in results for result in (frame.results if second else [frame])]
        assert [result.id for result in flat] == [ID + n for n in range(1000)]
        assert len(decoded) - len(results) == 3
    assert len(frames.answer_messages([b"x" * (12 << 20)] * 2, [], True)) == 2
    assert frames.answer_messages([], [], True) == []


def test_a_long_text_is_cut_at_a_character():
    cut = frames.cut_text("x" + "é" * 5000)
    assert len(cut) == 4095 and cut.decode().endswith("é")
    assert frames.cut_text("\ud800") == b"?"
