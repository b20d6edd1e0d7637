"""Several lanes on one consumer: names, turns, and that nothing known of one lane has an effect in another."""

from __future__ import annotations

import threading
from queue import Empty

import pytest

from oncecast import Consumer, Delivery, frames
from oncecast.lanes import Job, Lane, Turns, is_lane, lane_number
from scripted import FIRST_ID, Dispatcher

GROUP = "{orders}"


def name(lane):
    return GROUP if lane == 0 else f"{{orders/{lane}}}"


class Leader(Dispatcher):
    """A dispatcher that leads a lane, and the ids that were listed for it."""

    def __init__(self, consumer, lane, epoch=1, **options):
        super().__init__(consumer, **options)
        self.ready, self.held = self.greet(epoch, group=name(lane))


@pytest.mark.parametrize(
    "group,lane,number",
    [
        ("{orders}", "{orders}", 0),
        ("{orders}", "{orders/3}", 3),
        ("shop:{orders}:eu", "shop:{orders/65535}:eu", 65535),
        ("a}{b}", "a}{b/3}", 3),
        ("{{a}}", "{{a/3}}", 3),
        ("{a}{b}", "{a/3}{b}", 3),
        ("{a/3}", "{a/3/3}", 3),
        ("{größe}", "{größe/3}", 3),
        ("orders", "orders", 0),
        ("{}", "{}", 0),
        ("orders", "orders/1", None),
        ("{}", "{/1}", None),
        ("{a", "{a/1", None),
        ("{" + "g" * 251 + "}", "{" + "g" * 251 + "/99}", 99),
        ("{" + "g" * 251 + "}", "{" + "g" * 251 + "/100}", None),
        *[
            ("{orders}", wrong, None)
            for wrong in (
                "", "orders", "{orders/}", "{orders/0}", "{orders/01}", "{orders/+1}", "{orders/-1}", "{orders/ 1}",
                "{orders/1 }", "{orders/65536}", "{orders/1/2}", "{orders/1}x", "x{orders/1}", "{orders//1}",
                "{orders/\u0661}", "{orders/1}\n", "{orders/1\n}", "{other/1}", "{orders}/1",
            )
        ],
    ],
)
def test_the_name_of_a_lane(group, lane, number):
    assert lane_number(group, lane) == number


@pytest.mark.parametrize("group", ["{orders/1}", "shop:{orders/65535}:eu", "{a/1/2}", "a}{b/3}", "{a/1}{b}", "{a\n/7}"])
def test_no_group_is_named_like_a_lane_of_another(group):
    assert is_lane(group)
    with pytest.raises(ValueError, match="group can't be .* a lane of another group: give that group, or another name"):
        Consumer(lambda delivery: None, group=group.replace("\n", ""))


@pytest.mark.parametrize("group", ["orders/1", "{orders}/1", "{orders/x}", "{orders/0}", "{a/01}", "{/1}", "{a/70000}"])
def test_other_groups_are_accepted(group):
    Consumer(lambda delivery: None, group=group)


def test_lanes_take_turns():
    turns, lanes = Turns(), [Lane(number) for number in range(3)]

    def put(lane, count):
        turns.put_all(lanes[lane], [Job(Delivery(b"", lane=lane), lanes[lane]) for _ in range(count)])

    put(0, 50)
    put(1, 3)
    assert [turns.get().lane.number for _ in range(4)] == [0, 1, 0, 1]
    put(2, 2)
    assert [turns.get_nowait().lane.number for _ in range(7)] == [0, 1, 2, 0, 2, 0, 0]
    assert turns.qsize() == 44
    turns.put_end()
    assert [turns.get().lane.number for _ in range(44)] == [0] * 44
    assert turns.get() is None
    with pytest.raises(Empty):
        turns.get_nowait()


def test_a_delivery_knows_its_lane():
    assert (Delivery(b"", id=0x2F).key, Delivery(b"", id=0x2F).lane) == ("000000000000002f", 0)
    assert Delivery(b"", id=0x2F, lane=12).key == "12/000000000000002f"


def keys(delivery):
    return {"key": delivery.key}


@pytest.fixture
def consumer():
    with Consumer(keys, group=GROUP, listen="127.0.0.1:0", concurrency=2, prefetch=1_000) as consumer:
        yield consumer


