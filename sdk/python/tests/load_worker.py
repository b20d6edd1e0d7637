"""A worker for the tests with the real programs: records each message's id. `load_worker.py ADDRESS [--asyncio]`"""

import json
import logging
import sys

from oncecast import Consumer


def handle(delivery):
    return {"message_id": json.loads(delivery.payload)["message_id"], "delivery": delivery.number}


async def handle_async(delivery):
    return handle(delivery)


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
Consumer(
    handle_async if "--asyncio" in sys.argv else handle, listen=sys.argv[1], prefetch=512, concurrency=2
).run()
