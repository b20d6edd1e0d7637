"""Handshakes, LEAD and epochs, and what is refused: docs/PROTOCOL.md, sections 1, 2, 4 and 5.1."""

import os
import socket
import time

import pytest
from scripted import BOTH, FIRST_ID, Dispatcher, Gate, consumer_of, ids
from websockets.exceptions import InvalidStatus

from oncecast import frames, link


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def consumer(gate):
    with consumer_of(gate, consumer_id="c-1") as consumer:
        yield consumer


def exchange(consumer, request):
    """What an HTTP request gets for an answer, until the connection ends."""
    host, port = consumer.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(request)
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    return answer


def test_origins_and_other_paths_are_refused(consumer):
    for origin in ("https://example.org", "null"):
        with pytest.raises(InvalidStatus) as caught:
            Dispatcher(consumer, origin=origin)
        assert caught.value.response.status_code == 403
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: x\r\n\r\n"
    assert b" 404 " in exchange(consumer, b"GET /metrics HTTP/1.1\r\n" + upgrade).splitlines()[0]
    assert b" 403 " in exchange(consumer, b"GET / HTTP/1.1\r\nOrigin: \r\n" + upgrade).splitlines()[0]
    assert b" 426 " in exchange(consumer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").splitlines()[0]
    assert b" 400 " in exchange(consumer, b"HELO example.org\r\n\r\n").splitlines()[0]
    Dispatcher(consumer).greet()


@pytest.mark.parametrize(
    "offered,selected",
    [(None, None), (["oncecast.1"], "oncecast.1"), (BOTH, "oncecast.2"), (["oncecast.2"], "oncecast.2"), (["x"], None)],
)
def test_the_subprotocol_is_selected(consumer, offered, selected):
    dispatcher = Dispatcher(consumer, second=selected == "oncecast.2", subprotocols=offered)
    assert dispatcher.websocket.subprotocol == selected
    ready, held = dispatcher.greet()
    assert (ready, held) == (frames.Ready(16, 2, "c-1"), ())


def test_the_consumer_id_is_the_address_by_default():
    with consumer_of(lambda delivery: None) as consumer:
        assert Dispatcher(consumer).greet()[0].consumer == consumer.address


def test_nothing_is_sent_before_lead(consumer):
    assert Dispatcher(consumer).silence(0.2) == []


def test_a_connection_without_lead_is_closed(consumer, monkeypatch):
    monkeypatch.setattr(link, "LEAD_S", 0.3)
    silent = Dispatcher(consumer)
    assert silent.error() == 5
    host, port = consumer.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        begin = time.monotonic()
        while time.monotonic() - begin < 3:
            try:
                sock.sendall(b"G")
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - begin < 2, "trickling bytes do not prolong it"


def test_another_group_is_refused_and_its_epoch_forgotten(consumer):
    stranger = Dispatcher(consumer)
    stranger.lead(100, group="other")
    assert stranger.error() == 7
    Dispatcher(consumer).greet(1)


def test_epochs(consumer):
    first = Dispatcher(consumer)
    first.greet(5)
    late = Dispatcher(consumer)
    late.lead(4)
    assert late.error() == 6
    first.process(FIRST_ID)
    assert not first.ended
    same = Dispatcher(consumer)
    assert same.greet(5)[1] == (FIRST_ID,)
    assert first.error() == 10
    higher = Dispatcher(consumer)
    assert higher.greet(6)[1] == (FIRST_ID,)
    assert same.error() == 6
    higher.drop()
    late = Dispatcher(consumer)
    late.lead(5)
    assert late.error() == 6, "it is remembered without an active connection"


@pytest.mark.parametrize(
    "wrong,code",
    [
        (b"\x02\x00\x00\x00\x00\x00", 1),
        (b"\x01\xff\x00\x00\x00\x00", 2),
        (b"\x01\x00\x00\xff\x00\x00", 3),
        (b"\x01\x00\x00", 4),
        ("text", 4),
        (frames.encode(frames.Lead(1, "messages")), 5),
        (frames.encode(frames.Hello({})), 5),
        (frames.encode(frames.Ack((1,))), 5),
        (frames.encode(frames.Drain()), 5),
        (frames.encode(frames.Credit(1)), 5),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize("second", [True, False])
def test_wrong_frames_are_refused_and_the_others_of_the_message_not_obeyed(consumer, gate, wrong, code, second):
    dispatcher = Dispatcher(consumer, second)
    dispatcher.greet()
    good = frames.encode(frames.Process(FIRST_ID, 1, b""))
    dispatcher.websocket.send(wrong if isinstance(wrong, str) else good + wrong)
    assert dispatcher.error() == code
    assert gate.begun == []
    assert Dispatcher(consumer).greet()[1] == ()


def test_recorded_belongs_to_the_second_subprotocol(consumer):
    dispatcher = Dispatcher(consumer, second=False)
    dispatcher.greet()
    dispatcher.send(frames.Recorded((1,)))
    assert dispatcher.error() == 5


@pytest.mark.parametrize("frame", [frames.Process(1, 1, b""), frames.Ready(1, 0, "x"), frames.Hello({})])
def test_the_first_frame_is_lead(consumer, gate, frame):
    dispatcher = Dispatcher(consumer)
    dispatcher.send(frame)
    assert dispatcher.error() == 5
    assert gate.begun == []


def test_a_wrong_frame_behind_lead_makes_no_leader(consumer):
    dispatcher = Dispatcher(consumer)
    dispatcher.send(frames.Lead(9, "messages"), frames.Hello({}), frames.Ack(()))
    assert dispatcher.error() == 5
    Dispatcher(consumer).greet(1)


def test_hello_may_be_absent_or_odd(consumer):
    for epoch, hello in enumerate([{}, {"link_timeout_ms": "soon"}, {"link_timeout_ms": -1}, {"a": [1]}], 1):
        dispatcher = Dispatcher(consumer)
        dispatcher.send(frames.Lead(epoch, "messages"), frames.Hello(hello))
        dispatcher.greeting()
    dispatcher = Dispatcher(consumer)
    dispatcher.send(frames.Lead(9, "messages"))
    dispatcher.greeting()


def test_an_error_ends_the_connection_only(consumer, gate):
    dispatcher = Dispatcher(consumer)
    dispatcher.greet()
    dispatcher.process(FIRST_ID)
    gate.wait_for(FIRST_ID)
    dispatcher.send(frames.Error(5, "why"))
    assert dispatcher.wait_for_end() == 1001
    again = Dispatcher(consumer)
    assert again.greet()[1] == (FIRST_ID,)
    gate.finish(FIRST_ID)
    assert again.results(1) == {FIRST_ID: []}


def test_large_fragmented_and_empty_messages(consumer, gate):
    dispatcher = Dispatcher(consumer)
    dispatcher.websocket.send(b"")
    dispatcher.greet()
    dispatcher.websocket.send(b"")
    body, channel = b"x" * frames.MAX_BODY_BYTES, b"\xff" * 4096
    dispatcher.send(frames.Process(FIRST_ID, 1, body, channel))
    encoded = frames.encode(frames.Process(FIRST_ID + 1, 1, b"y" * 100_000))
    dispatcher.websocket.send(encoded[at : at + 1000] for at in range(0, len(encoded), 1000))
    gate.wait_for(FIRST_ID, FIRST_ID + 1)
    gate.finish(FIRST_ID, {"v": b"z" * 1_000_000})
    assert dispatcher.results(1)[FIRST_ID] == [(b"v", b"z" * 1_000_000)]
    dispatcher.websocket.send(b"\x00" * (frames.MAX_RECEIVED_BYTES + 1))
    assert dispatcher.error() == 3


def test_before_lead_messages_are_small(consumer):
    dispatcher = Dispatcher(consumer)
    dispatcher.websocket.send(b"\x01" * 65_537)
    assert dispatcher.error() == 3
    endless = Dispatcher(consumer)
    with pytest.raises(Exception):
        for _ in range(100):
            endless.websocket.send(b"\x01" * 8_000_000)
    endless.wait_for_end()


def test_more_than_the_prefetch_is_refused_and_none_of_it_held(consumer, gate):
    dispatcher = Dispatcher(consumer)
    dispatcher.greet()
    dispatcher.process(*ids(17))
    assert dispatcher.error() == 8
    again = Dispatcher(consumer)
    assert again.greet()[1] == ()
    again.process(*ids(16))
    gate.wait_for(*ids(4))
    assert not again.ended


def test_process_on_a_replaced_connection_is_not_accepted(consumer, gate):
    old = Dispatcher(consumer)
    old.greet(1)
    new = Dispatcher(consumer)
    new.greet(2)
    try:
        old.process(FIRST_ID)
    except Exception:  # It may have ended already.
        pass
    assert old.error() == 6
    time.sleep(0.1)
    assert gate.begun == []


def test_there_are_64_connections_and_the_active_one_stays(consumer):
    active = Dispatcher(consumer)
    active.greet()
    host, port = consumer.address.split(":")
    strangers = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
    try:
        for stranger in strangers[:36]:
            assert stranger.recv(1) == b"", "the oldest are closed"
        with pytest.raises(socket.timeout):
            strangers[-1].settimeout(0.2)
            strangers[-1].recv(1)
        active.websocket.ping().wait(5)
        assert not active.ended
        assert Dispatcher(consumer).greet(2)[1] == ()
    finally:
        for stranger in strangers:
            stranger.close()


def test_nagles_algorithm_is_off(consumer, monkeypatch):
    set_options = []
    original = socket.socket.setsockopt
    monkeypatch.setattr(socket.socket, "setsockopt", lambda self, *a: (set_options.append(a), original(self, *a))[1])
    Dispatcher(consumer).greet()
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in set_options


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_keeps_neither_the_port_nor_the_connection(consumer):
    dispatcher = Dispatcher(consumer)
    dispatcher.greet()
    done, pipe = os.pipe()
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(pipe)
        os.write(begins, b"x")
        os.read(done, 1)  # Until the parent has looked.
        os._exit(0)
    os.close(done)
    try:
        os.read(begun, 1)
        consumer.stop()
        assert dispatcher.wait_for_end() is not None
        host, port = consumer.address.split(":")
        with socket.create_server((host, int(port))):
            pass
    finally:
        for end in (pipe, begun, begins):
            os.close(end)
        os.waitpid(child, 0)
