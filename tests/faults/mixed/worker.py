"""A consumer of the Python package: worker.py LISTEN ID GROUP"""
import logging
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "sdk/python/src"))

import json  # noqa: E402

from oncecast import Consumer  # noqa: E402

listen, name, group = sys.argv[1:]
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def handle(delivery):
    return {"message_id": json.loads(delivery.payload)["message_id"]}


Consumer(handle, listen=listen, consumer_id=name, group=group, concurrency=2, prefetch=256).run()
