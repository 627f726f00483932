# SPDX-License-Identifier: Apache-2.0
"""Nobody appears as somebody else because a process' number, or its user, has changed hands.

A number is given out again on purpose here (clone3 with set_tid), to a program of another user.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from binderwire import binder_abi as abi
from channel.helpers import client, needs_fuse, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from channel.helpers import ClientProcess, Daemon

pytestmark = needs_fuse

MALLORY, VICTIM = 4002, 4003

# Says of each call whom it names: process, user, and the user that this process has.
SERVER = """
device = Device(DIR + '/binder')
device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
commands = struct.pack('=I', abi.BC_ENTER_LOOPER)
say('serving')
while True:
    wait_for_line()
    returns = b''
    while struct.pack('=I', abi.BR_TRANSACTION) not in returns:
        returns = device.write_read(commands, 512)
        commands = b''
    found = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
    commands = free_buffer(found.buffer) + struct.pack('=I', abi.BC_REPLY)
    commands += abi.binder_transaction_data.build()
    say(found.sender_pid, found.sender_euid)
"""

# A stage: root, who makes processes of Mallory's and lets numbers be reused.
STAGE = f"""
import signal, time, traceback
os.setsid()
MALLORY, VICTIM = {MALLORY}, {VICTIM}
CLONE3 = 435
libc = ctypes.CDLL(None, use_errno=True)

def reuse(number, uid, play=lambda: os.execvp('sleep', ['sleep', 'infinity'])):
    '''Start a program of another user under a number that is free.'''
    numbers = (ctypes.c_int * 1)(number)
    wanted = (ctypes.c_uint64 * 11)()
    wanted[4], wanted[8], wanted[9] = signal.SIGCHLD, ctypes.addressof(numbers), 1
    child = libc.syscall(CLONE3, ctypes.byref(wanted), ctypes.sizeof(wanted))
    if not child:
        perform(uid, play)
    assert child == number, os.strerror(ctypes.get_errno())

def fork(uid, play):
    '''Return a process of a user that plays its part.'''
    child = os.fork()
    if not child:
        perform(uid, play)
    return child

def perform(uid, play):
    try:
        os.setresuid(uid, uid, uid)
        play()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)

class Cue:
    '''A moment that another process waits for.'''
    def __init__(self):
        self.reads, self.writes = os.pipe()
    def wait(self):
        os.read(self.reads, 1)
    def give(self):
        os.write(self.writes, b'.')

def until_root(number):
    '''Wait until a process is root's.'''
    deadline = time.monotonic() + 30
    while int(open('/proc/%d/status' % number).read().split('Uid:')[1].split()[1]):
        assert time.monotonic() < deadline
        os.sched_yield()

def send(device):
    commands, payload = transaction(0, b'')
    device.write_read(commands)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    for place in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(place, 0o755)
    with running(tmp_path / "mount") as daemon:
        yield daemon
        assert "our bug" not in daemon.said.decode()


@contextmanager
def staged(daemon: Daemon, code: str) -> Iterator[ClientProcess]:
    """A stage that is gone afterwards, with everybody who is on it."""
    with client(daemon.directory, STAGE + code) as stage:
        try:
            yield stage
        finally:
            os.killpg(stage.process.pid, signal.SIGKILL)


def seen(server: ClientProcess) -> tuple[int, int]:
    """Return process and user that the server sees in its next call."""
    server.tell()
    pid, euid = server.line().split()
    return int(pid), int(euid)


# A parent opens, its child keeps the file, the parent dies, somebody else gets its number.
ORPHAN = """
cue, sent, end = Cue(), Cue(), Cue()
def parent():
    device = Device(DIR + '/binder')
    if os.fork():
        return
    cue.wait()
    send(device)
    sent.give()
    end.wait()
number = fork(MALLORY, parent)
os.waitpid(number, 0)
reuse(number, 0)
cue.give()
sent.wait()
say('sent')
wait_for_line()
"""

