# SPDX-License-Identifier: Apache-2.0
"""The program that test_delivery.py starts with the library and fake.c: one case per name.

What a case finds wrong is an assertion here. It calls ioctl as a C program would.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import stat
import sys
import threading
import time
from errno import EBADF, EINVAL, EMFILE, EREMOTEIO
from typing import Final

from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.extension_abi import (
    BINDERD_AREA,
    BINDERD_CLOSE,
    BINDERD_FILES,
    BINDERD_FILES_MAX,
    binderd_installed,
    binderd_message,
)

process = ctypes.CDLL(None, use_errno=True)
process.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
device = os.open("/dev/null", os.O_RDWR)
thing = os.open("/etc/passwd", os.O_RDONLY)
LOWEST: Final = thing + 1
# System calls of x86-64 and of the architectures with the generic table.
CLOSE, DUP3 = {"x86_64": (3, 292)}.get(os.uname().machine, (57, 24))
COARSE: Final = 6  # CLOCK_MONOTONIC_COARSE


class Message(ctypes.Structure):
    _fields_ = (("octets", ctypes.c_char * binderd_message.size),)


process.fake_send.argtypes = [Message, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]


def variable(name: str) -> ctypes.c_int:
    return ctypes.c_int.in_dll(process, f"fake_{name}")


def send(
    kind: int,
    *,
    copies: int = 0,
    count: int | None = None,
    value: int = 7,
    left: int = 0,
    numbers: tuple[int, ...] = (),
) -> None:
    count = copies or len(numbers) if count is None else count
    octets = binderd_message.build(kind=kind, count=count, value=value, left=left)
    message = Message.from_buffer_copy(octets)
    body = (ctypes.c_int32 * len(numbers))(*numbers) if numbers else None
    assert process.fake_send(message, thing, copies, body) > 0, ctypes.get_errno()


def write_read(busy: int = 0) -> int:
    """Call BINDER_WRITE_READ, which fails with EREMOTEIO so often; return the errno, or 0."""
    variable("busy").value = busy
    failed = process.ioctl(device, BINDER_WRITE_READ, ctypes.create_string_buffer(48)) < 0
    variable("busy").value = 0
    return ctypes.get_errno() if failed else 0


def reported() -> tuple[int, int, list[int]]:
    """Return id, error and numbers of the latest report."""
    octets = ctypes.string_at(ctypes.addressof(variable("installed")), binderd_installed.size)
    found = binderd_installed.read(octets)
    numbers = (ctypes.c_int32 * found.count).in_dll(process, "fake_numbers")
    return found.id, found.error, list(numbers)


def descriptors() -> list[int]:
    """Return the numbers that are open, but for the directory's own."""
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    return sorted(number for number in found if os.path.exists(f"/proc/self/fd/{number}"))


def our_socket() -> int:
    """Return the library's socket; the fake daemon's end is below."""
    (found,) = (n for n in descriptors() if n >= 900 and stat.S_ISSOCK(os.fstat(n).st_mode))
    return found


def wait_for_tick() -> None:
    """What is done by direct system calls is noticed when the kernel's clock has ticked."""
    before = time.clock_gettime(COARSE)
    while time.clock_gettime(COARSE) == before:
        pass


def case_one_message() -> None:
    assert write_read() == 0
    send(BINDERD_FILES, copies=3)
    assert write_read(busy=1) == 0
    assert reported() == (7, 0, [LOWEST, LOWEST + 1, LOWEST + 2])
    assert all(not os.get_inheritable(number) for number in reported()[2])
    assert variable("calls").value == 3


def case_nothing_to_take() -> None:
    assert write_read(busy=20) == 0
    assert variable("calls").value == 21
    assert variable("attached").value == 1


def case_several_deliveries() -> None:
    write_read()
    for value in (1, 2, 3):
        send(BINDERD_FILES, copies=1, value=value)
    write_read(busy=1)
    assert variable("reports").value == 3
    assert reported() == (3, 0, [LOWEST + 2])


