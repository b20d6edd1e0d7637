"""A small worker. Start a dispatcher with `--consumers 127.0.0.1:6969`, then publish JSON on `messages:published`."""

import json
import logging

from oncecast import Consumer, Reject


def handle(delivery):
    try:
        message = json.loads(delivery.payload)
    except ValueError as error:
        raise Reject(f"not JSON: {error}") from None
    return {"message_id": message.get("message_id", ""), "delivery": delivery.number}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Consumer(handle, listen="127.0.0.1:6969").run()
