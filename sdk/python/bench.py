"""Measures how many messages a second a consumer handles: with a Redis server, a dispatcher and a publisher.

    ONCECAST_BIN=target/release python3 sdk/python/bench.py [--kind none|fields|asyncio] [--count N] [--repeat N]

The messages are published while the consumer is paused, so that the publisher takes no time from it. The time runs from
the first message to the last result. The consumer and the handler share one process and so, by Python's lock, about
one core; the figure in `cpu` says how much of it the consumer used.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tests"))

from cluster import Cluster, wait_for  # noqa: E402

from oncecast import Consumer, Delivery  # noqa: E402


def measure(kind: str, count: int, prefetch: int, concurrency: int) -> tuple[float, float]:
    done = threading.Event()
    seen = 0
    began = (0.0, 0.0)

    def counted() -> None:
        nonlocal seen, began
        if seen == 0:
            began = (time.monotonic(), _cpu())
        seen += 1
        if seen >= count:
            done.set()

    def nothing(delivery: Delivery) -> None:
        counted()

    def fields(delivery: Delivery) -> dict[str, str | bytes]:
        counted()
        return {"payload": delivery.payload, "consumer_id": delivery.consumer_id}

    async def asynchronous(delivery: Delivery) -> None:
        counted()

    handler = {"none": nothing, "fields": fields, "asyncio": asynchronous}[kind]
    with tempfile.TemporaryDirectory() as folder, Cluster(folder) as cluster:
        with Consumer(handler, listen="127.0.0.1:0", prefetch=prefetch, concurrency=concurrency) as consumer:
            consumer.pause()
            cluster.start_dispatcher([consumer.address])
            cluster.wait_until_leading()
            cluster.publish(count)
            wait_for(lambda: cluster.pending() == count, "all messages are stored")
            consumer.resume()
            if not done.wait(300):
                raise SystemExit(f"only {seen} of {count} messages came")
            cluster.wait_until_recorded()
            took, cpu = time.monotonic() - began[0], _cpu() - began[1]
            if kind == "fields" and cluster.redis.number("XLEN", cluster.key("processed")) != count:
                raise SystemExit("not every message has one result")
            return count / took, cpu / took


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["none", "fields", "asyncio"], default="none")
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--prefetch", type=int, default=4096)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.repeat):
        rate, cpu = measure(arguments.kind, arguments.count, arguments.prefetch, arguments.concurrency)
        print(f"{arguments.kind}: {rate:,.0f} messages/s, {cpu:.2f} cores in the consumer", flush=True)


if __name__ == "__main__":
    main()
