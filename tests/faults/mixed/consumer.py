#!/usr/bin/env python3
"""Becomes a consumer of the mode `mixed`; its number decides in which language its handler is written.

    consumer.py PROGRAMS PYTHON --redis-url URL --group GROUP --listen ADDRESS --consumer-id c<number> [SETTING…]

PROGRAMS is the folder of Oncecast's programs, PYTHON an interpreter that has the package websockets. Further settings
are those of oncecast-consumer. The process id stays the same, so signals reach the consumer itself.
"""
import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
EXAMPLES = ROOT / "examples"


def serve_http():
    """Starts the server that the handler `http` sends to, which lives as long as this process. Returns its URL."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(EXAMPLES))
    import http_worker

    server = http_worker.Server(("127.0.0.1", 0), http_worker.Worker)
    consumer = os.getpid()
    if os.fork() == 0:
        # The pipes to the test must close when the consumer ends.
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == consumer:
            time.sleep(0.1)
        os._exit(0)
    return f"http://127.0.0.1:{server.server_port}/job"


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("programs", "python", "--redis-url", "--group", "--listen", "--consumer-id"):
        parser.add_argument(name)
    given, settings = parser.parse_known_args()
    ours = [f"{given.programs}/oncecast-consumer", "--redis-url", given.redis_url, "--group", given.group]
    ours += ["--listen", given.listen, "--consumer-id", given.consumer_id, *settings]
    # Consumers of the packages do not connect to Redis: the leader records their results.
    place = [given.listen, given.consumer_id, given.group]
    number = int(given.consumer_id[1:])
    if number == 0:
        words = [*ours, "--handler", "exec", "--", "python3", str(EXAMPLES / "worker.py")]
    elif number == 1:
        words = [*ours, "--handler", "http", "--url", serve_http()]
    elif number == 2:
        words = [given.python, str(HERE / "worker.py"), *place]
    elif number == 3:
        words = ["node", str(HERE / "worker.mjs"), *place]
    else:
        words = ours
    # Python ignores it, and a program inherits that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(words[0], words)


main()
