# SPDX-License-Identifier: Apache-2.0
"""What a service manager and an administrator do with a running daemon: reload, links, watchdog."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from binderd.channel.pump import Pump
from binderd.fuse.directory import Directory
from binderd.links import Links
from channel.helpers import SECONDS_MAX, needs_fuse, run_client, running

if TYPE_CHECKING:
    from pathlib import Path

OPEN = "print(os.open(os.path.join(DIR, {name!r}), os.O_RDWR) > 0)"


@needs_fuse
def test_sighup_takes_over_what_can_change(tmp_path: Path) -> None:
    file, place, links = tmp_path / "config", tmp_path / "place", tmp_path / "links"
    links.mkdir()
    (links / "taken").write_text("somebody's")
    text = f'devices = ["a", "b"]\nsymlinks = "{links}"\n'
    file.write_text(text)
    with running(place, "--config", str(file)) as daemon:
        inherited = os.open(place / "b", os.O_RDWR)
        assert sorted(os.listdir(links)) == ["a", "b", "taken"]
        assert os.readlink(links / "a") == f"{place}/a"

        file.write_text(text.replace('"b"', '"c", "taken"') + 'log-level = "debug"\nmode = "600"')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.expect("SIGHUP: " + f"{links}/taken is there already")
        daemon.expect("SIGHUP: a new devices, log_level")
        daemon.expect("SIGHUP: a new access needs a restart")
        assert sorted(set(os.listdir(place)) - {"binder-control", "features", "binder_logs"}) == [
            "a", "c", "taken",
        ]  # fmt: skip
        daemon.expect("READDIR")  # the level is debug now
        assert sorted(os.listdir(links)) == ["a", "c", "taken"]
        assert (links / "taken").read_text() == "somebody's"
        assert os.fstat(inherited).st_size > 0, "an open file of a device that is gone works on"
        os.close(inherited)

        file.write_text("nonsense = 1")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.expect(f"SIGHUP: all stays as it was: {file}:1: nonsense")
        assert run_client(place, OPEN.format(name="c")) == ["True"]

        file.write_text("[limits]\nopen-files = 1")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.expect("limits")
        assert run_client(
            place,
            "held = os.open(DIR + '/binder', os.O_RDWR)\n"
            "try:\n    os.open(DIR + '/binder', os.O_RDWR)\n"
            "except OSError as error:\n    print(error.strerror)",
        ) == ["Cannot allocate memory"]
        assert daemon.end() == 0
    assert os.listdir(links) == ["taken"]


@needs_fuse
def test_the_service_manager_hears_of_a_reload_and_of_served_requests(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS_MAX)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        with running(tmp_path / "place", environment=environment) as daemon:
            said = [manager.recv(999) for _ in range(5)]
            assert [line for line in said if line.startswith(b"READY=1")]
            assert said.count(b"WATCHDOG=1") >= 3
            daemon.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + SECONDS_MAX
            while not manager.recv(999).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
                assert time.monotonic() < deadline
            while not manager.recv(999).startswith(b"READY=1"):
                assert time.monotonic() < deadline
            assert daemon.end() == 0


class Channel:
    """A channel on which requests wait, or none."""

    def __init__(self) -> None:
        self.waits = False

    def is_waiting(self) -> bool:
        return self.waits


def test_a_loop_that_leaves_requests_waiting_is_not_alive() -> None:
    channel = Channel()
    pump = Pump(channel, None, None, print)  # type: ignore[arg-type]
    assert pump.is_alive()
    assert pump.is_alive(), "there is nothing to do"
    channel.waits = True
    assert not pump.is_alive()
    pump._rounds += 1
    assert pump.is_alive()
    assert not pump.is_alive()


def test_links_are_taken_over_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "left").symlink_to("/place/left")  # by a daemon that was killed
    (tmp_path / "other").symlink_to("/elsewhere")
    links = Links(str(tmp_path), "/place")
    assert links.update(["left", "new", "other"]) == [
        f"{tmp_path}/other is there already, so it is no link to /place/other"
    ]
    (tmp_path / "new").unlink()
    (tmp_path / "new").write_text("replaced meanwhile")
    links.close()
    assert sorted(os.listdir(tmp_path)) == ["new", "other"]
    assert Links("", "/place").update(["a"]) == []
    assert Links(str(tmp_path / "missing"), "/place").update(["a"]) == [
        f"cannot make the link {tmp_path}/missing/a (No such file or directory)"
    ]
    assert Links("/place", "/place").update(["a"]) == []


def test_which_devices_are_configured_can_change() -> None:
    gone: list[str] = []
    directory = Directory(["a", "b"], 4, gone.append)
    assert directory.add(b"added")[0] == 0
    assert directory.configure(["a", "b"], ["a", "added", "c", "d"], 4, (0o600, 1, 2)) == ["added"]
    assert gone == ["b"]
    device = directory.find(b"c")
    assert device is not None
    assert (device.mode, device.uid, device.gid) == (0o600, 1, 2)
    assert directory.configure(["a"], ["a", "e"], 4, (0o600, 0, 0)) == ["e"], "too many"
    assert directory.find(b"added") is not None
