"""The conformance handler of docs/CONFORMANCE.md, for `oncecast conform ADDRESS --conformance-handler --pid PID`.

    python3 conform_worker.py [ADDRESS [GROUP]] [--asyncio] [--tls-cert FILE --tls-key FILE [--tls-client-ca FILE]]
"""

import argparse
import asyncio
import json
import logging
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("listen", nargs="?", default="127.0.0.1:6969")
    parser.add_argument("group", nargs="?", default="messages")
    parser.add_argument("--asyncio", action="store_true")
    for name in ("tls-cert", "tls-key", "tls-client-ca", "link-secret-file"):
        parser.add_argument(f"--{name}")
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO)
    handler = handle_async if options.pop("asyncio") else handle
    Consumer(handler, concurrency=4, prefetch=16, **options).run()


if __name__ == "__main__":
    main()
