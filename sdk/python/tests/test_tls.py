"""TLS on the links: who is let in, what the log says of others, renewal, and traffic in both directions at once."""

import logging
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import certificates
import pytest
from certificates import Authority, replace
from cluster import wait_for
from scripted import FIRST_ID, Dispatcher, Gate, consumer_of

from oncecast import Consumer, frames, link, tls
from oncecast.files import FileProblem
from oncecast.sums import Sums

pytestmark = pytest.mark.skipif(not certificates.is_available, reason="needs the command openssl")


class Files:
    """Two authorities, and certificates of each."""

    def __init__(self, folder):
        self.authority = Authority(folder, "authority")
        self.other = Authority(folder, "other")
        self.consumer = self.authority.issue("consumer")
        self.dispatcher = self.authority.issue("dispatcher")
        self.stranger = self.other.issue("stranger")
        self.expired = self.authority.issue("expired", days=-1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("certificates"))


def options_of(files, **options):
    cert, key = files.consumer
    return {"tls_cert": cert, "tls_key": Path(key), **options}


@pytest.fixture
def mutual(files):
    """A consumer that requires certificates."""
    options = options_of(files, tls_client_ca=files.authority.path)
    with consumer_of(lambda delivery: {"ok": True}, **options) as consumer:
        yield consumer


def client(files, identity=None, authority=None):
    context = ssl.create_default_context(cafile=(authority or files.authority).path)
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


def connect(consumer, context):
    """A dispatcher with TLS."""
    return Dispatcher(consumer, tls=context)


def connect_only(consumer):
    sock = Dispatcher.connect_only(consumer.address)
    sock.settimeout(10)
    return sock


def read_to_end(sock):
    data = b""
    try:
        while part := sock.recv(65_536):
            data += part
    except OSError:
        pass
    return data


def handshake_fails(consumer, context):
    """TLS 1.3 tells a client that its certificate is refused when it reads."""
    with connect_only(consumer) as sock:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with context.wrap_socket(sock, server_hostname="127.0.0.1") as wrapped:
                while wrapped.recv(1):
                    pass
                raise ConnectionError("it was closed")


def works(dispatcher, epoch=1, id=FIRST_ID):
    dispatcher.greet(epoch)
    dispatcher.process(id)
    dispatcher.results(1)
    dispatcher.record(id)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("second", [True, False])
def test_a_dispatcher_with_a_certificate_is_served(files, mutual, version, second):
    context = client(files, files.dispatcher)
    context.minimum_version = context.maximum_version = version
    dispatcher = Dispatcher(mutual, second=second, tls=context)
    assert dispatcher.websocket.socket.version() == version.name.replace("v1_", "v1.")
    works(dispatcher)
    dispatcher.websocket.close()


def test_without_authorities_any_dispatcher_is_served(files):
    with consumer_of(lambda delivery: None, **options_of(files)) as consumer:
        dispatcher = connect(consumer, client(files))
        works(dispatcher)


def test_who_is_refused_and_what_the_log_says(files, mutual, caplog):
    leading = connect(mutual, client(files, files.dispatcher))
    works(leading)
    caplog.clear()
    handshake_fails(mutual, client(files))
    handshake_fails(mutual, client(files, files.stranger))
    handshake_fails(mutual, client(files, files.expired))
    handshake_fails(mutual, client(files, files.dispatcher, authority=files.other))
    with connect_only(mutual) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_to_end(plain).endswith(b"\r\n\r\nThis port of an Oncecast consumer has TLS: use wss://.\n")
    wait_for(lambda: len(failures(caplog)) == 5, "five lines")
    missing, unknown, expired, distrusts, not_tls = failures(caplog)
    assert "it showed no certificate; give --tls-cert and --tls-key to the dispatcher" in missing
    assert f"its certificate was not signed by an authority in {files.authority.path}" in unknown
    assert "has expired; renew it" in expired
    assert "it refuses our certificate" in distrusts and "unknown ca" in distrusts
    assert "it speaks no TLS on this port" in not_tls and "wss://" in not_tls
    leading.process(FIRST_ID + 1)
    leading.results(1)


def failures(caplog):
    return [record.message for record in caplog.records if "TLS failed" in record.message]


def test_a_tls_client_at_a_consumer_without_tls(files, caplog):
    with consumer_of(lambda delivery: None) as consumer:
        with connect_only(consumer) as sock, pytest.raises(ssl.SSLError):
            client(files).wrap_socket(sock, server_hostname="127.0.0.1")
        wait_for(lambda: len(failures(caplog)) == 1, "a line")
        assert "tls_cert" in failures(caplog)[0] and "wss://" in failures(caplog)[0]
        works(Dispatcher(consumer))


