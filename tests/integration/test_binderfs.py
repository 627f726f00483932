# SPDX-License-Identifier: Apache-2.0
"""The mount as the kernel's binderfs: devices that come and go, who may do what, one tree."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from contextlib import contextmanager
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOSPC, EPERM
from typing import TYPE_CHECKING

import pytest

from binderd.channel.fuse_mount import FSTYPE
from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from binderwire.binder_abi import BINDER_CTL_ADD, BINDER_VERSION, binderfs_device
from channel.helpers import SECONDS_MAX, Daemon, client, is_stale, needs_fuse, run_client, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

ANYBODY = 4321  # a user without privileges

MANAGER = """
device = Device(DIR + "/" + NAME)
device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
device.write_read(struct.pack("=I", abi.BC_ENTER_LOOPER))
say("up")
while True:
    returns = device.write_read(b"", 256)
    if struct.pack("=I", abi.BR_TRANSACTION) in returns:
        call = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
        data = peek(call.buffer, call.data_size)
        back = ctypes.create_string_buffer(data[::-1], len(data))
        body = abi.binder_transaction_data.build(data_size=len(data), buffer=ctypes.addressof(back))
        device.write_read(free_buffer(call.buffer) + struct.pack("=I", abi.BC_REPLY) + body)
"""
CALLER = """
def call(device, data):
    command, keep = transaction(0, data)
    returns = device.write_read(command, 256)
    while struct.pack("=I", abi.BR_REPLY) not in returns:
        returns = device.write_read(b"", 256)
    reply = find(returns, abi.BR_REPLY, abi.binder_transaction_data)
    said = peek(reply.buffer, reply.data_size)
    device.write_read(free_buffer(reply.buffer))
    return said.decode()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on, which anybody can reach; nothing is mounted there afterwards."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest", "test")):
            parent.chmod(0o755)
    yield tmp_path / "binderfs"
    left = mounts_below(tmp_path)
    while mounts_below(tmp_path):
        linux_mount.unmount(mounts_below(tmp_path)[0], linux_mount.MNT_DETACH)
    assert left == []


def mounts_below(directory: Path) -> list[str]:
    return [m.path for m in read_mounts() if m.path.startswith(str(directory))]


@contextmanager
def serving(place: Path, name: str) -> Iterator[None]:
    """A context manager of the device ``name``, which sends back what it gets, reversed."""
    with client(place, f"NAME = {name!r}\n{MANAGER}") as manager:
        assert manager.line() == "up"
        yield


def add(place: Path, name: bytes) -> tuple[int, tuple[bytes, int, int]]:
    """BINDER_CTL_ADD; return the errno and the argument as it comes back."""
    control = os.open(place / "binder-control", os.O_RDONLY | os.O_CLOEXEC)
    argument = bytearray(binderfs_device.pack(name, 77, 77))
    errno = 0
    try:
        fcntl.ioctl(control, BINDER_CTL_ADD, argument)
    except OSError as error:
        errno = error.errno or 0
    os.close(control)
    padded, major, minor = binderfs_device.unpack(argument)
    return errno, (padded.rstrip(b"\0"), major, minor)


def outcome_as(uid: int, code: str) -> str:
    """Return what a short program of another user prints."""
    command = ["setpriv", f"--reuid={uid}", "--clear-groups", "--inh-caps=-all", "sh", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    return done.stdout + done.stderr


def test_one_tree(place: Path) -> None:
    with running(place, "--device", "binder") as daemon:
        entries = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(place)}
        modes = {name: oct(entry.st_mode) for name, entry in entries.items()}
        assert modes == {
            "binder": "0o100666",
            "binder-control": "0o100600",
            "binder_logs": "0o40755",
            "features": "0o40755",
        }
        features = {path.name: path.read_text() for path in (place / "features").iterdir()}
        names = ("oneway_spam_detection", "extended_error", "freeze_notification")
        assert features == dict.fromkeys(names, "1\n")
        logs = {path.name: path for path in (place / "binder_logs").iterdir()}
        assert {name: oct(path.stat().st_mode) for name, path in logs.items()} == {
            "state": "0o100444",
            "stats": "0o100444",
            "transactions": "0o100444",
            "transaction_log": "0o100444",
            "failed_transaction_log": "0o100444",
            "proc": "0o40755",
        }
        assert os.statvfs(place / "features").f_namemax == 255
        listing = subprocess.run(["ls", "-lR", place], capture_output=True, text=True, check=True)
        assert listing.stderr == ""
        mounted = [m for m in read_mounts() if m.path.startswith(str(place))]
        assert {(m.path.removeprefix(str(place)), m.fstype) for m in mounted} == {
            ("", FSTYPE),
            ("/features", FSTYPE),
            ("/binder_logs", FSTYPE),
        }
        assert daemon.end() == 0


