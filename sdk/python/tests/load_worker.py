"""A worker for the tests with the real programs: records each message's id.

    load_worker.py ADDRESS [--asyncio] [--group GROUP] [--tls-cert FILE --tls-key FILE [--tls-client-ca FILE]]
"""

import argparse
import json
import logging

from oncecast import Consumer


def handle(delivery):
    return {"message_id": json.loads(delivery.payload)["message_id"], "delivery": delivery.number}


async def handle_async(delivery):
    return handle(delivery)


parser = argparse.ArgumentParser()
parser.add_argument("listen")
parser.add_argument("--asyncio", action="store_true")
for name in ("tls-cert", "tls-key", "tls-client-ca", "link-secret-file", "group"):
    parser.add_argument(f"--{name}")
options = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
Consumer(handle_async if options.pop("asyncio") else handle, prefetch=512, concurrency=2, **options).run()
