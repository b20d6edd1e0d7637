"""Measures how many messages a second a consumer handles: with a Redis server, a dispatcher and a publisher.

    ONCECAST_BIN=target/release python3 sdk/python/bench.py [--kind none|fields|asyncio|rust] [--count N] [--repeat N]

The messages are published while the consumer is paused, so that the publisher takes no time from it. The time runs from
the first message to the last result. Kinds: a handler that returns nothing; one that returns the payload and the
consumer's id, as the handler `stamp` does; a coroutine that returns nothing; and, to compare, the consumer program with
its handler `stamp`, which records its results in Redis itself.
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

from cluster import Cluster, free_port, program, wait_for  # noqa: E402

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


def measure_program(count: int, prefetch: int, concurrency: int) -> tuple[float, float]:
    path = program("oncecast-consumer")
    assert path is not None, "there is no oncecast-consumer"
    with tempfile.TemporaryDirectory() as folder, Cluster(folder) as cluster:
        address = f"127.0.0.1:{free_port()}"
        cluster.start_dispatcher([address])
        cluster.wait_until_leading()
        cluster.publish(count)
        wait_for(lambda: cluster.pending() == count, "all messages are stored")
        options = ["--prefetch", str(prefetch), "--concurrency", str(concurrency), "--listen", address]
        child = cluster.start("consumer", [path, "--redis-url", cluster.url, *options])
        while cluster.pending() == count:
            time.sleep(0.001)
        begin, cpu = time.monotonic(), _cpu_of(child.pid)
        cluster.wait_until_recorded()
        took = time.monotonic() - begin
        return count / took, (_cpu_of(child.pid) - cpu) / took


def _cpu_of(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["none", "fields", "asyncio", "rust"], default="none")
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--prefetch", type=int, default=4096)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.repeat):
        options = (arguments.count, arguments.prefetch, arguments.concurrency)
        rate, cpu = measure_program(*options) if arguments.kind == "rust" else measure(arguments.kind, *options)
        print(f"{arguments.kind}: {rate:,.0f} messages/s, {cpu:.2f} cores in the consumer", flush=True)


if __name__ == "__main__":
    main()
