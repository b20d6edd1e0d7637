"""With the real programs and a real Redis: nothing is lost and nothing recorded twice, whatever is killed."""

import collections
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import certificates
import pytest
from cluster import Cluster, ShardedCluster, free_port, is_available, program, wait_for

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not is_available(), reason="needs redis-server and, in ONCECAST_BIN or target/, the dispatcher and the publisher"
)


@pytest.fixture
def cluster(tmp_path):
    with Cluster(str(tmp_path)) as cluster:
        yield cluster


def start_worker(cluster, address, *options):
    command = [sys.executable, str(HERE / "load_worker.py"), address, *options]
    return cluster.start("worker", command)


class LaneOf(Cluster):
    """A lane of the group of a cluster: the same servers and programs, and the keys of the lane."""

    def __init__(self, cluster, group):
        vars(self).update(vars(cluster), group=group, dispatchers=[])


def start_load(cluster, seconds, rate=3000, channel="messages:published", kind="--channel"):
    """Publishes so many messages a second, and gives the publisher and the file with their ids."""
    ids = cluster.folder / f"ids-{channel}"
    options = ["--rate", str(rate), "--duration", f"{seconds}s", "--ids-file", str(ids), kind, channel]
    return cluster.start_publisher(*options), ids


def check(cluster, publisher, ids, timeout=60):
    """Waits for the end of the load: each message has one result."""
    assert publisher.wait(60) == 0
    published = set(ids.read_text().split())
    assert len(published) > 5_000
    wait_for(lambda: cluster.pending() == 0 and len(cluster.results()) >= len(published), "all is recorded", timeout)
    counts = collections.Counter(result[b"message_id"].decode() for result in cluster.results())
    lost, twice = published - set(counts), [id for id, count in counts.items() if count > 1]
    assert (len(lost), len(twice), set(counts) - published) == (0, 0, set())
    assert cluster.redis.number("XLEN", cluster.key("dead")) == 0
    return len(published)


