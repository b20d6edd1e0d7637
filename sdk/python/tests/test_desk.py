"""What is held and kept, PROGRESS, pausing and the end: docs/PROTOCOL.md, sections 5.2 to 5.7 and oncecast.2."""

import asyncio
import socket
import threading
import time

import pytest
from cluster import wait_for
from scripted import FIRST_ID, Dispatcher, Gate, consumer_of, ids

from oncecast import Consumer, Reject, Retry, desk, frames

A, B, C, D = ids(4)
both = pytest.mark.parametrize("second", [True, False], ids=["oncecast.2", "version-1"])


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def consumer(gate):
    with consumer_of(gate) as consumer:
        yield consumer


@both
def test_outcomes(consumer, gate, second):
    dispatcher = Dispatcher(consumer, second)
    dispatcher.greet()
    for at, (outcome, delay_ms, reason) in enumerate(
        [
            (Retry("busy", after=2), 2_000, "busy"),
            (Reject("broken"), 0xFFFF_FFFF, "broken"),
            (ValueError("no luck"), 0, "ValueError: no luck"),
            (SystemExit(1), 0, "SystemExit: 1"),
            (["a list"], 0, "TypeError: the handler returned list, not None or a mapping of names to values"),
        ]
    ):
        dispatcher.process(FIRST_ID + at)
        gate.finish(FIRST_ID + at, outcome)
        assert dispatcher.next(frames.Nack) == (FIRST_ID + at, delay_ms, reason)
    dispatcher.process(*range(10, 14))
    gate.finish(10)
    gate.finish(11, {})
    gate.finish(12, {"total": "42"})
    gate.finish(13, {"total": 42, b"raw": b"\xff"})
    results = dispatcher.results(4)
    assert results == {10: [], 11: [], 12: [(b"total", b"42")], 13: [(b"total", b"42"), (b"raw", b"\xff")]}


def test_what_a_handler_receives():
    seen = []
    with consumer_of(seen.append, consumer_id="c-1") as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.send(frames.Process(A, 3, b"body", b"orders.eu"), frames.Process(B, 1, b""))
        dispatcher.results(2)
    first, second = sorted(seen, key=lambda delivery: delivery.id)
    assert (first.id, first.number, first.channel, first.payload) == (A, 3, b"orders.eu", b"body")
    assert (second.channel, second.payload, second.consumer_id) == (None, b"", "c-1")


@both
def test_held_lists_what_is_held_from_any_connection(consumer, gate, second):
    first = Dispatcher(consumer, second)
    first.greet(1)
    first.process(A, B)
    gate.wait_for(A, B)
    first.drop()
    middle = Dispatcher(consumer, second)
    assert sorted(middle.greet(1)[1]) == [A, B]
    middle.process(C)
    last = Dispatcher(consumer, second)
    wait_for(lambda: C in gate.begun, "C is begun")
    assert sorted(last.greet(2)[1]) == [A, B, C]
    for id in (A, B, C):
        gate.finish(id, {"id": id})
    assert set(last.results(3)) == {A, B, C}
    assert gate.begun.count(A) == 1


@both
def test_answers_without_a_connection_follow_held(consumer, gate, second):
    first = Dispatcher(consumer, second)
    first.greet()
    first.process(A, B, C)
    gate.wait_for(A, B, C)
    first.drop()
    time.sleep(0.2)  # A NACK that is sent before the consumer notices is lost with the connection.
    gate.finish(A, {"v": "1"})
    gate.finish(B, Retry("no luck"))
    time.sleep(0.2)
    again = Dispatcher(consumer, second)
    assert sorted(again.greet()[1]) == [A, B, C]
    assert again.results(1) == {A: [(b"v", b"1")]}
    assert again.next(frames.Nack) == (B, 0, "no luck")
    gate.finish(C)
    assert again.results(1) == {C: []}
    again.record(A, C)
    again.websocket.ping().wait(5)
    again.drop()
    kept = Dispatcher(consumer, second).greet()[1]
    assert sorted(kept) == ([] if second else [A, C]), "a failure is sent once"


