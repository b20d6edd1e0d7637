"""Handlers that are `async def`: what ends a process elsewhere ends neither the loop nor the consumer."""

import asyncio
import sys
import threading

import pytest
from cluster import wait_for
from scripted import FIRST_ID, Dispatcher, consumer_of

from oncecast import frames


async def leaves(delivery):
    if delivery.payload == b"exit":
        sys.exit(3)
    return {"ok": True}


async def has_a_task_that_leaves(delivery):
    if delivery.payload == b"exit":
        await asyncio.create_task(leaves(delivery))
    return {"ok": True}


async def forgets_a_task_that_leaves(delivery):
    if delivery.payload == b"exit":
        asyncio.get_running_loop().create_task(leaves(delivery))
        await asyncio.sleep(0.05)
        raise ValueError("left")
    return {"ok": True}


def test_a_handler_that_stops_the_loop_is_finished():
    async def stops(delivery):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return {"ok": True}

    with consumer_of(stops) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        for id in (FIRST_ID, FIRST_ID + 1):
            dispatcher.process(id)
            assert dispatcher.results(1) == {id: [(b"ok", b"true")]}


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("handler", [leaves, has_a_task_that_leaves, forgets_a_task_that_leaves])
def test_a_handler_that_exits_fails_its_message_alone(handler, timeout):
    with consumer_of(handler, handler_timeout=timeout) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        for turn in range(3):
            dispatcher.process(FIRST_ID + 2 * turn, body=b"exit")
            nack = dispatcher.next(frames.Nack)
            assert nack.id == FIRST_ID + 2 * turn
            assert "SystemExit: 3" in nack.reason or "ValueError: left" in nack.reason
            dispatcher.process(FIRST_ID + 2 * turn + 1, body=b"go on")
            assert dispatcher.results(1) == {FIRST_ID + 2 * turn + 1: [(b"ok", b"true")]}


def _says_that_it_is_unable(handler, begun, release, running):
    """With so many handlers that don't end, further messages go back, and are accepted once the handlers end."""
    with consumer_of(handler, handler_timeout=0.2, concurrency=2) as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet(hello={"link_timeout_ms": 300})
        ids = [FIRST_ID + number for number in range(4)]
        dispatcher.process(*ids[:running])
        wait_for(lambda: len(begun) == running, "they run")
        dispatcher.process(*ids[running:])
        dispatcher.next(frames.Drain)
        returned = {dispatcher.next(frames.Nack).id for _ in ids[running:]}
        assert returned == set(ids[running:])
        release.set()
        dispatcher.wait_for_end()
        again = Dispatcher(consumer)
        again.greet(2)
        again.process(FIRST_ID + 9)
        wait_for(lambda: FIRST_ID + 9 in again.results(1), "it works again")


def test_handlers_that_ignore_being_cancelled_make_it_unable():
    begun, release = [], threading.Event()

    async def stubborn(delivery):
        begun.append(delivery.id)
        while not release.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                pass

    _says_that_it_is_unable(stubborn, begun, release, running=2)


def test_a_handler_that_blocks_the_loop_makes_it_unable():
    begun, release = [], threading.Event()

    async def blocks(delivery):
        begun.append(delivery.id)
        release.wait()

    _says_that_it_is_unable(blocks, begun, release, running=1)
