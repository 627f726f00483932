# SPDX-License-Identifier: Apache-2.0
"""The daemon's coming and going on the real /dev/fuse: mounting, refusing, leaving nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from binderd.channel.errors import StartError
from binderd.channel.fuse_mount import FSTYPE, FuseMount
from binderd.channel.mounts import mount_at
from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from channel.helpers import SECONDS_MAX, Daemon, client, is_stale, needs_fuse, run_client, running
from support import ordinary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

FIXED = ["binder-control", "features", "binder_logs"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet; whatever is mounted there is gone afterwards."""
    place = tmp_path / "a b\\c"  # mountinfo escapes these
    yield place
    while mount_at(str(place)) is not None:
        linux_mount.unmount(str(place), linux_mount.MNT_DETACH)


def test_a_daemon_comes_and_goes(place: Path, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        ExitStack() as stack,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS_MAX)
        daemon = Daemon(place, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        stack.callback(daemon.clean_up)
        assert daemon.expect("ready:").endswith("/{binder,hwbinder,vndbinder}")
        assert manager.recv(999).splitlines()[0] == b"READY=1"
        entry = mount_at(str(place))
        assert entry is not None
        assert entry.fstype == FSTYPE
        assert sorted(os.listdir(place)) == sorted(["binder", "hwbinder", "vndbinder", *FIXED])
        assert not any(daemon.counts().values())
        assert daemon.end() == 0
        assert manager.recv(999) == b"STOPPING=1"
    assert not place.exists(), "the daemon had made it"
    assert mount_at(str(place)) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_directory_that_was_there_stays(place: Path, number: int) -> None:
    place.mkdir()
    with running(place, "--device", "one") as daemon:
        assert os.listdir(place) == [*FIXED, "one"]
        assert daemon.end(number) == 0
    assert list(place.iterdir()) == []


def test_the_end_comes_while_clients_are_blocked(place: Path) -> None:
    code = "device = Device(DIR + '/binder'); device.write_read(b'', 256); say('up')\n"
    with running(place) as daemon, client(place, code + "device.write_read(b'', 256)") as blocked:
        assert blocked.line() == "up"
        daemon.wait_for_counts(parked=1)
        assert daemon.end() == 0
        assert blocked.process.wait(SECONDS_MAX) != 0
    assert not place.exists()


def test_a_second_daemon_is_refused(place: Path) -> None:
    with running(place) as first:
        second = Daemon(place)
        assert "another binderd serves" in second.expect("binderd:")
        assert second.process.wait(SECONDS_MAX) == 1
        second.clean_up()
        assert "binder" in os.listdir(place), "the first one goes on"
        assert first.end() == 0
    assert not place.exists()


def test_what_a_dead_daemon_left_is_removed(place: Path) -> None:
    with running(place) as first:
        first.end(signal.SIGKILL)
        assert is_stale(place)
        with running(place) as second:
            assert run_client(place, "say(Device(DIR + '/binder').version())") == ["8"]
            assert second.end() == 0
    assert mount_at(str(place)) is None
    assert not place.exists(), "the first one had made it"


def test_of_several_at_once_one_wins(place: Path) -> None:
    for _ in range(2):  # the second time over a stale mount
        daemons = [Daemon(place) for _ in range(4)]
        try:
            winners = [daemon for daemon in daemons if "ready" in daemon.expect("binderd: ")]
            assert len(winners) == 1
            for daemon in daemons:
                if daemon is not winners[0]:
                    assert daemon.process.wait(SECONDS_MAX) == 1
            assert "binder" in os.listdir(place)
            winners[0].end(signal.SIGKILL)
        finally:
            for daemon in daemons:
                if daemon.process.poll() is None:
                    daemon.process.kill()
                daemon.process.wait(SECONDS_MAX)
                if daemon.process.stderr is not None:
                    daemon.process.stderr.close()
    assert is_stale(place)


def test_an_unmount_by_somebody_else_is_the_end(place: Path) -> None:
    with running(place) as daemon:
        for name in ("features", "binder_logs"):  # as umount --recursive does
            linux_mount.unmount(str(place / name), 0)
        daemon.expect("not shown any more")
        linux_mount.unmount(str(place), 0)
        daemon.expect("was unmounted by somebody else")
        assert daemon.process.wait(SECONDS_MAX) == 3
    assert not place.exists()


def test_a_foreign_mount_on_top_is_left_alone(place: Path) -> None:
    with running(place) as daemon:
        linux_mount.mount("tmpfs", str(place), "tmpfs", 0, "")
        assert daemon.end() == 0
        daemon.expect("is mounted over")
    entry = mount_at(str(place))
    assert entry is not None
    assert entry.fstype == "tmpfs"


def test_a_kernel_of_another_protocol_gets_a_clear_error(place: Path) -> None:
    code = (
        "import sys; from binderd import service, config; from binderd.fuse import session\n"
        "session.abi.FUSE_KERNEL_VERSION += 1\n"  # which no kernel speaks yet
        f"sys.exit(service.main(config.Settings({str(place)!r}), config.load))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ""},  # where it is compiled the number is in the code
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "this kernel's FUSE is of protocol 7" in done.stderr
    assert not place.exists()


# What is refused, in this process: nothing is served


def refusal(place: Path) -> str:
    with pytest.raises(StartError) as caught:
        FuseMount.at(str(place))
    return str(caught.value)


def test_places_that_are_refused(place: Path) -> None:
    place.mkdir()
    (place / "file").touch()
    assert "is not empty" in refusal(place)
    assert "is not a directory" in refusal(place / "file")
    assert "cannot reach" in refusal(place / "missing" / "directory")
    (place / "file").unlink()
    (place / "link").symlink_to(place)
    assert "is not a directory" in refusal(place / "link")
    (place / "link").unlink()
    linux_mount.mount("tmpfs", str(place), "tmpfs", 0, "")
    assert "is a mount point already (tmpfs)" in refusal(place)
    assert list(place.parent.iterdir()) == [place], "nothing was made on the way"


@pytest.mark.parametrize("directory", ["/", "..", "/tmp/.."])
def test_places_without_a_name(directory: str) -> None:
    with pytest.raises(StartError, match="name a directory of its own"):
        FuseMount.at(directory)


def test_a_mount_that_is_given_up_before_it_is_served(place: Path) -> None:
    mount = FuseMount.at(str(place))
    entry = mount_at(str(place))
    assert entry is not None
    assert entry.device == mount.device
    mount.unmount()
    mount.unmount()
    os.close(mount.fd)
    assert not place.exists()


def test_an_ordinary_user_in_roots_directory(place: Path) -> None:
    with ordinary.stage() as stage:
        done = subprocess.run(
            [*stage.words(), sys.executable, "-m", "binderd", "--mount", str(place)],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "name another directory with --mount" in done.stderr


def test_a_path_with_a_carriage_return_is_one_line_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "a\rb\x0b\u2028"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    try:
        assert [mount.fstype for mount in read_mounts() if mount.path == str(path)] == ["tmpfs"]
    finally:
        subprocess.run(["umount", path], check=True)