def test_a_result_is_kept_until_it_is_recorded(consumer, gate):
    first = Dispatcher(consumer)
    first.greet(1)
    first.process(A, B)
    gate.finish(A, {"v": "a"})
    gate.finish(B, {"v": "b"})
    first.results(2)
    first.record(B, 7)
    first.websocket.ping().wait(5)
    for epoch in (1, 2):
        first.drop()
        first = Dispatcher(consumer)
        assert first.greet(epoch)[1] == (A,)
        assert first.results(1) == {A: [(b"v", b"a")]}
    first.record(A)
    first.websocket.ping().wait(5)
    first.drop()
    assert Dispatcher(consumer).greet(3)[1] == ()


def test_recorded_counts_on_the_active_connection_only(consumer, gate):
    old = Dispatcher(consumer)
    old.greet(1)
    old.process(A)
    gate.finish(A)
    old.results(1)
    new = Dispatcher(consumer)
    assert new.greet(2)[1] == (A,)
    try:
        old.record(A)
    except Exception:  # It may have ended.
        pass
    new.results(1)
    new.drop()
    assert Dispatcher(consumer).greet(2)[1] == (A,)


def test_version_1_keeps_some_results_for_some_seconds(monkeypatch, gate):
    monkeypatch.setattr(desk, "RECENT_S", 0.5)
    with consumer_of(lambda delivery: {"v": "x"}, prefetch=2) as consumer:
        dispatcher = Dispatcher(consumer, second=False)
        dispatcher.greet(hello=None)
        for id in range(1, 601):
            dispatcher.process(id)
            dispatcher.results(1)
        dispatcher.drop()
        dispatcher = Dispatcher(consumer, second=False)
        # HELD and RESULT may both count as strays: together no more than the prefetch and 1,000.
        held = dispatcher.greet(2)[1]
        assert held[-1] == 600 and 400 < len(held) <= 501
        assert set(dispatcher.results(len(held))) == set(held)
        dispatcher.drop()
        # Once: a leader counts them again after each LEAD.
        assert Dispatcher(consumer, second=False).greet(3)[1] == ()


def test_version_1_keeps_results_for_some_seconds(monkeypatch, gate):
    monkeypatch.setattr(desk, "RECENT_S", 0.5)
    with consumer_of(lambda delivery: {"v": "x"}) as consumer:
        dispatcher = Dispatcher(consumer, second=False)
        dispatcher.greet(hello=None)
        dispatcher.process(A)
        dispatcher.results(1)
        time.sleep(1.7)
        dispatcher.drop()
        assert Dispatcher(consumer, second=False).greet(3)[1] == ()


def test_an_epoch_of_the_far_future_is_refused_and_forgotten(consumer):
    now = int(time.time() * 1000)
    for epoch in (2**64 - 1, now + 90_000_000):
        dispatcher = Dispatcher(consumer)
        dispatcher.lead(epoch)
        assert dispatcher.error() == frames.E_STALE
    Dispatcher(consumer).greet(now)
    Dispatcher(consumer).greet(now + 80_000_000)


def test_version_1_takes_a_full_prefetch_beside_what_was_held_before(gate):
    with consumer_of(gate, prefetch=2) as consumer:
        first = Dispatcher(consumer, second=False)
        first.greet(1, hello=None)
        first.process(1, 2)
        second = Dispatcher(consumer, second=False)
        assert second.greet(2, hello=None)[1] == (1, 2)
        second.process(3, 4)
        gate.wait_for(3)


def test_a_result_survives_a_change_of_subprotocols(consumer, gate):
    dispatcher = Dispatcher(consumer, second=False)
    dispatcher.greet(1)
    dispatcher.process(A)
    gate.finish(A)
    dispatcher.results(1)
    for epoch, second in [(2, True), (3, True), (4, False), (5, True)]:
        dispatcher = Dispatcher(consumer, second)
        assert dispatcher.greet(epoch)[1] == (A,)
        assert dispatcher.results(1) == {A: []}
    dispatcher.record(A)
    dispatcher.websocket.ping().wait(5)
    assert Dispatcher(consumer).greet(6)[1] == ()


