# SPDX-License-Identifier: Apache-2.0
"""Who may open a device, become its context manager, freeze: what an administrator can settle."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from channel.helpers import client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse

ALICE, MALLORY, FRIENDS = 4001, 4002, 4100
EVERYBODY = f"[(0, 0), ({ALICE}, {ALICE}), ({MALLORY}, {MALLORY}), ({MALLORY}, {FRIENDS})]"

# What happens to each of some (user, supplementary group) that tries something.
TRY = """
def attempt(uid, gid, action, *arguments):
    reads, writes = os.pipe()
    if not os.fork():
        os.setgroups([gid])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.write(writes, outcome(action, *arguments).encode())
        os._exit(0)
    os.close(writes)
    os.wait()
    return os.read(reads, 99).decode()

def become_manager(name):
    Device(DIR + '/' + name).ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
"""
OPEN = f"{TRY}\nfor who in {EVERYBODY}: say(attempt(*who, Device, DIR + '/' + NAME))\n"
MANAGE = f"{TRY}\nfor who in {EVERYBODY}: say(attempt(*who, become_manager, NAME))\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(parent, 0o755)
    return tmp_path / "mount"


def outcomes(place: Path, code: str, device: str) -> list[str]:
    return run_client(place, f"NAME = {device!r}\n{code}")


def test_lists_of_users_and_groups_say_who_may_open(place: Path) -> None:
    arguments = ("--device=hers", "--device=theirs", "--device=nobodys", "--device=all")
    lists = (
        f"--allow-user=hers={ALICE}",
        f"--allow-group=theirs={FRIENDS}",
        "--allow-user=nobodys=no-such-user",
    )
    with running(place, *arguments, *lists) as daemon:
        assert outcomes(place, OPEN, "hers") == ["ok", "ok", "EACCES", "EACCES"]
        assert outcomes(place, OPEN, "theirs") == ["ok", "EACCES", "EACCES", "ok"]
        assert outcomes(place, OPEN, "nobodys") == ["ok", "EACCES", "EACCES", "EACCES"]
        assert outcomes(place, OPEN, "all") == ["ok"] * 4
        said = "allow-users nobodys=no-such-user: no-such-user is nobody on this machine"
        assert said in daemon.said.decode()
        assert daemon.end() == 0


def test_a_list_stays_with_its_device_and_holds_for_what_is_added(place: Path) -> None:
    add = (
        "fd = os.open(DIR + '/binder-control', os.O_RDONLY)\n"
        "fcntl.ioctl(fd, abi.BINDER_CTL_ADD, bytearray(abi.binderfs_device.build(name=b'added')))\n"
        "os.chmod(DIR + '/added', 0o666)\n"
        "os.rename(DIR + '/binder', DIR + '/renamed')\n"
    )
    lists = (f"--allow-user={ALICE}", f"--allow-user=added={MALLORY}")
    with running(place, "--device=binder", *lists) as daemon:
        run_client(place, add)
        assert outcomes(place, OPEN, "added") == ["ok", "EACCES", "ok", "ok"]
        assert outcomes(place, OPEN, "renamed") == ["ok", "ok", "EACCES", "EACCES"]
        assert daemon.end() == 0


def test_only_who_is_named_becomes_manager(place: Path) -> None:
    lists = (f"--manager-uid={ALICE}", "--manager-uid=roots=root", f"--manager-uid=roots={MALLORY}")
    with running(place, "--device=hers", "--device=roots", *lists) as daemon:
        assert outcomes(place, MANAGE, "hers") == ["EPERM", "ok", "EPERM", "EPERM"]
        assert outcomes(place, MANAGE, "roots") == ["ok", "EPERM", "ok", "ok"]
        assert daemon.end() == 0


def test_without_a_list_the_first_manager_s_user_is_the_manager(place: Path) -> None:
    with running(place, "--device=binder") as daemon:
        assert outcomes(place, MANAGE, "binder") == ["ok", "EPERM", "EPERM", "EPERM"]
        assert daemon.end() == 0


def test_a_reload_settles_it_anew_for_files_that_are_open_as_well(place: Path) -> None:
    file = place.parent / "config"
    devices = 'devices = ["binder"]\n'
    file.write_text(f'{devices}allow-users = ["{MALLORY}"]\nmanager-uid = ["root"]\n')
    code = (
        f"os.setresuid({MALLORY}, {MALLORY}, {MALLORY})\n"
        "device = Device(DIR + '/binder')\n"
        "manage = lambda: device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))\n"
        "say(outcome(manage))\n"
        "wait_for_line()\n"
        "say(outcome(Device, DIR + '/binder'), device.version(), outcome(manage))\n"
    )
    with running(place, "--config", str(file)) as daemon, client(place, code) as mallory:
        assert mallory.line() == "EPERM"
        file.write_text(f'{devices}allow-users = ["{ALICE}"]\nmanager-uid = ["{MALLORY}"]\n')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.expect("SIGHUP: a new manager_uid, allow_users")
        mallory.tell()
        assert mallory.line() == "EACCES 8 ok"
        assert daemon.end() == 0


FREEZE = f"""{TRY}
device = Device(DIR + '/binder')
end, parent = os.pipe()
def own(uid):
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(parent)
        os.setresuid(uid, uid, uid)
        mine = Device(DIR + '/binder')
        os.write(writes, b'.')
        os.read(end, 1)
        os._exit(0)
    os.read(reads, 1)
    return child
hers = own({ALICE})
def freeze(pid):
    one = Device(DIR + '/binder')
    for frozen in (1, 0):
        one.ioctl(abi.BINDER_FREEZE, abi.binder_freeze_info.pack(pid, frozen, 0))
for uid in (0, {ALICE}, {MALLORY}):
    reads, writes = os.pipe()
    if not os.fork():
        os.setresuid(uid, uid, uid)
        os.write(writes, outcome(freeze, hers).encode())
        os._exit(0)
    say(os.read(reads, 99).decode())
"""


@pytest.mark.parametrize(("which", "mallory"), [("any", "ok"), ("own", "EPERM")])
def test_freezing_others_can_be_forbidden(place: Path, which: str, mallory: str) -> None:
    with running(place, "--device=binder", "--freeze", which) as daemon:
        assert run_client(place, FREEZE) == ["ok", "ok", mallory]
        assert daemon.end() == 0