def case_many_parts() -> None:
    write_read()
    total = 2 * BINDERD_FILES_MAX + 10
    left = total
    while left:
        copies = min(left, BINDERD_FILES_MAX)
        left -= copies
        send(BINDERD_FILES, copies=copies, left=left)
    write_read(busy=1)
    number, error, numbers = reported()
    assert (number, error) == (7, 0)
    assert len(set(numbers)) == total
    assert variable("reports").value == 1


def case_a_part_comes_later() -> None:
    write_read()
    send(BINDERD_FILES, copies=2, left=1)
    write_read(busy=1)
    assert variable("reports").value == 0
    send(BINDERD_FILES, copies=1)
    write_read(busy=1)
    assert reported() == (7, 0, [LOWEST, LOWEST + 1, LOWEST + 2])


def case_a_delivery_is_given_up() -> None:
    write_read()
    before = descriptors()
    send(BINDERD_FILES, copies=2, value=1, left=1)
    send(BINDERD_FILES, copies=1, value=2)
    write_read(busy=1)
    assert reported()[:2] == (2, 0)
    assert len(descriptors()) == len(before) + 1


def case_absurd_sizes() -> None:
    write_read()
    before = descriptors()
    send(BINDERD_FILES, copies=2, left=0xFFFFFFF0)
    write_read(busy=1)
    send(BINDERD_FILES, copies=2, left=0)
    write_read(busy=1)
    assert reported() == (7, EMFILE, [])
    send(BINDERD_FILES, copies=2, count=200)  # says more than it has
    write_read(busy=1)
    assert reported() == (7, EMFILE, [])
    assert descriptors() == before


def case_the_table_is_full() -> None:
    write_read()
    before = descriptors()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOWEST + 2, limit[1]))
    send(BINDERD_FILES, copies=3)
    assert write_read(busy=1) == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert reported() == (7, EMFILE, [])
    assert descriptors() == before
    send(BINDERD_FILES, copies=3)
    write_read(busy=1)
    assert reported()[1] == 0