def test_a_device_is_added_and_used(place: Path) -> None:
    with running(place, "--device", "binder") as daemon:
        assert add(place, b"new") == (0, (b"new", 0, 2))
        assert oct((place / "new").stat().st_mode) == "0o100600"
        with serving(place, "new"):
            said = run_client(place, CALLER + "say(call(Device(DIR + '/new'), b'over there'))")
            assert said == ["ereht revo"]
            assert (place / "binder_logs/state").read_text().count("context new\n") == 1
        assert daemon.end() == 0


def test_a_name_breaks_no_line(place: Path) -> None:
    name = b"a\nproc 1\r\xff"
    with running(place, "--device", "binder") as daemon:
        assert add(place, name) == (0, (name, 0, 2))
        shown = "context a\\012proc 1\\015\\377\n"
        with open(os.fsencode(place) + b"/" + name, "rb+", buffering=0):
            with open(place / "binder_logs/state", newline="") as state:
                assert shown in state.read()
            with open(place / f"binder_logs/proc/{os.getpid()}", newline="") as process:
                assert shown in process.read()
        os.rename(os.fsencode(place) + b"/" + name, place / "plain")
        daemon.wait_for_counts(opens=0)
        assert daemon.end() == 0


def test_what_cannot_be_added(place: Path) -> None:
    with running(place, "--device", "binder", "--max-devices", "2") as daemon:
        assert add(place, b"binder") == (EEXIST, (b"binder", 0, 2))
        for name in (b"binder-control", b"features", b"binder_logs"):
            assert add(place, name)[0] == EEXIST
        for name in (b"", b".", b"..", b"a/b", b"/"):
            assert add(place, name)[0] == EACCES
        assert add(place, b"x" * 255)[0] == 0
        assert add(place, b"third") == (ENOSPC, (b"third", 77, 77))
        os.unlink(place / ("x" * 255))
        assert add(place, b"third") == (0, (b"third", 0, 2))
        assert max(os.listdir(place)) == "third"
        said = run_client(
            place,
            "fd = os.open(DIR + '/binder-control', os.O_RDWR)\n"
            "import fcntl\n"
            "for request, size in ((0xc0306201, 48), (0xc0046209, 4), (0x6203, 0), (0x6201, 0)):\n"
            "    say(outcome(fcntl.ioctl, fd, request, bytearray(size)))\n"
            f"say(outcome(fcntl.ioctl, fd, {BINDER_CTL_ADD:#x}, 16))\n"
            "say(outcome(os.read, fd, 8), outcome(os.lseek, fd, 0, os.SEEK_SET))\n"
            "import select; p = select.poll(); p.register(fd, 5); say(p.poll(0)[0][1])\n",
        )
        errno = {EINVAL: "EINVAL", EFAULT: "EFAULT"}
        assert said == [*[errno[EINVAL]] * 4, errno[EFAULT], "EINVAL ESPIPE", "5"]
        assert daemon.end() == 0


def test_only_root_may_change_anything(place: Path) -> None:
    with running(place, "--device", "binder") as daemon:
        assert add(place, b"new")[0] == 0
        denied = "Permission denied"
        assert denied in outcome_as(ANYBODY, f": <>{place}/binder-control")
        assert denied in outcome_as(ANYBODY, f": <>{place}/new")
        assert denied in outcome_as(ANYBODY, f"rm -f {place}/new")
        assert denied in outcome_as(ANYBODY, f"mv {place}/new {place}/old")
        assert "not permitted" in outcome_as(ANYBODY, f"chmod 666 {place}/new")
        opened = f": <>{place}/binder && cat {place}/features/extended_error && echo opened"
        assert outcome_as(ANYBODY, opened) == "1\nopened\n"
        os.chmod(place / "new", 0o660)
        os.chown(place / "new", 0, ANYBODY)
        shown = (place / "new").stat()
        assert (oct(shown.st_mode), shown.st_uid, shown.st_gid) == ("0o100660", 0, ANYBODY)
        assert denied in outcome_as(ANYBODY, f": <>{place}/new")
        os.chown(place / "new", ANYBODY, 0)
        assert outcome_as(ANYBODY, f": <>{place}/new && echo opened") == "opened\n"
        assert daemon.end() == 0


