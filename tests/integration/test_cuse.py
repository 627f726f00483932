# SPDX-License-Identifier: Apache-2.0
"""Real CUSE devices, where the kernel has them: in the virtual machine. The rest runs anywhere."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import select
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.blocking import Device
from binderwire.binder_abi import BINDER_SET_CONTEXT_MGR, BINDER_VERSION
from channel.helpers import Daemon, client, needs_fuse, run_client, running
from channel.test_device import CALLER, SERVER
from client.managers import ManagerProcess
from client.recovery_world import (
    EchoService,
    errno_of,
    outcome_of,
    poll_until_an_error,
    read_until_it_fails,
    sleeps,
)
from support.patience import patience
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_CUSE: Final = os.path.exists("/dev/cuse") and os.geteuid() == 0
needs_cuse = pytest.mark.skipif(not HAS_CUSE, reason="needs root and /dev/cuse")

EXAMPLES: Final = Path(__file__).parents[2] / "client" / "examples"
PREFIX: Final = f"binderd-try-{os.getpid()}/"
NODES: Final = Path("/dev", PREFIX)
PATIENCE: Final = patience(60.0)
HANDED_OVER: Final = "from extension_client import *\n"

# Nothing but what any program of the last fifteen years would do.
OLD_STYLE: Final = """
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
int main(int argc, char **argv)
{
    int fd = open(argv[argc - 1], O_RDWR);
    int manager = ioctl(fd, %#xUL, 0);
    int leaving = ioctl(fd, 0x40046208UL, 0);
    printf("%%d %%d %%d\\n", fd >= 0, manager, leaving);
    return 0;
}
"""


@contextmanager
def devices(place: Path, *arguments: str, transport: str = "cuse") -> Iterator[Daemon]:
    options = ("--transport", transport, "--device-prefix", PREFIX, *arguments)
    with running(place / "mount", *options) as daemon:
        yield daemon


def run(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(
        words, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
    ).stdout


@needs_cuse
def test_devices_come_and_go(tmp_path: Path) -> None:
    nobody, group = pwd.getpwnam("nobody"), grp.getgrgid(1)
    access = ("--mode", "0640", "--owner", "nobody", "--group", group.gr_name)
    with devices(tmp_path, *access) as daemon:
        for name in ("binder", "hwbinder", "vndbinder"):
            status = (NODES / name).stat()
            assert stat.S_ISCHR(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o640
            assert (status.st_uid, status.st_gid) == (nobody.pw_uid, group.gr_gid)
        assert not (tmp_path / "mount").exists()
        assert daemon.counts()["opens"] == 0
        assert daemon.end() == 0
    assert not NODES.exists()


@needs_cuse
def test_default_mode_and_a_kill(tmp_path: Path) -> None:
    """After SIGKILL the kernel takes the devices away, and a new daemon can have the names."""
    for _ in range(2):
        with devices(tmp_path) as daemon:
            assert stat.S_IMODE((NODES / "binder").stat().st_mode) == 0o666
            fd = os.open(NODES / "binder", os.O_RDWR)
            daemon.end(signal.SIGKILL)
            with pytest.raises(OSError, match=r"not connected|aborted|No such device"):
                fcntl.ioctl(fd, BINDER_VERSION, bytearray(4))
            os.close(fd)


@needs_cuse
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_clients_outlive_a_daemon(tmp_path: Path, number: signal.Signals) -> None:
    """What they see is in docs/RECOVERY.md; the rest is as with files: tests/client."""
    path = NODES / "binder"
    with devices(tmp_path) as daemon:
        reading, polling = (os.open(path, os.O_RDWR) for _ in range(2))
        reader, read = outcome_of(lambda: read_until_it_fails(reading))
        poller, polled = outcome_of(lambda: poll_until_an_error(polling))
        eventually(lambda: sleeps(reader.native_id) and sleeps(poller.native_id))
        device = Device(path, reconnect=True)
        device.become_context_manager(EchoService())
        device.start_thread_pool()
        daemon.end(number)
        for thread in (reader, poller):
            thread.join(PATIENCE)
        assert isinstance(read[0], OSError)
        assert errno.errorcode[read[0].errno or 0] == "ECONNABORTED"
        assert polled == [select.POLLERR]
        version = bytearray(4)
        assert errno_of(lambda: fcntl.ioctl(reading, BINDER_VERSION, version)) == "ENOTCONN"
        assert errno_of(lambda: os.open(path, os.O_RDWR)) == "ENOENT"
        assert errno_of(lambda: os.close(reading)) == errno_of(lambda: os.close(polling)) == "works"
        eventually(lambda: device.gone)
    ask = f"import binderclient as b; print(b.Device({str(path)!r}).context_manager.interface())"
    with device, devices(tmp_path):
        assert device.wait_back(PATIENCE)
        # Another process, as nobody can call the context manager from the one that it is in.
        assert run(sys.executable, "-c", ask) == f"{EchoService.descriptor}\n"


@needs_cuse
def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with devices(tmp_path):
        second = Daemon(tmp_path / "other", "--transport=cuse", "--device-prefix", PREFIX)
        assert second.process.wait(PATIENCE) == 1
        assert "is there already" in second.expect("binderd:")
        second.clean_up()
        assert os.stat(NODES / "binder")


@needs_cuse
def test_null_arguments(tmp_path: Path) -> None:
    source, program = tmp_path / "old.c", tmp_path / "old"
    source.write_text(OLD_STYLE % BINDER_SET_CONTEXT_MGR)
    run("cc", "-o", program, source)
    with devices(tmp_path) as daemon:
        assert run(program, NODES / "binder") == "1 0 0\n"
        daemon.wait_for_counts(opens=0, processes=0, threads=0, nodes=0)


@needs_cuse
@pytest.mark.parametrize("kind", ["fuse-cuse", "cuse-fuse", "cuse-cuse"])
def test_both_transports_lead_to_one_context(tmp_path: Path, kind: str) -> None:
    """A call from one to the other, in one daemon; with each side parked when the other acts."""
    with devices(tmp_path, transport="both") as daemon:
        places = {"fuse": tmp_path / "mount", "cuse": NODES}
        server_side, caller_side = kind.split("-")

        def code(side: str, text: str) -> str:
            handed = text.replace("Device(DIR", "mapped(DIR").replace("size=1", "1")
            return HANDED_OVER + (handed if side == "cuse" else text)

        with client(places[server_side], code(server_side, SERVER)) as server:
            assert server.line() == "up"
            said = run_client(
                places[caller_side],
                code(caller_side, CALLER)
                + "for _ in range(20): assert word(abi.BR_REPLY) in call(one, b'hello')\n"
                "say(word(abi.BR_REPLY) in call(one, bytes(500000)))\n",
            )
            assert said == ["True"]
            server.process.kill()
        daemon.wait_for_counts(opens=0, processes=0, threads=0, parked=0, pages=0, buffers=0)
        assert daemon.end() == 0
    assert not NODES.exists()


@needs_cuse
def test_the_client_library(tmp_path: Path) -> None:
    """A service manager, a service and its caller; then all in one trio program."""
    device = NODES / "binder"
    with devices(tmp_path) as daemon:
        manager = ManagerProcess(device, tmp_path)
        service = subprocess.Popen([sys.executable, EXAMPLES / "echo_service.py", device])
        try:
            assert run(sys.executable, EXAMPLES / "echo_client.py", "hello", device) == "hello\n"
            said = run(sys.executable, EXAMPLES / "echo_trio.py", device)
            assert sorted(said.split()) == ["one", "three", "two"]
        finally:
            service.terminate()
            service.wait(PATIENCE)
            manager.end()
        assert service.returncode == 0
        daemon.wait_for_counts(opens=0, processes=0, threads=0, parked=0, pages=0, buffers=0)


@needs_cuse
@pytest.mark.parametrize("passthrough", ["auto", "off"])
def test_auto_takes_files(tmp_path: Path, passthrough: str) -> None:
    with devices(tmp_path, "--device=binder", "--passthrough", passthrough, transport="auto"):
        assert stat.S_ISREG((tmp_path / "mount" / "binder").stat().st_mode)
        assert not NODES.exists()


@pytest.mark.skipif(os.path.exists("/dev/cuse") or os.geteuid() != 0, reason="needs no /dev/cuse")
@pytest.mark.parametrize("transport", ["cuse", "both"])
def test_without_cuse_it_says_what_to_do(tmp_path: Path, transport: str) -> None:
    daemon = Daemon(tmp_path / "mount", "--transport", transport)
    assert daemon.process.wait(PATIENCE) == 1
    assert "modprobe cuse" in daemon.expect("binderd:")
    daemon.clean_up()
    assert not (tmp_path / "mount").exists()


@needs_fuse
def test_owner_and_mode_of_files(tmp_path: Path) -> None:
    access = ("--mode", "0600", "--owner", "12", "--group", "34")
    with running(tmp_path / "mount", "--transport=fuse", *access):
        status = (tmp_path / "mount" / "binder").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, 12, 34)
