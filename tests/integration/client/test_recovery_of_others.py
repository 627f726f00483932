# SPDX-License-Identifier: Apache-2.0
"""docs/RECOVERY.md, tried: what a program in any language sees, the recipe in C, containers."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.blocking import Device
from binderclient.parcel import Parcel
from binderwire.binder_abi import BINDER_VERSION
from client.drivers import PATIENCE, MountedDaemon, missing_capability
from client.programs import compiled
from client.recovery_world import (
    ECHO,
    EchoService,
    World,
    errno_of,
    outcome_of,
    poll_until_an_error,
    read_until_it_fails,
    sleeps,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AREA: Final = 1 << 20
PAGE: Final = 4096


# What any program sees


@pytest.mark.parametrize(
    ("how", "path"), [("SIGKILL", "ENOTCONN"), ("SIGTERM", "ENOENT"), ("abort", "ENOENT")]
)
def test_what_any_program_sees(world: World, how: str, path: str) -> None:
    reading, polling = (os.open(world.path, os.O_RDWR | os.O_CLOEXEC) for _ in range(2))
    area = mmap.mmap(reading, AREA, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    in_flight, read = outcome_of(lambda: read_until_it_fails(reading))
    waiting, polled = outcome_of(lambda: poll_until_an_error(polling))
    eventually(lambda: sleeps(in_flight.native_id) and sleeps(waiting.native_id))
    world.end(how)
    in_flight.join(PATIENCE)
    waiting.join(PATIENCE)
    assert isinstance(read[0], OSError)
    assert read[0].errno == errno.ECONNABORTED
    assert polled == [select.POLLERR]
    assert poll_until_an_error(reading) == select.POLLERR
    version = bytearray(4)
    assert errno_of(lambda: fcntl.ioctl(reading, BINDER_VERSION, version)) == "ENOTCONN"
    assert area[0] == area[AREA - PAGE] == 0
    assert errno_of(lambda: os.open(world.path, os.O_RDWR)) == path
    assert errno_of(lambda: os.listdir(world.path.parent)) == path
    area.close()
    assert errno_of(lambda: os.close(polling)) == "ENOTCONN"
    assert errno_of(lambda: os.fstat(polling)) == "EBADF"  # it is closed nevertheless
    world.daemon.start()
    assert errno_of(lambda: fcntl.ioctl(reading, BINDER_VERSION, version)) == "ENOTCONN"
    assert errno_of(lambda: os.close(reading)) == "ENOTCONN"
    new = os.open(world.path, os.O_RDWR)
    fcntl.ioctl(new, BINDER_VERSION, version)
    os.close(new)


class PlainEcho(EchoService):
    descriptor = ""

    def on_transact(self, code: int, data: Parcel, reply: Parcel, flags: int) -> None:
        assert code == ECHO
        reply.append(Parcel(bytes(data)))


def test_the_recipe_in_c(world: World, tmp_path: Path) -> None:
    program = compiled("lasting_client", tmp_path)
    client = subprocess.Popen(
        [program, world.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with client, Device(world.path, reconnect=True) as server:
        server.become_context_manager(PlainEcho())
        server.start_thread_pool()
        for number, how in enumerate(["SIGKILL", "SIGTERM", "SIGKILL"]):
            client.stdin.write(f"line {number}\n")
            assert client.stdout.readline() == f"line {number}\n"
            world.restart(how)
        world.end("SIGKILL")
        client.stdin.write("while it is away\n")
        world.daemon.start()
        assert client.stdout.readline() == "while it is away\n"
        client.stdin.close()
        assert client.wait(PATIENCE) == 0


# Containers: who has the mount in another mount namespace


TRY_IT: Final = """
import errno, os, sys
try:
    os.close(os.open(sys.argv[1], os.O_RDWR))
    print("works")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


# Runs alone, as a thread cannot change to another mount namespace.
MOVE_MOUNT: Final = """
import ctypes, os, sys
source, pid, target = map(os.fsencode, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
OPEN_TREE, MOVE_MOUNT, HERE = 428, 429, -100
CLONE_RECURSIVELY, CLONE_NEWNS, EMPTY_PATH = 1 | 0x8000, 0x20000, 4
def check(result):
    if result < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return result
tree = check(libc.syscall(OPEN_TREE, HERE, source, CLONE_RECURSIVELY))
namespace = os.open(b"/proc/%s/ns/mnt" % pid, os.O_RDONLY)
check(libc.setns(namespace, CLONE_NEWNS))
check(libc.syscall(MOVE_MOUNT, tree, b"", HERE, target, EMPTY_PATH))
"""