@both
def test_the_same_id_again(consumer, gate, second):
    dispatcher = Dispatcher(consumer, second)
    dispatcher.greet()
    dispatcher.process(A)
    gate.wait_for(A)
    dispatcher.process(A, delivery=2)
    dispatcher.websocket.ping().wait(5)
    gate.finish(A)
    assert dispatcher.results(1) == {A: []}
    assert dispatcher.silence(0.2) == [] and gate.begun == [A]
    if second:
        dispatcher.process(A, delivery=2)
        assert dispatcher.silence(0.2) == [] and gate.begun == [A], "its result has crossed the message"
        dispatcher.record(A)
    dispatcher.process(A, delivery=3)
    gate.finish(A, {"v": "again"})
    assert dispatcher.results(1) == {A: [(b"v", b"again")]}, "it was answered: an ordinary delivery"


def test_a_waiting_message_gets_the_new_delivery_number():
    numbers, go = {}, threading.Event()

    def handle(delivery):
        go.wait(5)
        numbers[delivery.id] = delivery.number

    with consumer_of(handle, concurrency=1) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A, B)
        dispatcher.process(B, delivery=2)
        dispatcher.websocket.ping().wait(5)
        go.set()
        dispatcher.results(2)
    assert numbers == {A: 1, B: 2}


@both
def test_progress_names_all_on_each_ping_and_each_second(gate, second):
    with consumer_of(gate, concurrency=1) as consumer:
        dispatcher = Dispatcher(consumer, second)
        dispatcher.greet()
        dispatcher.process(A, B, C)
        gate.wait_for(A)
        begin = time.monotonic()
        for _ in range(3):
            dispatcher.websocket.ping().wait(5)
            assert set(dispatcher.next(frames.Progress, timeout=0.4).ids) == {A, B, C}
        assert time.monotonic() - begin < 0.7
        dispatcher.next(frames.Progress, timeout=1.5)
        new = Dispatcher(consumer, second)
        new.greet(2)
        assert set(new.next(frames.Progress, timeout=1.5).ids) == {A, B, C}, "adopted ones, too"


def test_hello_tells_how_often_to_report(consumer, gate):
    dispatcher = Dispatcher(consumer)
    dispatcher.greet(hello={"link_timeout_ms": 300})
    dispatcher.process(A)
    dispatcher.next(frames.Progress)
    begin = time.monotonic()
    for _ in range(5):
        dispatcher.next(frames.Progress)
    assert time.monotonic() - begin < 0.9


def busy_python(seconds):
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        n += 1


@both
@pytest.mark.parametrize("kind", ["sleeps", "computes", "blocks-the-loop"])
def test_a_handler_that_blocks_loses_neither_link_nor_result(kind, second):
    work = time.sleep if kind == "sleeps" else busy_python

    def handle(delivery):
        work(2.0)
        return {"v": "done"}

    async def handle_async(delivery):
        return handle(delivery)

    with consumer_of(handle_async if kind == "blocks-the-loop" else handle, concurrency=2) as consumer:
        dispatcher = Dispatcher(consumer, second)
        link_timeout = 0.6
        dispatcher.greet(hello={"link_timeout_ms": int(link_timeout * 1000)})
        dispatcher.process(A)
        until, last_progress = time.monotonic() + 1.8, time.monotonic()
        while time.monotonic() < until:
            assert dispatcher.websocket.ping().wait(link_timeout), "no pong within the link timeout"
            dispatcher.next(frames.Progress, timeout=2 * link_timeout)
            assert time.monotonic() - last_progress < 2 * link_timeout
            last_progress = time.monotonic()
            time.sleep(link_timeout / 3)
        assert dispatcher.results(1) == {A: [(b"v", b"done")]}


