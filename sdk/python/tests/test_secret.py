"""The link secret: who is believed, the order of the frames, changing it, and which files can be used."""

import logging
import os
import tempfile
from pathlib import Path

import pytest
from certificates import replace
from cluster import wait_for
from scripted import FIRST_ID, GROUP, Dispatcher, consumer_of

from oncecast import Consumer, frames
from oncecast.files import FileProblem
from oncecast.secret import Challenge, LinkSecret, proof_of_consumer, proof_of_dispatcher

SECRET = b"correct horse battery staple"
NEWER = b"a newer secret of this group"
NONCE = bytes(range(16))


def test_vectors():
    theirs, ours = bytes(range(16)), bytes(range(16, 32))
    consumer = "3b46c32c4843f5e4a4426d13afb757cca6da5ee832132b695aabb852f94d96f7"
    dispatcher = "8c24d0565e1014d6b906af99156b11b1ccf3b644c67fe569bda5317c9266b1ab"
    assert proof_of_consumer(SECRET, GROUP, theirs, ours).hex() == consumer
    assert proof_of_dispatcher(SECRET, GROUP, 1_790_000_000_123, theirs, ours).hex() == dispatcher
    challenge = Challenge([NEWER, SECRET], theirs, ours)
    assert dict(challenge.headers(GROUP))["Oncecast-Proof"].split(", ")[1] == consumer
    assert challenge.is_met(bytes.fromhex(dispatcher), 1_790_000_000_123, GROUP)
    assert not challenge.is_met(bytes.fromhex(dispatcher), 1_790_000_000_124, GROUP)
    assert not challenge.is_met(bytes.fromhex(dispatcher), 1_790_000_000_123, "others")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def consumer(path):
    with consumer_of(lambda delivery: {"ok": True}, link_secret_file=path) as consumer:
        yield consumer


class Knowing(Dispatcher):
    """A dispatcher that knows this secret."""

    def __init__(self, consumer, secret=SECRET, headers=None, **options):
        super().__init__(consumer, additional_headers=headers or [("Oncecast-Nonce", NONCE.hex())], **options)
        self.secret = secret
        self.answer = self.websocket.response.headers

    def proof(self, epoch=1, group=GROUP, secret=None):
        ours = bytes.fromhex(self.answer["Oncecast-Nonce"])
        return frames.Proof(proof_of_dispatcher(secret or self.secret, group, epoch, NONCE, ours))

    def lead(self, epoch=1, group=GROUP, hello=None):
        self.send(self.proof(epoch, group), frames.Lead(epoch, group))


def works(dispatcher, epoch=1, id=FIRST_ID):
    dispatcher.greet(epoch)
    dispatcher.process(id)
    dispatcher.results(1)
    dispatcher.record(id)


@pytest.mark.parametrize("second", [True, False])
def test_both_prove_it(consumer, second):
    dispatcher = Knowing(consumer, second=second)
    ours = bytes.fromhex(dispatcher.answer["Oncecast-Nonce"])
    assert dispatcher.answer["Oncecast-Proof"] == proof_of_consumer(SECRET, GROUP, NONCE, ours).hex()
    works(dispatcher)
    assert Knowing(consumer).answer["Oncecast-Nonce"] != dispatcher.answer["Oncecast-Nonce"]


def test_proof_and_lead_may_come_in_several_messages(consumer):
    dispatcher = Knowing(consumer)
    dispatcher.send(dispatcher.proof(7))
    dispatcher.websocket.send(b"")
    dispatcher.send(frames.Lead(7, GROUP), frames.Hello({"link_timeout_ms": 900}))
    dispatcher.greeting()


@pytest.mark.parametrize(
    "headers",
    [
        [("X", "y")],
        [("Oncecast-Nonce", "00")],
        [("Oncecast-Nonce", "AB" * 16)],
        [("Oncecast-Nonce", "ab" * 17)],
        [("Oncecast-Nonce", "ab" * 16), ("Oncecast-Nonce", "ab" * 16)],
    ],
)
def test_without_a_nonce_the_handshake_is_completed_and_refused(consumer, headers):
    dispatcher = Knowing(consumer, headers=headers)
    assert "Oncecast-Nonce" not in dispatcher.answer and "Oncecast-Proof" not in dispatcher.answer
    error = dispatcher.next(frames.Error)
    assert error.code == 11 and "--link-secret-file" in error.text
    dispatcher.wait_for_end()