# A parent opens, its child keeps the file, the parent becomes a program of root's.
PROMOTED = """
opened, cue, sent, end = Cue(), Cue(), Cue(), Cue()
def parent():
    device = Device(DIR + '/binder')
    opened.give()
    if os.fork():
        os.execv(SU, [SU, 'infinity'])
    cue.wait()
    send(device)
    sent.give()
    end.wait()
number = fork(MALLORY, parent)
opened.wait()
until_root(number)
cue.give()
sent.wait()
say('sent')
wait_for_line()
"""

# Who has called, and does not wait for the answer, becomes a program of root's.
PROMOTED_CALLER = """
sent = Cue()
def caller():
    device = Device(DIR + '/binder')
    os.set_inheritable(device.fd, True)
    send(device)
    sent.give()
    os.execv(SU, [SU, 'infinity'])
number = fork(MALLORY, caller)
sent.wait()
until_root(number)
say('sent')
wait_for_line()
"""


@pytest.mark.parametrize(
    "code", [ORPHAN, PROMOTED, PROMOTED_CALLER], ids=["orphan", "promoted", "promoted caller"]
)
def test_nobody_appears_as_root_who_is_not(daemon: Daemon, tmp_path: Path, code: str) -> None:
    su = tmp_path / "su"  # what runs as root whoever starts it
    shutil.copy(shutil.which("sleep") or "", su)
    su.chmod(0o4755)
    with client(daemon.directory, SERVER) as server:
        assert server.line() == "serving"
        with staged(daemon, f"SU = {str(su)!r}\n{code}") as stage:
            assert stage.line() == "sent"
            assert seen(server) == (0, MALLORY)
            stage.tell()


# What is left of a dead manager, a process of the user OWNER: its file, in the hands of a child.
DEAD_MANAGER = """
up, end = Cue(), Cue()
def parent():
    device = Device(DIR + '/binder')
    device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
    if os.fork():
        return
    up.give()
    end.wait()
number = fork(OWNER, parent)
os.waitpid(number, 0)
up.wait()
"""

# Who has its number now.
HEIR_OF_MANAGER = f"""
OWNER = VICTIM
{DEAD_MANAGER}
def heir():
    device = Device(DIR + '/binder')
    commands, payload = transaction(0, b'')
    say(device.write_read(commands, 512).hex())
reuse(number, 0, heir)
wait_for_line()
"""


def test_who_gets_the_number_of_a_dead_manager_is_no_part_of_it(daemon: Daemon) -> None:
    """A manager that calls itself has failed; whoever calls one that is dead is told so."""
    with staged(daemon, HEIR_OF_MANAGER) as stage:
        assert bytes.fromhex(stage.line()) == struct.pack("=II", abi.BR_NOOP, abi.BR_DEAD_REPLY)


FROZEN_ORPHAN = f"""
OWNER = MALLORY
{DEAD_MANAGER}
device = Device(DIR + '/binder')
def freeze():
    device.ioctl(abi.BINDER_FREEZE, abi.binder_freeze_info.pack(number, 1, 0))
def info():
    device.ioctl(
        abi.BINDER_GET_FROZEN_INFO, abi.binder_frozen_status_info.pack(number, 0, 0)
    )
send(device)  # there is a call under way at the dead one's file: nothing of an heir's
say(outcome(freeze), outcome(info))
def heir():
    heirs = Device(DIR + '/binder')
    up.give()
    end.wait()
reuse(number, VICTIM, heir)
up.wait()
say(outcome(freeze), outcome(info))
"""


def test_who_gets_the_number_of_the_dead_is_frozen_alone(daemon: Daemon) -> None:
    with staged(daemon, FROZEN_ORPHAN) as stage:
        assert stage.line() == "EINVAL EINVAL", "nobody has that number"
        assert stage.line() == "ok ok", "its calls have nothing to do with it"
