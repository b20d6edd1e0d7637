"""The conformance handler of docs/CONFORMANCE.md, for `oncecast conform ADDRESS --conformance-handler --pid PID`.

    python3 conform_worker.py [ADDRESS [GROUP]] [--asyncio]
"""

import asyncio
import json
import logging
import sys
import time

from oncecast import Consumer, Reject, Retry


def outcome(message):
    """What the message asks for."""
    kind = message.get("conform")
    reason = message.get("reason", f"the message asks for {kind}")
    if kind == "retry":
        delay_ms = message.get("delay_ms")
        raise Retry(reason, after=None if delay_ms is None else delay_ms / 1000)
    if kind == "reject":
        raise Reject(reason)
    if kind == "throw":
        raise RuntimeError(reason)
    if kind == "nothing":
        return None
    return message.get("fields") or {"message_id": message.get("message_id", "")}


def handle(delivery):
    message = json.loads(delivery.payload)
    time.sleep(message.get("ms", 0) / 1000)
    return outcome(message)


async def handle_async(delivery):
    message = json.loads(delivery.payload)
    await asyncio.sleep(message.get("ms", 0) / 1000)
    return outcome(message)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--asyncio"]
    listen, group = (words + ["127.0.0.1:6969", "messages"][len(words) :])[:2]
    logging.basicConfig(level=logging.INFO)
    Consumer(
        handle_async if "--asyncio" in sys.argv else handle, group=group, listen=listen, concurrency=4, prefetch=16
    ).run()