def test_silent_and_broken_connections_keep_nobody_out(files, mutual, monkeypatch, caplog):
    monkeypatch.setattr(link, "LEAD_S", 1.0)
    others = []
    try:
        for number in range(90):
            sock = connect_only(mutual)
            others.append(sock)
            # Some are silent, some begin with a part of a handshake, some send rubbish.
            try:
                sock.sendall([b"", b"\x16\x03\x01\x02\x00\x01", os.urandom(64)][number % 3])
            except OSError:
                pass
        begin = time.monotonic()
        dispatcher = connect(mutual, client(files, files.dispatcher))
        works(dispatcher)
        assert time.monotonic() - begin < 2
        wait_for(lambda: any(tls.SLOW in line for line in messages(caplog)), "the log says that they are slow")
        for sock in others:
            read_to_end(sock)
        dispatcher.process(FIRST_ID + 1)
        dispatcher.results(1)
        works(connect(mutual, client(files, files.dispatcher)), 2, FIRST_ID + 2)
        assert len(messages(caplog)) < 50
    finally:
        for sock in others:
            sock.close()


def messages(caplog):
    return [record.message for record in caplog.records]


def test_a_handshake_that_is_cut_off_is_said(mutual, caplog):
    with connect_only(mutual) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    wait_for(lambda: len(failures(caplog)) == 1, "a line")
    assert tls.CLOSED in failures(caplog)[0]
    connect_only(mutual).close()


def test_heavy_traffic_in_both_directions(files):
    """Large messages and large results at the same time, with pings, over one connection."""
    body = os.urandom(1 << 20)
    count = 120
    with consumer_of(lambda delivery: {"body": delivery.payload}, prefetch=16, **options_of(files)) as consumer:
        dispatcher = connect(consumer, client(files))
        dispatcher.greet()
        places = threading.Semaphore(12)

        def send():
            for number in range(count):
                places.acquire()
                dispatcher.process(FIRST_ID + number, body=body)
                dispatcher.websocket.ping()

        sender = threading.Thread(target=send)
        sender.start()
        seen = set()
        while len(seen) < count:
            for id, fields in dispatcher.results(1).items():
                assert fields == [(b"body", body)]
                seen.add(id)
                dispatcher.record(id)
                places.release()
        sender.join()
        dispatcher.process(FIRST_ID + count, body=b"x")
        dispatcher.results(1)