@both
def test_coroutines_run_side_by_side(second):
    running = most = 0

    async def handle(delivery):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        if delivery.payload == b"fail":
            raise Retry("asked")
        return {"id": delivery.id}

    with consumer_of(handle, concurrency=10, prefetch=100) as consumer:
        dispatcher = Dispatcher(consumer, second)
        dispatcher.greet()
        begin = time.monotonic()
        dispatcher.process(*range(1, 31))
        assert dispatcher.results(30) == {id: [(b"id", str(id).encode())] for id in range(1, 31)}
        assert time.monotonic() - begin < 1.5 and most == 10
        dispatcher.process(A, body=b"fail")
        assert dispatcher.next(frames.Nack).reason == "asked"


def test_a_coroutine_that_takes_too_long_is_cancelled():
    cancelled = []

    async def handle(delivery):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(delivery.id)
            raise

    with consumer_of(handle, handler_timeout=0.2) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A)
        assert dispatcher.next(frames.Nack) == (A, 0, "TimeoutError: the handler took longer than 0.2 s")
        assert cancelled == [A]


def test_coroutines_are_cancelled_at_the_end():
    cancelled = threading.Event()

    async def handle(delivery):
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    with consumer_of(handle) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A)
        dispatcher.next(frames.Progress)
    assert cancelled.wait(1)


def test_what_is_given_up_is_not_reported_and_runs_again(gate):
    with consumer_of(gate, handler_timeout=0.2, concurrency=2, prefetch=2) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet(hello={"link_timeout_ms": 300})
        dispatcher.process(A)
        gate.wait_for(A)
        time.sleep(0.4)
        dispatcher.silence(0)
        dispatcher.process(A, delivery=2)
        wait_for(lambda: gate.begun == [A, A], "it runs again")
        gate.finish(A, {"v": "first"})
        assert dispatcher.results(1) == {A: [(b"v", b"first")]}
        gate.finish(A, {"v": "second"})
        assert dispatcher.results(1) == {A: [(b"v", b"second")]}


def test_without_a_thread_that_can_work_it_says_so(gate):
    with consumer_of(gate, handler_timeout=0.2, concurrency=2) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet(hello={"link_timeout_ms": 300})
        dispatcher.process(A, B, C, D)
        gate.wait_for(A, B)
        dispatcher.next(frames.Drain)
        returned = {dispatcher.next(frames.Nack), dispatcher.next(frames.Nack)}
        assert returned == {(C, 0, ""), (D, 0, "")}
        dispatcher.process(C)
        assert dispatcher.next(frames.Nack) == (C, 0, "")
        new = Dispatcher(consumer)
        assert new.greet(2)[1] == ()
        new.next(frames.Drain)
        gate.finish(A)
        assert new.results(1) == {A: []}
        new.wait_for_end()
        again = Dispatcher(consumer)
        again.greet(2)
        again.process(C)
        gate.finish(C)
        assert C in again.results(2)


def test_pause_and_resume(consumer, gate):
    dispatcher = Dispatcher(consumer)
    dispatcher.greet()
    dispatcher.process(A)
    consumer.pause()
    assert dispatcher.next(frames.Credit).prefetch == 0
    dispatcher.process(B)  # It was on its way.
    gate.finish(A)
    gate.finish(B)
    dispatcher.results(2)
    dispatcher.record(A, B)
    dispatcher.websocket.ping().wait(5)
    again = Dispatcher(consumer)
    assert again.greet(2)[0].prefetch == 0
    consumer.resume()
    assert again.next(frames.Credit).prefetch == 16
    again.process(*range(1, 17))
    gate.wait_for(1, 2, 3, 4)


