"""Handlers that are `async def`: what ends a process elsewhere ends neither the loop nor the consumer."""

import asyncio
import sys

import pytest
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
