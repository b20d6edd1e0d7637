"""Programs with a consumer: those in README.md and the guide as they stand there, and signals."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import free_port, wait_for
from scripted import FIRST_ID, Dispatcher

from oncecast import frames

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Program:
    """A Python program that listens on `address`."""

    def __init__(self, source, address, folder):
        self.address = address
        self.log = folder / "log"
        path = folder / "program.py"
        path.write_text("import logging\nlogging.basicConfig(level=logging.INFO)\n" + source)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([sys.executable, str(path)], stdout=log, stderr=log)
        wait_for(lambda: "listening on" in self.log.read_text(), "it listens")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def shown(document):
    """The programs in a document that run a consumer."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S)
    return [block for block in blocks if ".run()" in block]


@pytest.mark.parametrize(
    "document,at", [("README.md", 0), ("sdk/python/README.md", 0), ("sdk/python/README.md", 1), ("docs/GUIDE.md", 0)]
)
def test_what_the_documents_show_runs(document, at, tmp_path):
    source = shown(document)[at]
    assert source.count("\n") < 14
    address = f"127.0.0.1:{free_port()}"
    if "listen=" in source:
        source = source.replace("127.0.0.1:6969", address)
    else:
        source = source.replace("Consumer(handle", f'Consumer(handle, listen="{address}"')
    with Program(source, address, tmp_path) as program:
        dispatcher = Dispatcher(program)
        dispatcher.greet()
        dispatcher.process(FIRST_ID, body=b"hello")
        fields = dispatcher.results(1)[FIRST_ID]
        assert fields in ([(b"total", b"5")], [(b"ok", b"true")], [(b"shouted", b"HELLO")])
        program.process.send_signal(signal.SIGTERM)
        dispatcher.next(frames.Drain)
        dispatcher.record(FIRST_ID)
        assert dispatcher.wait_for_end() == 1001
        assert program.process.wait(5) == 0
        assert "Traceback" not in program.log.read_text()


SLOW = """
import time
from oncecast import Consumer

def handle(delivery):
    time.sleep(float(delivery.payload))
    return {"ok": True}

Consumer(handle, listen="ADDRESS", concurrency=1, prefetch=8).run()
"""


ELSEWHERE = """
import signal, threading
from oncecast import Consumer

def handle(delivery):
    # The system may give a signal to any thread of the process.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

Consumer(handle, listen="ADDRESS", concurrency=1).run()
"""


def test_a_signal_that_another_thread_gets_stops_it(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    with Program(ELSEWHERE.replace("ADDRESS", address), address, tmp_path) as program:
        dispatcher = Dispatcher(program)
        dispatcher.greet()
        dispatcher.process(FIRST_ID, body=b"x")
        dispatcher.results(1)
        dispatcher.record(FIRST_ID)
        assert program.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_and_a_second_one_does_not(number, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    with Program(SLOW.replace("ADDRESS", address), address, tmp_path) as program:
        dispatcher = Dispatcher(program)
        dispatcher.greet()
        dispatcher.process(FIRST_ID, body=b"2")
        dispatcher.websocket.ping().wait(5)
        dispatcher.next(frames.Progress)
        program.process.send_signal(number)
        dispatcher.next(frames.Drain)
        dispatcher.results(1)
        dispatcher.record(FIRST_ID)
        assert program.process.wait(5) == 0
    with Program(SLOW.replace("ADDRESS", address), address, tmp_path) as program:
        dispatcher = Dispatcher(program)
        dispatcher.greet(2)
        dispatcher.process(FIRST_ID, body=b"30")
        dispatcher.next(frames.Progress)
        program.process.send_signal(number)
        dispatcher.next(frames.Drain)
        begin = time.monotonic()
        program.process.send_signal(number)
        assert program.process.wait(6) == 0, "a handler that runs does not keep the process"
        assert time.monotonic() - begin < 5


def test_no_file_descriptors_left_is_survived(tmp_path):
    """Connections take all descriptors; once they are gone, a dispatcher is served."""
    address = f"127.0.0.1:{free_port()}"
    source = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
    with Program(source + SLOW.replace("ADDRESS", address), address, tmp_path) as program:
        strangers = []
        try:
            for _ in range(40):
                strangers.append(Dispatcher.connect_only(address))
            wait_for(lambda: "can't accept" in program.log.read_text(), "it notices")
            dispatcher = Dispatcher(program)
            dispatcher.greet()
            dispatcher.process(FIRST_ID, body=b"0")
            dispatcher.results(1)
        finally:
            for stranger in strangers:
                stranger.close()