def test_pause_and_resume_in_version_1(consumer, gate):
    dispatcher = Dispatcher(consumer, second=False)
    dispatcher.greet()
    dispatcher.process(A)
    gate.wait_for(A)
    consumer.pause()
    dispatcher.next(frames.Drain)
    dispatcher.process(B)
    assert dispatcher.next(frames.Nack) == (B, 0, "")
    dispatcher.drop()
    dispatcher = Dispatcher(consumer, second=False)
    assert dispatcher.greet()[1] == (A,)
    dispatcher.next(frames.Drain)
    consumer.resume()
    assert dispatcher.silence(1.2) == [] and not dispatcher.ended, "it finishes what it holds"
    gate.finish(A)
    dispatcher.results(1)
    dispatcher.wait_for_end()
    dispatcher = Dispatcher(consumer, second=False)
    assert dispatcher.greet()[1] == (A,)
    dispatcher.results(1)
    assert dispatcher.silence(0.1) == [], "no DRAIN"


def stopped(consumer, **options):
    thread = threading.Thread(target=consumer.stop, kwargs=options)
    thread.start()
    return thread


@both
def test_the_end_finishes_what_is_held(gate, second):
    with consumer_of(gate, drain_timeout=10) as consumer:
        first = Dispatcher(consumer, second)
        first.greet()
        first.process(A)
        gate.wait_for(A)
        stopping = stopped(consumer)
        first.next(frames.Drain)
        first.process(B)
        assert first.next(frames.Nack) == (B, 0, "")
        first.websocket.ping().wait(5)
        first.next(frames.Progress)
        new = Dispatcher(consumer, second)
        assert new.greet(2)[1] == (A,), "a draining consumer answers a new leader"
        new.next(frames.Drain)
        gate.finish(A, {"v": "x"})
        assert new.results(1) == {A: [(b"v", b"x")]}
        if second:
            assert new.silence(0.3) == [] and not new.ended and stopping.is_alive(), "it waits for RECORDED"
            new.record(A)
        assert new.wait_for_end(2) == 1001
        stopping.join(2)
        assert not stopping.is_alive()
        with pytest.raises(OSError):
            Dispatcher(consumer, second)


def test_the_end_is_bounded_and_returns_what_was_not_started(gate):
    with consumer_of(gate, concurrency=1) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A, B)
        gate.wait_for(A)
        stopping = stopped(consumer, timeout=0.3)
        dispatcher.next(frames.Drain)
        assert dispatcher.next(frames.Nack) == (B, 0, "")
        dispatcher.wait_for_end(3)
        stopping.join(5)
        assert not stopping.is_alive()


def test_a_message_that_ends_within_the_grace_is_answered(gate):
    with consumer_of(gate, concurrency=1) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A)
        gate.wait_for(A)
        stopped(consumer, timeout=0)
        dispatcher.next(frames.Drain)
        time.sleep(0.3)
        gate.finish(A)
        dispatcher.results(1)
        dispatcher.record(A)
        assert dispatcher.wait_for_end(2) == 1001


def test_a_result_without_a_leader_waits_for_one_at_the_end(gate):
    with consumer_of(gate, drain_timeout=10) as consumer:
        first = Dispatcher(consumer)
        first.greet()
        first.process(A)
        gate.wait_for(A)
        first.drop()
        gate.finish(A)
        stopping = stopped(consumer)
        time.sleep(0.2)
        new = Dispatcher(consumer)
        assert new.greet(2)[1] == (A,)
        new.results(1)
        new.next(frames.Drain)
        new.record(A)
        new.wait_for_end(2)
        stopping.join(2)
        assert not stopping.is_alive()


def test_a_dispatcher_that_does_not_read_blocks_no_other(gate):
    with consumer_of(lambda delivery: {"v": b"x" * 1_000_000}, prefetch=64, concurrency=2) as consumer:
        deaf = Dispatcher(consumer)
        deaf.greet()
        # Its receiver stops reading once 16 frames wait in its queue.
        deaf._changed.acquire()
        try:
            deaf.process(*range(1, 40))
            time.sleep(1)
            new = Dispatcher(consumer)
            new.lead(2)
            ready, held = new.greeting()
            assert set(held) <= set(range(1, 40)) and len(held) > 10
            assert len(new.results(39)) == 39
        finally:
            deaf._changed.release()