@pytest.mark.parametrize("options", [[], ["--asyncio"]], ids=["threads", "asyncio"])
def test_the_leader_is_killed(cluster, options):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for address in addresses:
        start_worker(cluster, address, *options)
    dispatchers = {name: cluster.start_dispatcher(addresses, "--dispatcher-id", name) for name in ("d0", "d1")}
    cluster.wait_until_leading()
    publisher, ids = start_load(cluster, 10)
    for _ in range(4):
        time.sleep(2)
        leader = cluster.leader_is().decode()
        cluster.kill(dispatchers[leader])
        wait_for(lambda: cluster.leader_is().decode() not in ("", leader), "the other one leads")
        dispatchers[leader] = cluster.start_dispatcher(addresses, "--dispatcher-id", leader)
    check(cluster, publisher, ids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_consumers_are_ended(cluster, number):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    workers = [start_worker(cluster, address) for address in addresses]
    cluster.start_dispatcher(addresses)
    cluster.wait_until_leading()
    publisher, ids = start_load(cluster, 10)
    for turn in range(5):
        time.sleep(1.5)
        at = turn % 2
        cluster.wait_for_log(workers[at], "listening on")
        workers[at].send_signal(number)
        workers[at].wait(15)
        if number == signal.SIGTERM:
            assert workers[at].returncode == 0
        workers[at] = start_worker(cluster, addresses[at])
    check(cluster, publisher, ids)
    if number == signal.SIGTERM:
        deliveries = collections.Counter(result[b"delivery"] for result in cluster.results())
        assert set(deliveries) == {b"1"}, "those that a stopping consumer returns are not counted"


def test_an_end_under_load_returns_0_and_loses_nothing_that_is_held(cluster):
    """SIGTERM in the middle of the backlog, and the rest waits for the next consumer."""
    address = f"127.0.0.1:{free_port()}"
    worker = start_worker(cluster, address)
    cluster.start_dispatcher([address])
    cluster.wait_until_leading()
    publisher, ids = start_load(cluster, 3)
    time.sleep(1)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(15) == 0
    start_worker(cluster, address)
    check(cluster, publisher, ids)


def conform(tmp_path, options, scheme="ws", ours=()):
    """Runs `oncecast conform` against the conformance worker; gives its exit code and output."""
    port = free_port()
    with open(tmp_path / "worker.log", "wb") as log:
        worker = subprocess.Popen(
            [sys.executable, str(HERE.parent / "examples/conform_worker.py"), f"127.0.0.1:{port}", "conform", *options],
            stderr=log,
        )
    try:
        wait_for(lambda: "listening on" in (tmp_path / "worker.log").read_text(), "the worker listens")
        command = [str(program("oncecast")), "conform", f"{scheme}://127.0.0.1:{port}"]
        command += ["--group", "conform", "--conformance-handler", "--pid", str(worker.pid), *ours]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        return done.returncode, done.stdout
    finally:
        worker.kill()
        worker.wait()


def has_conform():
    path = program("oncecast")
    return path is not None and subprocess.run([path, "conform", "--list"], capture_output=True).returncode == 0


def check_conforms(tmp_path, *arguments):
    code, output = conform(tmp_path, *arguments)
    assert code == 0, output
    assert int(re.search(r"(\d+) ok, 0 failed", output).group(1)) > 40, output


needs_conform = pytest.mark.skipif(not has_conform(), reason="needs oncecast with the subcommand conform")
needs_openssl = pytest.mark.skipif(not certificates.is_available, reason="needs the command openssl")


@needs_conform
@pytest.mark.parametrize("options", [[], ["--asyncio"]], ids=["threads", "asyncio"])
def test_it_conforms(tmp_path, options):
    check_conforms(tmp_path, options)


def tls_options(tmp_path):
    """What a consumer and a dispatcher with certificates are given."""
    authority = certificates.Authority(tmp_path, "authority")
    (cert, key), (our_cert, our_key) = authority.issue("consumer"), authority.issue("dispatcher")
    path = str(authority.path)
    theirs = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", path]
    return theirs, ["--tls-ca", path, "--tls-cert", our_cert, "--tls-key", our_key]


@needs_conform
@needs_openssl
def test_it_conforms_with_tls(tmp_path):
    theirs, ours = tls_options(tmp_path)
    check_conforms(tmp_path, theirs, "wss", ours)


def knows_secrets():
    """Whether the programs are new enough."""
    path = program("oncecast-dispatcher")
    return path is not None and b"--link-secret-file" in subprocess.run([path, "--help"], capture_output=True).stdout


needs_secrets = pytest.mark.skipif(not knows_secrets(), reason="needs programs with --link-secret-file")


def secret_options(path, *lines):
    """What a consumer or a dispatcher is given; these lines are the file."""
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return ["--link-secret-file", str(path)]


@needs_conform
@needs_secrets
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_it_conforms_with_a_link_secret(tmp_path, tls):
    theirs, ours = tls_options(tmp_path) if tls else ([], [])
    secrets = secret_options(tmp_path / "secrets", NEW, OLD)
    check_conforms(tmp_path, theirs + secrets, "wss" if tls else "ws", ours + secrets)


OLD, NEW = "the secret of this group so far", "the secret of this group from now on"


@needs_secrets
def test_a_link_secret_is_changed_and_a_dispatcher_without_it_is_refused(cluster, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    file = tmp_path / "worker"
    worker = start_worker(cluster, address, *secret_options(file, OLD))
    stranger = cluster.start_dispatcher([address], "--dispatcher-id", "d0")
    cluster.wait_for_log(worker, "this consumer has a link secret; give the dispatcher the same")
    cluster.wait_for_log(stranger, "--link-secret-file")
    cluster.kill(stranger)
    first = cluster.start_dispatcher([address], "--dispatcher-id", "d1", *secret_options(tmp_path / "first", OLD))
    wait_for(lambda: cluster.leader_is() == b"d1", "it leads")
    second = cluster.start_dispatcher([address], "--dispatcher-id", "d2", *secret_options(tmp_path / "second", NEW))
    cluster.wait_for_log(second, "event=subscribed")
    publisher, ids = start_load(cluster, 6)
    wait_for(lambda: cluster.redis.number("XLEN", cluster.key("processed")) > 3_000, "some are recorded")
    secret_options(file, NEW, OLD)
    cluster.kill(first)
    wait_for(lambda: cluster.leader_is() == b"d2", "it leads")
    check(cluster, publisher, ids)
    cluster.wait_for_log(worker, "link secret read again")


@needs_openssl
def test_with_tls_the_leader_is_killed_and_certificates_are_renewed(cluster, tmp_path):
    theirs, ours = tls_options(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    worker = start_worker(cluster, address, *theirs)
    dispatchers = {
        name: cluster.start_dispatcher([f"wss://{address}"], "--dispatcher-id", name, *ours) for name in ("d0", "d1")
    }
    for dispatcher in dispatchers.values():
        cluster.wait_for_log(dispatcher, "event=subscribed")
    cluster.wait_until_leading()
    publisher, ids = start_load(cluster, 6)
    wait_for(lambda: cluster.redis.number("XLEN", cluster.key("processed")) > 3_000, "some are recorded")
    # Another authority: what was read before would not be accepted any more.
    renewed, _ = tls_options(tmp_path)
    leader = cluster.leader_is().decode()
    cluster.kill(dispatchers[leader])
    wait_for(lambda: cluster.leader_is().decode() not in ("", leader), "the other one leads")
    check(cluster, publisher, ids)
    cluster.wait_for_log(worker, "certificates read again")
    assert renewed == theirs


@needs_openssl
def test_a_dispatcher_without_tls_and_one_with_it_say_what_is_wrong(cluster, tmp_path):
    theirs, ours = tls_options(tmp_path)
    encrypted, plain = (f"127.0.0.1:{free_port()}" for _ in range(2))
    workers = start_worker(cluster, encrypted, *theirs), start_worker(cluster, plain)
    dispatcher = cluster.start_dispatcher([encrypted, f"wss://{plain}"], *ours)
    cluster.wait_for_log(workers[0], "it speaks no TLS on this port")
    cluster.wait_for_log(workers[1], "it begins with TLS, and this consumer has none")
    cluster.wait_for_log(dispatcher, "400 Bad Request")
    cluster.wait_for_log(dispatcher, "it speaks no TLS on this port")


def has_sharded_channels():
    """Whether a Redis Cluster can be started, and is new enough: Redis 7."""
    if not is_available() or shutil.which("redis-cli") is None:
        return False
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    number = re.search(r"v=(\d+)", version)
    return number is None or int(number.group(1)) >= 7


@pytest.mark.skipif(not has_sharded_channels(), reason="needs redis-server 7 or later, and redis-cli")
def test_consumers_serve_three_lanes_while_the_leader_of_one_is_killed(tmp_path):
    with ShardedCluster(str(tmp_path), "{orders}") as cluster:
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        start_worker(cluster, addresses[0], "--group", "{orders}")
        own = program("oncecast-consumer")
        if own is not None:
            # Consumers of both kinds record in the same streams.
            options = ["--redis-url", cluster.url, "--group", "{orders}", "--listen", addresses[1], "--prefetch", "256"]
            cluster.start("consumer", [own, *options])
        addresses = addresses[: 1 if own is None else 2]
        channels = cluster.channels("orders.")
        start = ["--sharded-channel", ",".join(channels.values()), "--dispatcher-id"]
        dispatchers = {name: cluster.start_dispatcher(addresses, *start, name) for name in ("d0", "d1")}

        def others():
            """Lane 0 need not be in the set."""
            return set(cluster.redis.command("SMEMBERS", "{orders}:lanes")) - {b"0"}

        wait_for(lambda: len(others()) == 2, "there are three lanes")
        lanes = [cluster, *(LaneOf(cluster, f"{{orders/{number.decode()}}}") for number in others())]
        loads = []
        for lane in lanes:
            lane.wait_until_leading()
            channel = channels[cluster.redis.owner(lane.key("leader"))]
            wait_for(lambda channel=channel: cluster.redis.subscribers(channel) == 2, f"both hear {channel}")
            loads.append(start_load(cluster, 8, 1500, channel, "--sharded-channel"))
        time.sleep(3)
        first = lanes[1].leader_is().decode()
        lanes[1].kill(dispatchers[first])
        wait_for(lambda: lanes[1].leader_is().decode() not in ("", first), "the other one leads that lane")
        assert [check(lane, *load) for lane, load in zip(lanes, loads)]