@pytest.mark.parametrize("second", [True, False])
def test_two_lanes_with_the_same_ids(consumer, second):
    leaders = {lane: Leader(consumer, lane, 7 + lane, second=second) for lane in (0, 5)}
    for leader in leaders.values():
        leader.process(*range(FIRST_ID, FIRST_ID + 40))
    for lane, leader in leaders.items():
        prefix = f"{lane}/" if lane else ""
        expected = {id: [(b"key", f"{prefix}{id:016x}".encode())] for id in range(FIRST_ID, FIRST_ID + 40)}
        assert leader.results(40) == expected


def test_a_lane_with_much_to_do_leaves_the_others_their_share():
    gate, order = threading.Event(), []

    def handler(delivery):
        order.append(delivery.lane)
        gate.wait()

    with Consumer(handler, group=GROUP, listen="127.0.0.1:0", concurrency=1, prefetch=1_000) as consumer:
        leaders = [Leader(consumer, lane) for lane in range(6)]
        leaders[0].process(*range(FIRST_ID, FIRST_ID + 400))
        for leader in leaders[1:]:
            leader.process(*range(FIRST_ID, FIRST_ID + 50))
        for leader in leaders:
            leader.websocket.ping().wait(10)
        gate.set()
        for lane, leader in enumerate(leaders):
            leader.results(50 if lane else 400)
    # The first may have begun alone, and others before the later lanes had messages.
    assert all(45 <= order[:300].count(lane) <= 55 for lane in range(6)), order


def test_a_change_of_leader_in_one_lane_leaves_the_others_alone():
    gate = threading.Event()

    def handler(delivery):
        if delivery.lane == 3:
            gate.wait()
        return keys(delivery)

    with Consumer(handler, group=GROUP, listen="127.0.0.1:0", concurrency=4, prefetch=100) as consumer:
        zero, old = Leader(consumer, 0, 5), Leader(consumer, 3, 5)
        old.process(FIRST_ID, FIRST_ID + 1)
        old.websocket.ping().wait(10)
        new = Leader(consumer, 3, 9)
        assert new.held == (FIRST_ID, FIRST_ID + 1)
        assert old.error() == 6
        stale = Dispatcher(consumer)
        stale.lead(5, group=name(3))
        assert stale.error() == 6
        zero.process(FIRST_ID)
        assert zero.results(1) == {FIRST_ID: [(b"key", f"{FIRST_ID:016x}".encode())]}
        # What is kept for a lane's next leader is that lane's.
        new.drop()
        gate.set()
        other = Leader(consumer, 0, 6)
        assert FIRST_ID + 1 not in other.held
        again = Leader(consumer, 3, 10)
        assert sorted(again.held) == [FIRST_ID, FIRST_ID + 1]
        assert set(again.results(2)) == {FIRST_ID, FIRST_ID + 1}


def test_other_groups_are_refused(consumer):
    for other in ("orders", "{orders/01}", "{others}", "{orders/70000}"):
        stranger = Dispatcher(consumer)
        stranger.lead(1, group=other)
        assert stranger.error() == 7


def test_a_stop_finishes_what_is_held_of_all_lanes():
    gate = threading.Event()

    def handler(delivery):
        gate.wait()
        return keys(delivery)

    consumer = Consumer(handler, group=GROUP, listen="127.0.0.1:0", concurrency=1, prefetch=10)
    consumer.start()
    leaders = [Leader(consumer, lane) for lane in range(3)]
    for leader in leaders:
        leader.process(FIRST_ID)
        leader.websocket.ping().wait(10)
    stopper = threading.Thread(target=consumer.stop)
    stopper.start()
    for leader in leaders:
        leader.next(frames.Drain)
    gate.set()
    for leader in leaders:
        assert set(leader.results(1)) == {FIRST_ID}
        leader.send(frames.Recorded((FIRST_ID,)))
    stopper.join(10)
    assert not stopper.is_alive()


def test_pause_and_resume_concern_all_lanes(consumer):
    leaders = [Leader(consumer, lane) for lane in range(2)]
    consumer.pause()
    assert [leader.next(frames.Credit).prefetch for leader in leaders] == [0, 0]
    consumer.resume()
    assert [leader.next(frames.Credit).prefetch for leader in leaders] == [1_000, 1_000]