class Container:
    """A process with a mount namespace of its own.

    Args:
        source: what is bound recursively.
        target: where to.
        propagation: of the bind mount, a word of mount(8).
    """

    def __init__(self, source: Path, target: Path, propagation: str) -> None:
        # Standard input keeps it; the mounts end with it.
        script = 'mount --rbind "$1" "$2" && mount --make-r"$3" "$2" && echo ready && cat'
        command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"]
        self._process = subprocess.Popen(
            [*command, source, target, propagation],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, *command: object) -> str:
        enter = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]
        words = [*enter, *map(str, command)]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def receive(self, source: Path, target: Path) -> None:
        """Get a copy of a mount of ours."""
        arguments = map(str, (source, self._process.pid, target))
        subprocess.run([sys.executable, "-c", MOVE_MOUNT, *arguments], check=True)

    def sees(self, path: Path) -> str:
        return self.run(sys.executable, "-c", TRY_IT, path)

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Host:
    """A file system that propagates mounts, as systemd makes / and /dev do."""

    def __init__(self, directory: Path) -> None:
        self.dev = directory / "dev"
        self.target = directory / "container"
        self.dev.mkdir()
        self.target.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", self.dev], check=True)
        subprocess.run(["mount", "--make-shared", self.dev], check=True)
        self.daemon = MountedDaemon(self.dev, 1)
        self.device = self.daemon.new_device().name

    @contextmanager
    def container(self, source: str, propagation: str) -> Iterator[tuple[Container, Path]]:
        container = Container(self.dev / source, self.target, propagation)
        try:
            yield container, self.target / ("" if source else "mount") / self.device
        finally:
            container.close()

    def restart(self, how: str) -> None:
        if how == "SIGTERM":
            self.daemon.process.terminate()
            self.daemon.process.wait(PATIENCE)
        else:
            self.daemon.kill()
        self.daemon.start()

    def close(self) -> None:
        self.daemon.clean_up()
        subprocess.run(["umount", "--lazy", self.dev], check=True)  # the log may be in use


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    missing = missing_capability()
    if missing is not None or shutil.which("nsenter") is None:
        pytest.skip(missing or "no nsenter")
    host = Host(tmp_path)
    try:
        yield host
    finally:
        host.close()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("propagation", ["shared", "slave"])
def test_a_container_with_the_directory_above_sees_the_new_mount(
    host: Host, propagation: str, how: str
) -> None:
    with host.container("", propagation) as (container, device):
        assert container.sees(device) == "works"
        host.restart(how)
        assert container.sees(device) == "works"


@pytest.mark.parametrize(
    ("source", "propagation", "error"),
    [
        # The daemon has replaced the directory, and with that one the dead mount went everywhere.
        ("", "private", "ENOENT"),
        ("mount", "slave", "ENOTCONN"),
        ("mount", "private", "ENOTCONN"),
    ],
)
def test_a_container_that_is_not_told_of_mounts_has_none_until_it_is_given_one(
    host: Host, source: str, propagation: str, error: str
) -> None:
    with host.container(source, propagation) as (container, device):
        assert container.sees(device) == "works"
        host.restart("SIGKILL")
        assert container.sees(device) == error
        if error == "ENOTCONN":
            container.run("umount", "--lazy", device.parent)
        container.receive(host.dev / "mount", device.parent)
        assert container.sees(device) == "works"


def test_a_container_that_can_reach_the_directory_binds_again_by_itself(host: Host) -> None:
    with host.container("mount", "private") as (container, device):
        host.restart("SIGKILL")
        assert container.sees(device) == "ENOTCONN"
        container.run("umount", "--lazy", device.parent)
        # Its namespace began as a copy of ours, and it still has that: the old mount, privately.
        assert container.sees(host.dev / "mount" / host.device) == "works"
        container.run("mount", "--rbind", host.dev / "mount", device.parent)
        assert container.sees(device) == "works"
