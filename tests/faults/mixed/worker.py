"""A consumer of the Python package, with the settings of its environment."""
import logging
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "sdk/python/src"))

import json  # noqa: E402

from oncecast import Consumer  # noqa: E402

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def handle(delivery):
    return {"message_id": json.loads(delivery.payload)["message_id"]}


Consumer(
    handle,
    listen=os.environ["ONCECAST_LISTEN"],
    consumer_id=os.environ["ONCECAST_CONSUMER_ID"],
    group=os.environ["ONCECAST_GROUP"],
    concurrency=2,
    prefetch=256,
).run()
