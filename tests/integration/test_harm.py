# SPDX-License-Identifier: Apache-2.0
"""Nobody loses anything through us: what the daemon and the demo remove is theirs, and dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.demo.daemon import why_not
from binderd.channel.fuse_mount import (
    FSTYPE,
    Root,
    _Claim,
    detach,
    mount_options,
    open_device,
)
from binderd.channel.mounts import hold, mount_at
from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from channel.helpers import Daemon, is_stale, needs_fuse, running
from channel.namespaces import binderd, command, line_with, ready, run, started
from support import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_fuse

PATIENCE: Final = 60.0
DEMO: Final = [sys.executable, "-m", "binderclient.demo"]
REFUSAL: Final = "is a mount point already"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory; what a test has mounted below it is gone afterwards."""
    place = tmp_path / "place"
    place.mkdir()
    yield place
    while mounts := [entry.path for entry in read_mounts() if entry.path.startswith(f"{place}/")]:
        linux_mount.unmount(mounts[0], linux_mount.MNT_DETACH)  # and what is inside


@pytest.fixture
def tmpfs(place: Path) -> Path:
    """Somebody else's file system, with a file in it."""
    mount = place / "m"
    mount.mkdir()
    linux_mount.mount("tmpfs", str(mount), "tmpfs", 0, "")
    (mount / "file").touch()
    return mount


@contextmanager
def silent_mount(path: Path) -> Iterator[None]:
    """A file system of our type whose server lives and never answers."""
    path.mkdir()
    fd = open_device()
    try:
        linux_mount.mount("somebody", str(path), FSTYPE, 0, mount_options(fd))
        yield
    finally:
        os.close(fd)


def refused(path: Path) -> str:
    daemon = Daemon(path)
    try:
        assert daemon.process.wait(PATIENCE) == 1
        return daemon.expect("binderd:")
    finally:
        daemon.clean_up()


def end_demo(demo: subprocess.Popen[str], number: int) -> tuple[int, str]:
    demo.send_signal(number)
    _, text = demo.communicate(timeout=PATIENCE)
    return demo.returncode, text


def abort(path: Path) -> None:
    """Abort the connection of what is mounted there, as an administrator can."""
    entry = mount_at(str(path))
    assert entry is not None
    connections.abort(entry.device[1])


def daemon_of(demo: subprocess.Popen[str]) -> int:
    """Return the process id of a demo's daemon."""
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    for child in children:
        if b"\0binderd\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("the demo has no daemon")


# The daemon, when it starts


@pytest.mark.parametrize("how", ["--bind", "--rbind"])
def test_a_living_mount_that_is_bound_here_stays(place: Path, how: str) -> None:
    (place / "b").mkdir()
    with running(place / "a") as first:
        subprocess.run(["mount", how, place / "a", place / "b"], check=True)
        assert f"{REFUSAL} ({FSTYPE})" in refused(place / "b")
        assert "binder" in os.listdir(place / "b")
        subprocess.run(["umount", "--recursive", place / "b"], check=True)
        assert first.end() == 0


def test_a_mount_of_our_type_that_never_answers_stays(place: Path) -> None:
    with silent_mount(place / "m"):
        assert f"{REFUSAL} ({FSTYPE})" in refused(place / "m")
        assert mount_at(str(place / "m")) is not None
    with running(place / "m") as daemon:  # nobody serves it any more: now it goes
        assert daemon.end() == 0
    assert mount_at(str(place / "m")) is None


def test_what_lies_over_a_dead_mount_stays(place: Path) -> None:
    with running(place / "m") as daemon, hold(str(place / "m")) as dead:
        assert dead is not None
        daemon.end(signal.SIGKILL)
        assert dead.is_dead()
        linux_mount.mount("tmpfs", str(place / "m"), "tmpfs", 0, "")
        assert not dead.unmount(detach)
    assert f"{REFUSAL} (tmpfs)" in refused(place / "m")
    entry = mount_at(str(place / "m"))
    assert entry is not None
    assert entry.fstype == "tmpfs"


def test_a_dead_mount_beneath_another_dev(place: Path, tmp_path: Path) -> None:
    """mountinfo still lists what a later /dev hides; nothing is mounted there, or can be undone."""
    stage = tmp_path / "stage"
    stage.mkdir()
    start = " ".join(map(str, binderd("--mount", "/dev/b", "--transport=fuse")))
    before = (
        f"{start} 2>{place}/log & pid=$!; {ready(f'{place}/log')}; "
        f"kill -9 $pid; wait $pid || true; mkdir {place}/dev; mount -t tmpfs x {place}/dev; "
        f"cp -a /dev/null /dev/fuse {place}/dev/; mount --move {place}/dev /dev; "
        "grep -q ' /dev/b ' /proc/self/mountinfo"
    )
    words = binderd("--mount", "/dev/b", "--transport=fuse")
    with started(command(stage, ("fuse",), before, *words)) as daemon:
        line_with(daemon, "ready:")
        daemon.terminate()
        assert daemon.wait(PATIENCE) == 0
    (place / "log").unlink()


# The daemon, when it ends