def test_a_request_that_is_no_handshake_gets_no_proof(consumer):
    with Dispatcher.connect_only(consumer.address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nOncecast-Nonce: " + NONCE.hex().encode() + b"\r\n\r\n")
        answer = sock.recv(65_536)
    assert b" 426 " in answer and b"oncecast-" not in answer.lower()


def test_what_proves_nothing_is_refused_and_not_remembered(consumer, caplog):
    far = 1_790_000_000_000
    lead = frames.Lead(far, GROUP)
    cases = [
        (lambda dispatcher: [lead], 11),
        (lambda dispatcher: [frames.Process(FIRST_ID, 1, b"x")], 11),
        (lambda dispatcher: [frames.Proof(bytes(32)), lead], 11),
        (lambda dispatcher: [dispatcher.proof(far, secret=NEWER), lead], 11),
        (lambda dispatcher: [dispatcher.proof(far + 1), lead], 11),
        (lambda dispatcher: [dispatcher.proof(far, "others"), lead], 11),
        (lambda dispatcher: [dispatcher.proof(far, "others"), frames.Lead(far, "others")], 7),
        (lambda dispatcher: [dispatcher.proof(far), frames.Process(FIRST_ID, 1, b"x")], 5),
        (lambda dispatcher: [dispatcher.proof(far), dispatcher.proof(far), lead], 5),
        (lambda dispatcher: [dispatcher.proof(far), lead, dispatcher.proof(far)], 5),
    ]
    for make, code in cases + cases[:2]:
        dispatcher = Knowing(consumer)
        dispatcher.send(*make(dispatcher))
        assert dispatcher.error() == code
    other = Knowing(consumer)
    other.websocket.send(b"\x02")
    assert other.error() == 1
    works(Knowing(consumer), 2)
    wait_for(lambda: any("more of this kind" in record.message for record in caplog.records), "it is said in sum")
    replayed = Knowing(consumer)
    old = replayed.proof(3)
    again = Knowing(consumer)
    again.send(old, frames.Lead(3, GROUP))
    assert again.error() == 11


def test_proof_after_lead_is_unexpected(consumer):
    dispatcher = Knowing(consumer)
    dispatcher.greet()
    dispatcher.send(dispatcher.proof())
    assert dispatcher.error() == 5


def test_an_error_before_proof_is_heeded(consumer, caplog):
    dispatcher = Knowing(consumer)
    dispatcher.send(frames.Error(11, "the consumer does not know the secret"))
    assert dispatcher.wait_for_end() == 1001
    assert "reports error 11: the consumer does not know" in caplog.text


def test_a_consumer_without_a_secret():
    with consumer_of(lambda delivery: {"ok": True}) as consumer:
        dispatcher = Knowing(consumer)
        assert "Oncecast-Nonce" not in dispatcher.answer and "Oncecast-Proof" not in dispatcher.answer
        Dispatcher.lead(dispatcher)
        dispatcher.greeting()
        other = Knowing(consumer)
        other.send(frames.Proof(bytes(32)), frames.Lead(1, GROUP))
        assert other.error() == 5


def test_the_secret_is_changed_while_connected(consumer, path, caplog):
    caplog.set_level(logging.INFO)
    first = Knowing(consumer)
    works(first)
    replace(path, NEWER + b"\r\n\n  " + SECRET + b"\t\n")
    os.chmod(path, 0o600)
    both = Knowing(consumer)
    assert len(both.answer["Oncecast-Proof"].split(", ")) == 2
    works(both, 2, FIRST_ID + 1)
    works(Knowing(consumer, NEWER), 3, FIRST_ID + 2)
    replace(path, NEWER)
    path.chmod(0o600)
    old = Knowing(consumer)
    old.lead(4)
    assert old.error() == 11
    path.write_bytes(NEWER[:3])  # Half written: the last one that could be used counts.
    Knowing(consumer, NEWER)
    works(Knowing(consumer, NEWER), 5, FIRST_ID + 3)
    path.unlink()
    works(Knowing(consumer, NEWER), 6, FIRST_ID + 4)
    said = [record.message for record in caplog.records if "link secret" in record.message]
    assert sum(line.startswith("link secret read again") for line in said) >= 2
    unusable = [line for line in said if "new connections use the link secret read before" in line]
    assert len(unusable) == 2 and "16 to 1024 bytes" in unusable[0] and "No such file" in unusable[1]


@pytest.fixture
def open_folder():
    """A folder that every user can enter, as pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


def test_a_key_that_every_user_can_read_is_said(open_folder, caplog):
    key = open_folder / "key"
    key.write_text("no key")
    consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0", tls_cert=key, tls_key=key)
    for mode, count in ((0o640, 0), (0o644, 1)):
        key.chmod(mode)
        with pytest.raises(FileProblem):
            consumer.start()
        assert caplog.text.count("tls_key: ") == count


def test_a_right_that_is_corrected_is_noticed(open_folder):
    path = open_folder / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o640)
    secret = LinkSecret(path)
    replace(path, NEWER)
    path.chmod(0o644)
    assert secret.challenge([NONCE.hex()]).lines == [SECRET], "every user can read the new one"
    path.chmod(0o640)
    assert secret.challenge([NONCE.hex()]).lines == [NEWER]


def test_which_files_can_be_used(tmp_path, open_folder):
    path = open_folder / "secret"

    def lines_of(content, mode=0o640):
        path.write_bytes(content)
        path.chmod(mode)
        return LinkSecret(path).challenge([NONCE.hex()]).lines

    assert lines_of(b"\n \t" + SECRET + b" \r\n\n") == [SECRET]
    assert lines_of(b"x" * 16 + b"\n" + b"\xff" * 1024) == [b"x" * 16, b"\xff" * 1024]
    wrong = [b"", b"\n \n", b"x" * 15, b"x" * 1025, (SECRET + b"\n") * 3, b"x" * 15 + b"\n" + SECRET]
    for content in wrong:
        with pytest.raises(FileProblem, match="link_secret_file: .*secret: "):
            lines_of(content)
    with pytest.raises(FileProblem, match="every user can read it"):
        lines_of(SECRET, 0o644)
    open_folder.chmod(0o700)
    assert lines_of(SECRET, 0o644) == [SECRET]
    os.mkfifo(tmp_path / "pipe")
    for other, problem in (("none", "No such file"), ("pipe", "not a file"), (".", "not a file")):
        consumer = Consumer(lambda delivery: None, listen="127.0.0.1:0", link_secret_file=tmp_path / other)
        with pytest.raises(ValueError, match=problem):
            consumer.start()


@pytest.mark.parametrize(
    "listen,secret,warns", [("0.0.0.0:0", False, True), ("0.0.0.0:0", True, False), (None, False, False)]
)
def test_who_listens_beyond_loopback_without_protection_is_warned(path, caplog, listen, secret, warns):
    options = {"listen": listen} if listen else {}
    if secret:
        options["link_secret_file"] = path
    with consumer_of(lambda delivery: None, **options):
        pass
    assert ("may claim to be the dispatcher" in caplog.text) == warns
