# SPDX-License-Identifier: Apache-2.0
"""What was sent through sockets and not taken: counted for as long as it is there, and bounded."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import Daemon, client, needs_fuse, run_client, running
from descriptors.programs import Running, build, helper_of
from descriptors.test_hostile import MANAGER, call
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

MALLORY, ALICE = 4002, 4001
LIMITS: Final = ("--limit", "flights=16", "--limit", "flights-per-user=4")
ATTACHER = """
from extension_client import *
os.setresuid({0}, {0}, {0})
device = Device(DIR + "/one", size=0)

def area():
    "Attach a socket; say how that went and return our end."
    ours, theirs = pair()
    with theirs:
        say(outcome(attach, device, theirs.fileno()))
    return ours

unread = [area() for _ in range(5)]
wait_for_line()
"""


@contextmanager
def daemon_with(place: Path, *options: str) -> Iterator[Daemon]:
    for parent in (place, *place.parents[:3]):
        parent.chmod(0o755)
    names = ("--device", "one", "--device", "two", "--device", "three")
    with running(place / "mount", *names, *LIMITS, *options) as daemon:
        yield daemon
        daemon.wait_for_counts(opens=0, users=0, installations=0)


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


# How one of four is given back, and then another can come; or is not, and it cannot.
TAKING = {
    "taken": ("take(unread[0])", "ok"),
    "the socket is closed": ("unread[0].close()", "ok"),
    "only looked at": ("unread[0].recv(64, socket.MSG_PEEK)", "EAGAIN"),
    "the socket is on its way itself": (
        "post = pair()\nsend_fd(post[0], unread[0].fileno())\nunread[0].close()",
        "EAGAIN",
    ),
    "the socket's other end says something": ("unread[0].send(b'x')", "EAGAIN"),
    "its end is shown": ("unread[0].shutdown(socket.SHUT_RDWR)", "EAGAIN"),
}


@pytest.mark.parametrize(("deed", "result"), TAKING.values(), ids=TAKING)
def test_only_what_was_taken_is_given_back(tmp_path: Path, deed: str, result: str) -> None:
    code = ATTACHER + f"{deed}\nunread.append(area())\nunread.append(area())\n"
    with (
        daemon_with(tmp_path) as daemon,
        client(daemon.directory, code.format(MALLORY)) as mallory,
    ):
        assert [mallory.line() for _ in range(5)] == ["ok"] * 4 + ["EAGAIN"]
        others = ATTACHER.replace("wait_for_line()", "")
        assert run_client(daemon.directory, others.format(ALICE)) == ["ok"] * 4 + ["EAGAIN"]
        assert run_client(daemon.directory, others.format(0)) == ["ok"] * 5
        mallory.tell()
        assert [mallory.line() for _ in range(2)] == [result, "EAGAIN"]
        mallory.process.wait(30)


def test_a_socket_is_kept_until_it_is_empty_and_no_longer(tmp_path: Path) -> None:
    """Whoever reads, later on and without a word to us, gets all; we keep no descriptor then."""
    code = ATTACHER.format(MALLORY) + (
        "kept = unread[:4]\n"
        "os.close(device.fd)\n"
        "say('closed')\n"
        "wait_for_line()\n"
        "say(*(len(take(ours)[1]) for ours in kept))\n"
        "wait_for_line()\n"
        "say(*(ours.recv(1) for ours in kept))\n"
        "wait_for_line()\n"
    )
    with daemon_with(tmp_path) as daemon:
        # What it opens for its start alone is gone once it has served somebody.
        run_client(daemon.directory, ATTACHER.format(ALICE).replace("wait_for_line()", ""))
        daemon.wait_for_counts(opens=0, users=0)
        before = descriptors(daemon)
        with client(daemon.directory, code) as mallory:
            assert [mallory.line() for _ in range(5)] == ["ok"] * 4 + ["EAGAIN"]
            mallory.tell()
            assert mallory.line() == "closed"
            daemon.wait_for_counts(opens=0, users=1)
            eventually(lambda: descriptors(daemon) == before + 4, "four sockets are kept")
            mallory.tell()
            assert mallory.line() == "1 1 1 1"
            eventually(lambda: descriptors(daemon) == before, "a socket is kept")
            daemon.wait_for_counts(users=0)
            mallory.tell()
            assert mallory.line() == "b'' b'' b'' b''"
            mallory.tell()
            mallory.process.wait(30)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("files"))


def test_deliveries_that_are_reported_and_not_taken(tmp_path: Path, program: Path) -> None:
    """A report gives nothing back. At the limit it is as if the table of descriptors were full."""
    code = MANAGER.replace("device = Device", f"os.setresuid(*[{MALLORY}] * 3)\ndevice = Device")
    code += (
        (
            "attach_files()\n"
            "for _ in range(4):\n"
            "    assert read() is None\n"
            "    message = ours.recv(64, socket.MSG_PEEK)\n"
            "    number = ext.binderd_message.unpack_from(message)[2] + _\n"
            "    say(report(number, [], error=errno.EMFILE))\n"
            "answer(read())\n"
            "say('answered')\n"
            "for _ in range(4):\n"
            "    ours.recv(64)\n"
            "assert read() is None\n"
            "(_, _, number, _), numbers = message_of(ours)\n"
            "say(report(number, numbers))\n"
            "answer(read())\n"
            "wait_for_line()\n"
        )
        .replace("message_of(ours)", "message()")
        .replace("message = ours", "peeked = ours")
        .replace("unpack_from(message)", "unpack_from(peeked)")
    )
    with daemon_with(tmp_path) as daemon, client(daemon.directory, code) as server:
        place = daemon.directory / "one"
        assert server.line() == "ready"
        for _ in range(4):
            assert "no reply" in call(program, place)
            assert server.line() == "ok"
        assert "no reply" in call(program, place), "nothing more can be on its way"
        assert call(program, place, files=0) == ""
        assert server.line() == "answered"
        assert call(program, place) == ""
        assert server.line() == "ok"


def test_more_files_than_may_ever_be_on_their_way(tmp_path: Path, program: Path) -> None:
    """They come as to somebody who has not attached."""
    code = MANAGER + "attach_files()\nanswer(read())\nsay(len(os.listdir('/proc/self/fd')))\n"
    code += "say(outcome(ours.recv, 1, socket.MSG_DONTWAIT))\nwait_for_line()\n"
    with daemon_with(tmp_path) as daemon, client(daemon.directory, code) as server:
        assert server.line() == "ready"
        assert call(program, daemon.directory / "one", 40) == ""
        assert int(server.line()) > 40
        assert server.line() == "EAGAIN"


def test_what_waits_for_the_helper_counts(tmp_path: Path, program: Path) -> None:
    names = ["one", "two", "three"]
    with daemon_with(tmp_path, "--limit", "flights=2") as daemon, ExitStack() as cleaning:
        for name in names:
            server = Running(program, "serve", daemon.directory / name)
            cleaning.callback(server.kill)
            server.expect("ready")
        helper = helper_of(daemon)
        os.kill(helper, signal.SIGSTOP)
        try:
            first, second = (
                Running(program, "call", daemon.directory / name, 1, 1) for name in names[:2]
            )
            daemon.wait_for_counts(installations=2)
            assert "no reply" in call(program, daemon.directory / names[2])
        finally:
            os.kill(helper, signal.SIGCONT)
        assert [first.errors(), second.errors()] == ["", ""]
        assert call(program, daemon.directory / names[2], 7) == ""
        cleaning.close()
        daemon.wait_for_counts(users=0)
        assert helper_of(daemon) == helper
