#!/usr/bin/env python3
"""Starts the server of examples/http_worker.py on a free port, then becomes a consumer that sends to it.

    http_consumer.py CONSUMER [ARGUMENT…]

The process id stays the same, so signals reach the consumer itself.
"""
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))

import http_worker  # noqa: E402


def serve():
    """Starts the server, which lives as long as this process. Returns its URL."""
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


words = [*sys.argv[1:], "--handler", "http", "--url", serve()]
# Python ignores it, and a program inherits that.
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execvp(words[0], words)