def case_the_table_is_full_half_way() -> None:
    write_read()
    before = descriptors()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOWEST + 3, limit[1]))
    send(BINDERD_FILES, copies=2, left=2)
    send(BINDERD_FILES, copies=2)
    write_read(busy=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert reported() == (7, EMFILE, [])
    assert variable("reports").value == 1
    assert descriptors() == before


def case_the_daemon_has_forgotten_it() -> None:
    write_read()
    before = descriptors()
    variable("unknown").value = EINVAL
    send(BINDERD_FILES, copies=3)
    assert write_read(busy=1) == 0
    assert descriptors() == before


def case_numbers_to_close() -> None:
    write_read()
    for count in (1, 5, 900):
        copies = [os.dup(thing) for _ in range(count)]
        send(BINDERD_CLOSE, numbers=(*copies, our_socket(), -1, 99999))
        before = len(descriptors())
        assert write_read(busy=1) == 0
        assert len(descriptors()) == before - count
    assert our_socket() >= 900


def case_messages_that_nobody_knows() -> None:
    write_read()
    before = descriptors()
    send(99, copies=3)
    send(BINDERD_AREA, copies=1)
    send(0, numbers=(1, 2, 3))
    send(BINDERD_CLOSE)
    assert write_read(busy=1) == 0
    assert descriptors() == before


def case_the_daemon_hangs_up() -> None:
    write_read()
    first = our_socket()
    process.fake_hang_up()
    os.close(os.dup(thing))  # so that the library looks at once
    write_read()
    assert variable("attached").value == 2
    assert our_socket() != first  # and there is one only
    send(BINDERD_FILES, copies=1)
    write_read(busy=1)
    assert reported() == (7, 0, [LOWEST])


def case_it_hangs_up_with_messages() -> None:
    write_read()
    send(BINDERD_FILES, copies=2)
    process.fake_hang_up()
    assert write_read(busy=2) == 0
    assert variable("reports").value == 1
    assert variable("attached").value == 2


def case_refused_for_now() -> None:
    variable("refuse").value = EMFILE
    assert write_read() == 0
    variable("refuse").value = 0
    assert write_read() == 0
    assert variable("attached").value == 1


def case_refused_for_good() -> None:
    variable("refuse").value = EINVAL
    assert write_read() == 0
    variable("refuse").value = 0
    os.close(os.dup(thing))
    assert write_read() == 0
    assert variable("attached").value == 0
    assert write_read(busy=1) == EREMOTEIO


def case_many_threads() -> None:
    """Each delivery is taken and reported once, whoever takes it."""
    write_read()
    failures: list[object] = []

    def work() -> None:
        buffer = ctypes.create_string_buffer(48)
        for _ in range(300):
            failed = process.ioctl(device, BINDER_WRITE_READ, buffer)
            failures.extend([ctypes.get_errno()] * -failed)

    variable("busy").value = 2000
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for value in range(200):
        send(BINDERD_FILES, copies=2, value=value)
    for thread in threads:
        thread.join()
    write_read(busy=1)
    assert failures == []
    assert variable("reports").value == 200
    assert len(descriptors()) >= 400


def case_a_child() -> None:
    write_read()
    send(BINDERD_FILES, copies=1)  # the parent's business
    child = os.fork()
    if child == 0:
        try:
            assert not [n for n in descriptors() if n >= 900]
            assert write_read() == 0
            assert variable("attached").value == 2
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    write_read(busy=1)
    assert reported() == (7, 0, [LOWEST])


def case_its_number_is_somebody_else_s() -> None:
    """Behind its back, by a direct system call: it takes another one, and leaves that alone."""
    write_read()
    number = our_socket()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b"mine")
    assert process.syscall(DUP3, ours.fileno(), number, os.O_CLOEXEC) == number
    wait_for_tick()
    write_read()
    assert variable("attached").value == 2
    assert ours.recv(10, socket.MSG_DONTWAIT) == b"mine"
    os.fstat(number)
    send(BINDERD_FILES, copies=1)
    write_read(busy=1)
    assert reported()[:2] == (7, 0)
    os.fstat(number)


def case_its_number_is_closed() -> None:
    write_read()
    process.syscall(CLOSE, our_socket())
    wait_for_tick()
    write_read()
    assert variable("attached").value == 2


def case_it_is_lost_with_messages() -> None:
    write_read()
    send(BINDERD_FILES, copies=2)
    process.syscall(CLOSE, our_socket())
    assert write_read(busy=2) == 0
    assert variable("attached").value == 2
    assert variable("reports").value == 0


def case_closes_of_a_device_are_told() -> None:
    """I4: also of a copy that was never used; not of anything else."""
    os.close(os.dup(device))
    assert variable("flushed").value == 0  # nobody knows yet what it is
    write_read()
    os.close(os.dup(thing))
    assert variable("flushed").value == 0
    os.close(os.dup(device))
    assert variable("flushed").value == 1
    write_read()
    assert variable("attached").value == 1


def case_what_closes_it_through_the_library() -> None:
    """For close and its like our socket does not exist; for dup2 it makes way."""
    write_read()
    number = our_socket()
    assert process.close(number) == -1
    assert ctypes.get_errno() == EBADF
    os.closerange(number - 5, number + 5)
    assert our_socket() == number
    kept = os.dup(thing)
    assert process.close_range(ctypes.c_uint(kept), ctypes.c_uint(0xFFFFFFFF), 0) == 0
    assert our_socket() == number
    assert process.close_range(5, 4, 0) == -1
    assert ctypes.get_errno() == EINVAL
    kept = os.dup(thing)
    process.closefrom(kept)
    assert not os.path.exists(f"/proc/self/fd/{kept}")
    assert our_socket() == number
    for call in (process.dup2, process.dup3):
        number = our_socket()
        assert call(thing, number, os.O_CLOEXEC) == number
        assert our_socket() != number
        os.close(number)
    assert variable("attached").value == 1


def main() -> None:
    globals()[f"case_{sys.argv[1]}"]()


if __name__ == "__main__":
    main()
