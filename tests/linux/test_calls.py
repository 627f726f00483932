# SPDX-License-Identifier: Apache-2.0
"""System calls that Python does not have: that they do it, and that a failure has its errno."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
from contextlib import suppress
from errno import EBADF, EFAULT, ESRCH
from typing import TYPE_CHECKING

import pytest

from binderd.linux import memory_map, mountinfo, pidfd, prctl, process_vm, scm_rights, signalfd
from binderd.linux.libc import syscall

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = (1 << 31) - 1


def in_child(check: Callable[[], None]) -> int:
    """Return the exit status of a child that makes a check."""
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            check()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_failure_has_its_errno_and_path() -> None:
    with pytest.raises(OSError, match="place") as raised:
        syscall(3, ctypes.c_long(-1), about="place")  # close
    assert (raised.value.errno, raised.value.filename) == (EBADF, "place")


def test_files_through_a_socket_are_close_on_exec() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        scm_rights.send(ours, [b"two ", b"files"], [0, 1])
        scm_rights.send(ours, [b"none"], [])
        message, fds = scm_rights.receive(theirs, 64, 2)
        assert (message, len(fds)) == (b"two files", 2)
        for fd, original in zip(fds, (0, 1), strict=True):
            assert not os.get_inheritable(fd)
            assert os.path.sameopenfile(fd, original)
            os.close(fd)
        assert scm_rights.receive(theirs, 64, 2) == (b"none", [])
        with pytest.raises(BlockingIOError):
            scm_rights.receive(theirs, 64, 2, socket.MSG_DONTWAIT)


def test_a_pidfd_tells_the_end_and_gives_descriptors() -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    with sleeper, pidfd.opened_process(sleeper.pid) as process:
        copy = pidfd.take_descriptor(process, 1)
        assert os.path.sameopenfile(copy, 1)
        os.close(copy)
        with pytest.raises(OSError, match=os.strerror(EBADF)):
            pidfd.take_descriptor(process, 1000)
        assert not pidfd.has_ended(process)
        pidfd.kill(process)
        sleeper.wait()
        assert pidfd.has_ended(process)
    with pytest.raises(ProcessLookupError):
        pidfd.open_process(NOBODY)


def test_memory_of_a_process() -> None:
    text = ctypes.create_string_buffer(b"before")
    address = ctypes.addressof(text)
    assert process_vm.read(os.getpid(), address, 6) == b"before"
    assert process_vm.write(os.getpid(), address, b"after.") == 6
    assert text.value == b"after."
    for tid, errno in ((os.getpid(), EFAULT), (NOBODY, ESRCH)):
        with pytest.raises(OSError, match=os.strerror(errno)):
            process_vm.read(tid, 0, 1)
        with pytest.raises(OSError, match=os.strerror(errno)):
            process_vm.touch_nothing(tid)


def test_pages_that_are_given_back_are_zeros_in_the_file_too() -> None:
    fd = os.memfd_create("binderd-test")
    os.truncate(fd, mmap.PAGESIZE)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = memory_map.map_file(fd, mmap.PAGESIZE, protection, mmap.MAP_SHARED)
    ctypes.memmove(address, b"here", 4)
    assert os.pread(fd, 4, 0) == b"here"
    memory_map.give_back(address, mmap.PAGESIZE)
    assert os.pread(fd, 4, 0) == bytes(4)
    memory_map.unmap(address, mmap.PAGESIZE)
    os.close(fd)
    with pytest.raises(OSError, match=os.strerror(EBADF)):
        memory_map.map_file(fd, mmap.PAGESIZE, protection, mmap.MAP_SHARED)


def test_what_a_process_settles_about_itself() -> None:
    def check() -> None:
        prctl.set_name("binderd-test")
        prctl.become_undumpable()
        prctl.install_empty_filter()
        fields = dict(line.split(":", 1) for line in open("/proc/self/status"))  # noqa: SIM115
        assert fields["Name"].strip() == "binderd-test"
        assert fields["Seccomp"].strip() == "2"
        assert os.stat("/proc/self/mem").st_uid == 0

    assert in_child(check) == 0


def test_a_signal_is_something_to_be_read() -> None:
    def check() -> None:
        fd = signalfd.open_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert len(os.read(fd, 2 * signalfd.INFO_SIZE)) == signalfd.INFO_SIZE

    assert in_child(check) == 0


def test_the_mount_of_a_descriptor_is_in_the_table() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    number = mountinfo.mount_id_of(fd)
    os.close(fd)
    assert [one.path for one in mountinfo.read_mounts() if one.mount_id == number] == ["/proc"]
