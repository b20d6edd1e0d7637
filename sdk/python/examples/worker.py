"""A small worker. Start a dispatcher with `--consumers 127.0.0.1:6969`, then publish JSON on `messages:published`.

Under faults: oncecast chaos --consumer-command 'python3 worker.py'
"""

import json
import logging
import os

from oncecast import Consumer, Reject


def handle(delivery):
    try:
        message = json.loads(delivery.payload)
    except ValueError as error:
        raise Reject(f"not JSON: {error}") from None
    return {"message_id": message.get("message_id", ""), "delivery": delivery.number}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = os.environ
    Consumer(
        handle,
        listen=settings.get("ONCECAST_LISTEN", "127.0.0.1:6969"),
        group=settings.get("ONCECAST_GROUP", "messages"),
        consumer_id=settings.get("ONCECAST_CONSUMER_ID"),
    ).run()
