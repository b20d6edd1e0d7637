"""A private Redis server or Redis Cluster, dispatchers and a publisher, for tests with the real programs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, List, Optional, Type

ROOT = Path(__file__).resolve().parents[3]


def program(name: str) -> Optional[str]:
    """The path of one of Oncecast's programs: in ONCECAST_BIN, else in target/release or target/debug."""
    folders = [os.environ["ONCECAST_BIN"]] if "ONCECAST_BIN" in os.environ else []
    for folder in [*folders, str(ROOT / "target/release"), str(ROOT / "target/debug")]:
        path = Path(folder) / name
        if path.exists():
            return str(path)
    return None


def is_available() -> bool:
    """Whether all that a cluster needs is there."""
    return bool(program("oncecast-dispatcher") and program("oncecast-publisher") and shutil.which("redis-server"))


def free_port() -> int:
    """A port on which nobody listens, below those of outgoing connections, which might take it before its program."""
    while True:
        port = random.randrange(15_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            pass


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


class Redis:
    """Sends commands to a Redis server and reads the replies: what the tests need, without a client library."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def command(self, *words: object) -> object:
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def _reply(self) -> object:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]

    def number(self, *words: object) -> int:
        reply = self.command(*words)
        return reply if isinstance(reply, int) else int(reply or 0)  # type: ignore[call-overload, no-any-return]


class ClusterRedis(Redis):
    """The same for a Redis Cluster: asks the node that has the key."""

    def __init__(self, port: int) -> None:
        self._nodes = {port: Redis(port)}
        self._first = port
        self._owners: Dict[object, int] = {}

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def command(self, *words: object) -> object:
        key = words[1] if len(words) > 1 else None
        while True:
            try:
                return self.node(self._owners.get(key, self._first)).command(*words)
            except RuntimeError as error:
                refused = str(error).split(" ")
                if refused[0] != "MOVED":
                    raise
                self._owners[key] = int(refused[2].rpartition(":")[2])

    def node(self, port: int) -> Redis:
        """One of the nodes."""
        if port not in self._nodes:
            self._nodes[port] = Redis(port)
        return self._nodes[port]

    def subscribers(self, channel: str) -> int:
        """How many have subscribed to a sharded channel."""
        reply = self.node(self.owner(channel)).command("PUBSUB", "SHARDNUMSUB", channel)
        return int(reply[1]) if isinstance(reply, list) else 0

    def owner(self, name: str) -> int:
        """The port of the node that has the slot of this key or sharded channel."""
        slot = self.number("CLUSTER", "KEYSLOT", name)
        ranges = self.command("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        return next(int(primary[1]) for first, last, primary, *_ in ranges if first <= slot <= last)


class Cluster:
    """A Redis server and programs that use it; all end with it."""

    def __init__(self, folder: str, group: str = "messages") -> None:
        self.folder = Path(folder)
        self.group = group
        self.port = free_port()
        self.dispatchers: List[subprocess.Popen[bytes]] = []
        self._children: List[subprocess.Popen[bytes]] = []
        self._logs: Dict[int, Path] = {}
        self._redis: Optional[Redis] = None

    @property
    def redis(self) -> Redis:
        assert self._redis is not None
        return self._redis

    def __enter__(self) -> Cluster:
        options = ["--port", str(self.port), "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        self._start("redis", ["redis-server", *options])
        wait_for(self._connects, "Redis accepts connections")
        return self

    def _connects(self) -> bool:
        try:
            self._redis = Redis(self.port)
        except OSError:
            return False
        return True

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._redis is not None:
            self._redis.close()
        for child in reversed(self._children):
            child.kill()
            child.wait()

    def _start(self, name: str, command: List[str], env: Optional[Dict[str, str]] = None) -> subprocess.Popen[bytes]:
        path = self.folder / f"{name}-{len(self._children)}.log"
        with open(path, "wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        self._logs[child.pid] = path
        self._children.append(child)
        return child

    def start(self, name: str, command: List[str], env: Optional[Dict[str, str]] = None) -> subprocess.Popen[bytes]:
        """Starts a program whose output goes to a file in the folder."""
        return self._start(name, command, env)

    def wait_for_log(self, child: subprocess.Popen[bytes], text: str) -> None:
        wait_for(lambda: text in self._logs[child.pid].read_text(), f"a program logs {text!r}")

    def start_dispatcher(self, consumers: List[str], *options: str) -> subprocess.Popen[bytes]:
        path = program("oncecast-dispatcher")
        assert path is not None
        command = [path, "--redis-url", self.url, "--group", self.group, "--consumers", ",".join(consumers)]
        child = self._start("dispatcher", [*command, *options])
        self.dispatchers.append(child)
        return child

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def publish(self, count: int, *options: str) -> None:
        """Publishes messages, and waits until they are published."""
        path = program("oncecast-publisher")
        assert path is not None
        command = [path, "--redis-url", self.url, "--group", self.group, "--count", str(count), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)

    def start_publisher(self, *options: str) -> subprocess.Popen[bytes]:
        path = program("oncecast-publisher")
        assert path is not None
        return self._start("publisher", [path, "--redis-url", self.url, "--group", self.group, *options])

    def key(self, name: str) -> str:
        return f"{self.group}:{name}"

    def wait_until_leading(self) -> None:
        wait_for(lambda: self.redis.command("GET", self.key("cursor")) is not None, "a dispatcher leads")

    def pending(self) -> int:
        return self.redis.number("ZCARD", self.key("pending"))

    def wait_until_recorded(self, timeout: float = 120.0) -> None:
        """Waits until no message is pending."""
        wait_for(lambda: self.pending() == 0, "no message is pending", timeout)

    def results(self) -> List[Dict[bytes, bytes]]:
        """All results, from the stream."""
        reply = self.redis.command("XRANGE", self.key("processed"), "-", "+")
        assert isinstance(reply, list)
        return [dict(zip(fields[::2], fields[1::2])) for _, fields in reply]

    def leader_is(self) -> bytes:
        """The name of the dispatcher that leads, or nothing."""
        lease = self.redis.command("GET", self.key("leader"))
        return lease.split(b"-")[0] if isinstance(lease, bytes) else b""

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGKILL)
        child.wait()


class ShardedCluster(Cluster):
    """A Redis Cluster of three primaries, and programs that use it; all end with it."""

    def __init__(self, folder: str, group: str) -> None:
        super().__init__(folder, group)
        self.ports = [self.port, free_port(), free_port()]

    def __enter__(self) -> ShardedCluster:
        for port in self.ports:
            folder = self.folder / f"node-{port}"
            folder.mkdir()
            # The nodes' own port is 10000 higher, unless it is named.
            options = ["--port", str(port), "--cluster-port", str(free_port()), "--cluster-enabled", "yes"]
            options += ["--cluster-node-timeout", "2000", "--dir", str(folder), "--save", "", "--appendonly", "no"]
            self._start("redis", ["redis-server", *options])
        wait_for(lambda: all(self._answers(port) for port in self.ports), "the nodes accept connections")
        nodes = [f"127.0.0.1:{port}" for port in self.ports]
        command = ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        self._redis = ClusterRedis(self.port)
        wait_for(lambda: all(self._is_complete(port) for port in self.ports), "the nodes agree")
        return self

    @staticmethod
    def _answers(port: int) -> bool:
        try:
            Redis(port).close()
        except OSError:
            return False
        return True

    @staticmethod
    def _is_complete(port: int) -> bool:
        node = Redis(port)
        try:
            info = node.command("CLUSTER", "INFO")
        finally:
            node.close()
        return isinstance(info, bytes) and b"cluster_state:ok" in info

    @property
    def redis(self) -> ClusterRedis:
        assert isinstance(self._redis, ClusterRedis)
        return self._redis

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def channels(self, prefix: str) -> Dict[int, str]:
        """The name of a sharded channel for each node, by its port."""
        names: Dict[int, str] = {}
        number = 0
        while len(names) < len(self.ports):
            name = f"{prefix}{number}"
            names.setdefault(self.redis.owner(name), name)
            number += 1
        return names