def test_an_unlinked_device_works_on_for_whoever_has_it(place: Path) -> None:
    code = CALLER + (
        "device = Device(DIR + '/binder'); say(call(device, b'before'))\n"
        "wait_for_line(); say(call(device, b'after'), os.fstat(device.fd).st_nlink)\n"
        "say(outcome(os.open, DIR + '/binder', os.O_RDWR)); wait_for_line()\n"
    )
    with running(place, "--device", "binder") as daemon:
        with serving(place, "binder"), client(place, code) as caller:
            assert caller.line() == "erofeb"
            os.unlink(place / "binder")
            assert not (place / "binder").exists()
            caller.tell()
            assert [caller.line(), caller.line()] == ["retfa 0", "ENOENT"]
            assert add(place, b"binder")[0] == 0
            with serving(place, "binder"):  # a new device has a new context
                said = run_client(place, CALLER + "say(call(Device(DIR + '/binder'), b'new'))")
                assert said == ["wen"]
                state = (place / "binder_logs/state").read_text()
                assert state.count("context binder\n") == 2
                assert state.count("context binder#2\n") == 1
        daemon.wait_for_counts(opens=0)
        with pytest.raises(PermissionError) as caught:
            os.unlink(place / "binder-control")
        assert caught.value.errno == EPERM
        assert daemon.end() == 0


def test_a_renamed_device_stays_what_it_is(place: Path) -> None:
    with running(place, "--device", "a", "--device", "b") as daemon:
        with serving(place, "a"):
            os.rename(place / "a", place / "c")
            said = run_client(place, CALLER + "say(call(Device(DIR + '/c'), b'renamed'))")
            assert said == ["demaner"]
            os.rename(place / "c", place / "b")  # in the place of another
            said = run_client(place, CALLER + "say(call(Device(DIR + '/b'), b'moved'))")
            assert said == ["devom"]
        assert sorted(os.listdir(place)) == ["b", "binder-control", "binder_logs", "features"]
        for name in ("binder-control", "features", "binder_logs"):
            with pytest.raises(OSError, match=r"not permitted|busy"):
                os.rename(place / name, place / "x")
        with pytest.raises(OSError, match="cross-device"):
            os.rename(place / "b", place / "binder_logs" / "b")
        assert daemon.end() == 0


def test_a_crash_leaves_nothing_that_a_second_start_does_not_remove(place: Path) -> None:
    with running(place, "--device", "binder") as first:
        first.end(signal.SIGKILL)
        assert is_stale(place)
        assert len(mounts_below(place)) == 3
        with running(place, "--device", "binder") as second:
            assert len(mounts_below(place)) == 3
            assert (place / "features/extended_error").read_text() == "1\n"
            with (place / "binder").open("rb") as device:
                fcntl.ioctl(device, BINDER_VERSION, bytearray(4))
            assert second.end() == 0


def test_a_recursive_unmount_is_the_end(place: Path) -> None:
    with running(place) as daemon:
        with pytest.raises(OSError, match="busy"):
            linux_mount.unmount(str(place), 0)
        subprocess.run(["umount", "--recursive", place], check=True)
        daemon.expect("was unmounted by somebody else")
        assert daemon.process.wait(SECONDS_MAX) == 3


def test_the_devices_outlive_the_logs(place: Path) -> None:
    with running(place) as daemon:
        for name in ("features", "binder_logs"):
            linux_mount.unmount(str(place / name), 0)
        daemon.expect("not shown any more")
        assert os.listdir(place / "features") == []
        with (place / "binder").open("rb") as device:
            fcntl.ioctl(device, BINDER_VERSION, bytearray(4))
        assert daemon.end() == 0


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]])
def test_told_to_end_before_it_is_ready(place: Path, signals: list[int]) -> None:
    for delay in range(4):
        daemon = Daemon(place)
        try:
            for _ in range(delay * 3):
                if mounts_below(place):
                    break
                os.sched_yield()
            while not mounts_below(place) and daemon.process.poll() is None:
                os.sched_yield()
            for number in signals:
                daemon.process.send_signal(number)
            assert daemon.process.wait(SECONDS_MAX) == 0
        finally:
            daemon.clean_up()
        assert mounts_below(place) == []