def test_a_directory_that_somebody_else_has_made_anew_stays(place: Path) -> None:
    root = Root()
    claim = _Claim.of(str(place / "m"), root)
    root.close()
    os.rmdir(place / "m")
    os.mkdir(place / "m")
    claim.give_up()
    assert os.listdir(place) == ["m"]


def test_a_forced_unmount_is_a_failure(place: Path) -> None:
    with running(place / "m") as daemon:
        subprocess.run(["umount", "--force", "--lazy", place / "m"], check=True)
        line = daemon.expect("by somebody else")
        assert "was unmounted" in line or "was aborted" in line  # the one, and then the other
        assert daemon.process.wait(PATIENCE) == 3


def test_a_lazy_unmount_ends_it_with_its_last_user(place: Path) -> None:
    with running(place / "m", "--device=binder") as daemon:
        user = os.open(place / "m" / "binder", os.O_RDWR)
        linux_mount.unmount(str(place / "m"), linux_mount.MNT_DETACH)
        assert daemon.counts()["opens"] == 1
        os.close(user)
        daemon.expect("was unmounted by somebody else")
        assert daemon.process.wait(PATIENCE) == 3


def test_the_end_says_that_the_connection_was_aborted(place: Path) -> None:
    with running(place / "m") as daemon:
        abort(place / "m")
        daemon.expect("lost its connection, which was aborted by somebody else")
        assert daemon.process.wait(PATIENCE) == 3
    assert os.listdir(place) == []


def test_a_mount_that_was_moved_is_ours_still(place: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    script = (
        f"mount -t tmpfs x {place}; {' '.join(binderd('--mount', f'{place}/a'))} 2>{stage}/log & "
        f"pid=$!; {ready(f'{stage}/log')}; mkdir {place}/b; "
        f"mount --move {place}/a {place}/b; kill $pid; wait $pid; status=$?; cat {stage}/log; "
        f"grep {place}/ /proc/self/mountinfo; exit $status"
    )
    status, text = run(["unshare", "--mount", "sh", "-c", script])
    assert status == 0, text
    assert " - fuse" not in text
    assert "by hand" not in text


def test_what_goes_along_is_named(place: Path) -> None:
    with running(place / "m", "--device", "binder") as daemon:
        subprocess.run(["mount", "--bind", "/dev/null", place / "m" / "binder"], check=True)
        assert daemon.end() == 0
        assert daemon.expect("went along").endswith(f": {place}/m/binder")


# The demo


def needs_demo() -> None:
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


@pytest.mark.parametrize("arguments", [["--serve"], ["--seconds=1"]])
def test_the_demo_leaves_a_foreign_mount(tmpfs: Path, arguments: list[str]) -> None:
    needs_demo()
    status, text = run([*DEMO, *arguments, "--mount", str(tmpfs)])
    assert (status, text.count("\n")) == (1, 1), text
    assert f"{REFUSAL} (tmpfs): unmount it, or name another" in text
    assert os.listdir(tmpfs) == ["file"]


@pytest.mark.parametrize("arguments", [["--serve"], ["--seconds=1"]])
def test_the_demo_leaves_a_running_daemon(place: Path, arguments: list[str]) -> None:
    needs_demo()
    with running(place / "m") as first:
        before = mount_at(str(place / "m"))
        status, text = run([*DEMO, *arguments, "--mount", str(place / "m")])
        assert (status, text.count("\n")) == (1, 1), text
        assert "another binderd serves" in text
        assert mount_at(str(place / "m")) == before
        assert "binder" in os.listdir(place / "m")
        assert first.end() == 0


def test_the_demo_takes_away_what_its_dead_daemon_left(place: Path) -> None:
    needs_demo()
    with started([*DEMO, "--serve", "--mount", str(place / "m")]) as demo:
        line_with(demo, "is there, with a service manager")
        os.kill(daemon_of(demo), signal.SIGKILL)
        _, text = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 1, text
    assert "Traceback" not in text
    assert mount_at(str(place / "m")) is None


def test_the_demo_leaves_what_was_mounted_over_its_own(place: Path) -> None:
    needs_demo()
    with started([*DEMO, "--serve", "--mount", str(place / "m")]) as demo:
        line_with(demo, "is there, with a service manager")
        linux_mount.mount("tmpfs", str(place / "m"), "tmpfs", 0, "")
        os.kill(daemon_of(demo), signal.SIGKILL)
        _, text = demo.communicate(timeout=PATIENCE)
    assert "Traceback" not in text
    entry = mount_at(str(place / "m"))
    assert entry is not None
    assert entry.fstype == "tmpfs"
    linux_mount.unmount(entry.path, 0)
    assert is_stale(place / "m")


def test_the_demo_says_when_its_mount_was_taken_away(place: Path) -> None:
    needs_demo()
    with started([*DEMO, "--serve", "--mount", str(place / "m")]) as demo:
        line_with(demo, "is there, with a service manager")
        abort(place / "m")
        _, text = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 1, text
    assert "aborted by somebody else" in text
    assert "Traceback" not in text
    assert mount_at(str(place / "m")) is None