def test_life_of_a_consumer(gate):
    consumer = Consumer(gate, listen="127.0.0.1:0")
    consumer.stop()  # It was never started.
    consumer.start()
    with pytest.raises(RuntimeError):
        consumer.start()
    with pytest.raises(OSError):
        Consumer(gate, listen=consumer.address).start()
    consumer.stop()
    consumer.stop()
    with pytest.raises(RuntimeError):
        consumer.start()


def test_run_in_another_thread_ends_by_stop():
    consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0")
    thread = threading.Thread(target=consumer.run)
    thread.start()
    wait_for(lambda: not consumer.address.endswith(":0"), "it listens")
    Dispatcher(consumer).greet()
    consumer.stop()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "options",
    [
        {"listen": "no port"},
        {"listen": "::1:7"},
        {"listen": "127.0.0.1:65536"},
        {"group": ""},
        {"group": "a b"},
        {"prefetch": 0},
        {"prefetch": 65_537},
        {"concurrency": 0},
        {"consumer_id": "a b"},
        {"consumer_id": "x" * 257},
        {"handler_timeout": 0},
        {"drain_timeout": -1},
    ],
)
def test_settings_are_checked(options):
    with pytest.raises(ValueError):
        Consumer(lambda delivery: None, **options).start()


def test_threads_end_with_the_consumer():
    before = set(threading.enumerate())
    with consumer_of(lambda delivery: None) as consumer:
        dispatchers = [Dispatcher(consumer) for _ in range(3)]
        for epoch, dispatcher in enumerate(dispatchers, 1):
            dispatcher.greet(epoch)

    def left():
        return [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("oncecast-")]

    wait_for(lambda: not left(), "all threads have ended", 5)


@pytest.mark.parametrize("trace", [True, False])
def test_the_log_of_failures_has_the_trace_context_only_if_asked(caplog, trace):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen = []

    def handler(delivery):
        seen.append(delivery.traceparent)
        raise ValueError("no luck")

    with consumer_of(handler, concurrency=1, trace=trace) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(FIRST_ID, body=b'{"traceparent":"%s"}' % parent.encode())
        assert dispatcher.next(frames.Nack).reason == "ValueError: no luck"
        dispatcher.process(FIRST_ID + 1, body=b"no JSON")
        dispatcher.next(frames.Nack)
    assert seen == [parent, None]
    failures = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    shown = f" traceparent={parent}," if trace else ""
    assert failures == [
        f"message {FIRST_ID:016x}, delivery 1,{shown} failed: ValueError: no luck",
        f"message {FIRST_ID + 1:016x}, delivery 1, failed: ValueError: no luck",
    ]


class Odd(Retry):
    """Without the attributes of its base."""

    def __init__(self):
        pass


class Unshown(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("error", [Odd, Unshown])
def test_whatever_a_handler_raises_it_answers_and_its_thread_lives(error):
    def handler(delivery):
        if delivery.payload == b"raise":
            raise error()
        return {"ok": True}

    with consumer_of(handler, concurrency=1) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        dispatcher.process(A, body=b"raise")
        nack = dispatcher.next(frames.Nack)
        assert nack.id == A and error.__name__ in nack.reason
        dispatcher.process(B)
        assert dispatcher.results(1) == {B: [(b"ok", b"true")]}


def test_a_consumer_runs_once():
    consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0")
    consumer.start()
    consumer.stop()
    with pytest.raises(RuntimeError):
        consumer.run()


def test_a_start_that_fails_is_an_error_and_frees_the_port(monkeypatch):
    consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0")

    def fails(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="new thread"):
            consumer.run()
    host, port = consumer.address.split(":")
    with socket.create_server((host, int(port))):
        pass
    for wrong in (2.5, True):
        with pytest.raises(ValueError):
            Consumer(lambda delivery: None, concurrency=wrong)