def test_a_session_in_two_threads_keeps_all_bytes_in_order(files):
    """The reader's and the writer's side of a session at full speed, while the peer changes its keys."""
    certificates = tls.Certificates(*files.consumer, None)
    session = certificates.session()
    ours, theirs = socket.socketpair()
    context = client(files)
    total = 24 << 20
    wrapped = {}

    def connect():
        wrapped["client"] = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connect()
    peer = wrapped["client"]
    lock = threading.Lock()
    pattern = bytes(range(256)) * 256
    received = {"ours": 0, "theirs": 0}

    def finish_handshake():
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                theirs.sendall(outgoing.read())
                session.receive(ours.recv(65_536))
                ours.sendall(session.output())
                incoming.write(theirs.recv(65_536))
        theirs.sendall(outgoing.read())
        session.receive(ours.recv(65_536))
        assert session.is_complete

    def our_writer():
        for _ in range(total // len(pattern)):
            ours.sendall(session.seal(memoryview(pattern)))

    def our_reader():
        while received["ours"] < total:
            data, _ = session.receive(ours.recv(65_536))
            at = received["ours"] % 256
            assert data == (pattern * 3)[at : at + len(data)]
            received["ours"] += len(data)

    def their_writer():
        for _ in range(total // len(pattern)):
            with lock:
                peer.write(pattern)
                data = outgoing.read()
            theirs.sendall(data)

    def their_reader():
        while received["theirs"] < total:
            data = theirs.recv(65_536)
            with lock:
                incoming.write(data)
                while True:
                    try:
                        part = peer.read(65_536)
                    except ssl.SSLWantReadError:
                        break
                    at = received["theirs"] % 256
                    assert part == (pattern * 2)[at : at + len(part)]
                    received["theirs"] += len(part)

    finish_handshake()
    threads = [
        threading.Thread(target=target, daemon=True) for target in (our_writer, our_reader, their_writer, their_reader)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert received == {"ours": total, "theirs": total}
    ours.close()
    theirs.close()


def test_a_session_that_has_failed_sends_no_more(files):
    session = tls.Certificates(*files.consumer, None).session()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client(files).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while not session.is_complete:
        try:
            peer.do_handshake()
        except ssl.SSLWantReadError:
            pass
        session.receive(outgoing.read())
        incoming.write(session.output())
    with pytest.raises(tls.TlsError):
        session.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
    incoming.write(session.seal(memoryview(b"a result")) + session.last_output())
    with pytest.raises(ssl.SSLError):  # An alert, and no result.
        peer.read(100)


def test_certificates_are_read_again(files, tmp_path, caplog):
    """Renewed while connected: new connections see the new ones; what can't be used is ignored and said once."""
    caplog.set_level(logging.INFO)
    cert, key, ca = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem"))
    contents = [Path(path).read_bytes() for path in files.consumer]
    replace(cert, contents[0])
    replace(key, contents[1])
    replace(ca, files.authority.path.read_bytes())
    options = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ca}
    with consumer_of(lambda delivery: {"ok": True}, **options) as consumer:
        first = connect(consumer, client(files, files.dispatcher))
        works(first)
        Path(cert).write_bytes(contents[0][: len(contents[0]) // 2])  # Half written.
        works(connect(consumer, client(files, files.dispatcher)), 2, FIRST_ID + 1)
        connect(consumer, client(files, files.dispatcher)).websocket.close()
        renewed = [Path(path).read_bytes() for path in files.other.issue("renewed")]
        replace(cert, renewed[0])  # And its key not yet.
        works(connect(consumer, client(files, files.dispatcher)), 3, FIRST_ID + 2)
        unusable = [line for line in messages(caplog) if "new connections use the certificates read before" in line]
        assert len(unusable) == 2
        assert f"tls_cert: {cert}" in unusable[0] and "it is not the key of" in unusable[1]
        replace(key, renewed[1])
        replace(ca, files.other.path.read_bytes())
        leading = connect(consumer, client(files, files.stranger, authority=files.other))
        works(leading, 4, FIRST_ID + 3)
        assert any(line.startswith("certificates read again") for line in messages(caplog))
        handshake_fails(consumer, client(files, files.dispatcher, authority=files.other))
        leading.process(FIRST_ID + 4)
        leading.results(1)


def test_wrong_settings_are_named(files, tmp_path):
    cert, key = files.consumer
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    empty = tmp_path / "empty"
    empty.write_text("")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    encrypted = tmp_path / "encrypted.key"
    certificates._openssl("pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", encrypted)
    with pytest.raises(ValueError, match="tls_cert and tls_key belong together"):
        Consumer(lambda delivery: None, tls_cert=cert)
    with pytest.raises(ValueError, match="tls_client_ca needs tls_cert"):
        Consumer(lambda delivery: None, tls_client_ca=cert)
    cases = [
        ({"tls_cert": tmp_path / "none"}, "tls_cert: .*none: No such file"),
        ({"tls_cert": rubbish}, "tls_cert: .*rubbish: it must be a PEM file with a certificate"),
        ({"tls_cert": pipe}, "tls_cert: .*pipe: it is not a file"),
        ({"tls_key": empty}, "tls_key: .*empty: it must be a PEM file with the certificate's key, not encrypted"),
        ({"tls_key": encrypted}, "tls_key: .*encrypted.key: .* not encrypted .*it is encrypted"),
        ({"tls_key": files.stranger[1]}, "tls_key: .*it is not the key of the certificate in"),
        ({"tls_client_ca": rubbish}, "tls_client_ca: .*rubbish: it must be a PEM file with the certificates of"),
        ({"tls_client_ca": tmp_path}, "tls_client_ca: .*it is not a file"),
    ]
    for options, match in cases:
        consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0", **options_of(files, **options))
        with pytest.raises(FileProblem, match=match):
            consumer.start()


def test_what_repeats_is_said_in_sum(caplog):
    now = [0.0]
    sums = Sums(lambda: now[0])
    for number in range(12):
        sums.note("tls", logging.WARNING, f"failed {number}")
    sums.note("other", logging.WARNING, "another kind")
    assert messages(caplog) == [f"failed {number}" for number in range(5)] + ["another kind"]
    sums.rest()
    assert len(caplog.records) == 6
    now[0] = 1.0
    sums.rest()
    sums.rest(all=True)
    assert messages(caplog)[6:] == ["failed 11 (and 6 more of this kind)"]


def test_what_a_peer_makes_us_send_is_bounded(files, monkeypatch):
    monkeypatch.setattr(tls, "MAX_CAUSED_BYTES", 100)
    session = tls.Certificates(*files.consumer, None).session()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client(files).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        peer.do_handshake()
    with pytest.raises(tls.TlsError, match="does not read"):
        session.receive(outgoing.read())
