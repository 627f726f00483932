# SPDX-License-Identifier: Apache-2.0
"""Trying on a child of ours what will be done to clients, before anything is served.

That a capability is there proves little: Yama's ptrace_scope, a seccomp filter, a security module
or an old kernel may deny the call all the same, and then each call of each client would fail,
without a word from us. So we do here, once, what serving takes. The child makes itself undumpable,
so that the same is demanded of us as for another user's process, and puts itself under a seccomp
filter that allows everything, as many receivers of files have one. An ordinary user's clients are
that user's: then the child stays dumpable, and as Yama lets everybody trace descendants, which
clients are not, it is none of ours.

It takes some milliseconds and leaves no process. Nothing here may know how clients are served.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import struct
from contextlib import contextmanager
from errno import EACCES, EINVAL, EIO, ENOSYS, EPERM, ETIMEDOUT
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from binderd.linux import memory_map, pidfd, prctl, proc, process_vm, ptrace, rights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_PATIENCE_MS: Final = 10_000  # for the child to be ready, on any machine
_WALL: Final = 0x40000000  # __WALL: also traced threads
_NO_PTRACE: Final = 3  # for nobody, until the next boot
_NICEST: Final = -20
_ready: Final = struct.Struct("=i?")  # process id or negative errno; is it under a filter?
_MARK: Final = b"private"

_NO_ONE: Final = 0  # the file mode that lets nobody open a file

_BLOCK_SIZE: Final = 8  # bytes
# At this address the child has bytes of its own, as it is forked from us; ours stay as they are.
_block = ctypes.create_string_buffer(_BLOCK_SIZE)
_ADDRESS: Final = ctypes.addressof(_block)


def _map_file() -> int:
    """Return the address of a private read-only page of a file, which the child has as well."""
    file = os.memfd_create("binderd", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, mmap.PAGESIZE)
        return memory_map.map_file(file, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE)
    finally:
        os.close(file)


class Child(NamedTuple):
    """Whom it is tried on."""

    pid: int
    fd: int  # a descriptor that it has open
    page: int  # address of a private read-only page of a file in its memory
    has_filter: bool  # could it put itself under a seccomp filter?


class Trial(NamedTuple):
    """One thing to try."""

    call: str  # what is tried, as manual pages have it
    attempt: Callable[[Child], None]  # raises OSError if it is denied
    loss: str = ""  # what does not work without it; empty: the daemon does not start
    right: str = ""  # the capability that it needs, where that may be missing
    is_tracing: bool = False  # is it needed only where clients are stopped?
    is_for_sockets: bool = False  # does nothing work without it where clients must attach sockets?
    is_for_private: bool = False  # can no client have receive pages of its own without it?
    takes_root: bool = False  # is it in vain for an ordinary user?


class Denial(NamedTuple):
    """What could not be done, and the errno."""

    trial: Trial
    errno: int


def run(*, injects: bool, missing: Collection[str] = ()) -> list[Denial]:
    """Try everything; return what is denied.

    Args:
        injects: will clients be stopped with ptrace?
        missing: capabilities that are known to be; what needs them is not tried.

    Raises:
        OSError: no child can be had.
    """
    denials: list[Denial] = []
    with _child() as child:
        for trial in TRIALS:
            if trial.right in missing:
                continue
            if trial.takes_root and rights.is_ordinary_user():
                if trial.loss:
                    denials.append(Denial(trial, EPERM))
                continue
            if trial.is_tracing and (not injects or any(one.trial.is_tracing for one in denials)):
                continue
            try:
                trial.attempt(child)
            except OSError as error:
                denials.append(Denial(trial, error.errno or EIO))
    return denials


def explain(denials: list[Denial]) -> str:
    """Return one sentence for denials that have the same consequence: what, by whom, what to do."""
    calls = ", ".join(denial.trial.call for denial in denials)
    errno = denials[0].errno
    return f"{calls}: denied ({os.strerror(errno)}), {_cause(denials[0])}"


def _cause(denial: Denial) -> str:
    is_ordinary = rights.is_ordinary_user()
    if denial.trial.takes_root and is_ordinary:
        return "which takes root"
    scope = proc.ptrace_scope() if denial.errno in {EPERM, EACCES} else None
    if is_ordinary and scope and scope < _NO_PTRACE:
        return (
            f"as kernel.yama.ptrace_scope is {scope}, which keeps an ordinary user's programs "
            "apart: 'sysctl kernel.yama.ptrace_scope=0', start as root, or use 'binderctl with'"
        )
    if scope == _NO_PTRACE:
        return (
            "as kernel.yama.ptrace_scope is 3: let /etc/sysctl.d set it to 2 or less, and boot "
            "(it cannot be lowered before)"
        )
    if denial.trial.is_for_private:
        return (
            "as this kernel lets nobody write to a read-only mapping through /proc/PID/mem, which "
            "it was built or told to: boot it with proc_mem.force_override=always; 'binderctl run' "
            "and binderclient do without"
        )
    if has_own_filter():
        return (
            "probably by the seccomp filter that the daemon runs under: a container needs "
            "--security-opt seccomp=unconfined, a systemd unit no option that installs a filter"
        )
    if denial.errno in {ENOSYS, EINVAL}:
        return "which this kernel does not have: binderd needs a newer one, or one that is built so"
    return (
        "probably by a security module: look for AppArmor or SELinux in the kernel's log (dmesg), "
        "and let its policy allow it; a container may need --security-opt apparmor=unconfined"
    )


def has_own_filter() -> bool:
    """Whether this process is under a seccomp filter."""
    return proc.has_filter(proc.OWN)


# The child


@contextmanager
def _child() -> Iterator[Child]:
    """A process that waits, and is gone afterwards.

    Raises:
        OSError: there is none.
    """
    is_ours = not rights.is_ordinary_user()
    ready, ready_end = os.pipe()
    life_end, life = os.pipe()  # it ends when we close this one
    page = pid = 0
    try:
        page = _map_file()
        pid = _fork(ready_end, (life_end, life), is_ours=is_ours)
        if not is_ours:
            os.waitpid(pid, 0)  # it has a child, which is nobody's from then on
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        if not poll.poll(_PATIENCE_MS):
            raise OSError(ETIMEDOUT, os.strerror(ETIMEDOUT))
        told, has_filter = _ready.unpack(os.read(ready, _ready.size))
        if told < 0:
            raise OSError(-told, os.strerror(-told))
        yield Child(told, ready_end, page, has_filter=has_filter)
    finally:
        if pid and is_ours:
            os.kill(pid, signal.SIGKILL)  # ours until the wait, so the number is its own
            os.waitpid(pid, _WALL)
        for fd in (ready, ready_end, life_end, life):
            os.close(fd)
        if page:
            memory_map.unmap(page, mmap.PAGESIZE)


def _fork(ready_end: int, life: tuple[int, int], *, is_ours: bool) -> int:
    # A signal to our process group must not end it while it is being looked at.
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _be_child(parent, ready_end, life, is_ours=is_ours)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _be_child(parent: int, ready_end: int, life: tuple[int, int], *, is_ours: bool) -> NoReturn:
    try:
        if is_ours:
            prctl.die_with_parent()
            prctl.become_undumpable()
            if os.getppid() != parent:
                os._exit(1)
        elif os.fork():
            os._exit(0)
        os.close(life[1])
        os.write(ready_end, _ready.pack(os.getpid(), _put_under_filter()))
        os.read(life[0], 1)
    except OSError as error:
        os.write(ready_end, _ready.pack(-(error.errno or EIO), False))
    finally:
        os._exit(1)


def _put_under_filter() -> bool:
    try:
        prctl.install_empty_filter()
    except OSError:
        return False
    return True


# What is tried


def _read_memory(child: Child) -> None:
    process_vm.read(child.pid, _ADDRESS, _BLOCK_SIZE)


def _write_memory(child: Child) -> None:
    process_vm.write(child.pid, _ADDRESS, bytes(_BLOCK_SIZE))


def _use_memory_file(child: Child) -> None:
    with _opened(proc.place_of(child.pid), "mem", os.O_RDWR) as memory:
        os.pwrite(memory, os.pread(memory, _BLOCK_SIZE, _ADDRESS), _ADDRESS)


def _make_private_page(child: Child) -> None:
    with _opened(proc.place_of(child.pid), "mem", os.O_RDWR) as memory:
        os.pwrite(memory, _MARK, child.page)
        if os.pread(memory, len(_MARK), child.page) != _MARK:
            raise OSError(EIO, os.strerror(EIO))
    if ctypes.string_at(child.page, len(_MARK)) == _MARK:
        raise OSError(EIO, os.strerror(EIO))  # others would see it, too


def _read_maps(child: Child) -> None:
    with _opened(proc.place_of(child.pid), "maps", os.O_RDONLY) as maps:
        os.read(maps, 1)


def _open_what_is_not_ours(_: Child) -> None:
    file = os.memfd_create("binderd", os.MFD_CLOEXEC)
    try:
        os.fchmod(file, _NO_ONE)
        with _opened(proc.OWN, f"fd/{file}", os.O_RDWR):
            pass
    finally:
        os.close(file)


def _open_pidfd(child: Child) -> None:
    os.close(pidfd.open_process(child.pid))


def _take_descriptor(child: Child) -> None:
    with pidfd.opened_process(child.pid) as process:
        os.close(pidfd.take_descriptor(process, child.fd))


def _look_at_descriptor(child: Child) -> None:
    proc.link_of(proc.place_of(child.pid), f"fd/{child.fd}")


def _set_nice(child: Child) -> None:
    os.setpriority(os.PRIO_PROCESS, child.pid, _NICEST)


def _read_call(child: Child) -> None:
    with _opened(proc.place_of(child.pid), "syscall", os.O_RDONLY) as file:
        os.read(file, 1)


def _stop(child: Child) -> None:
    ptrace.seize(child.pid, ptrace.TRACESYSGOOD)
    ptrace.interrupt(child.pid)
    os.waitpid(child.pid, _WALL)
    ptrace.detach(child.pid)


def _suspend_filter(child: Child) -> None:
    if child.has_filter:
        ptrace.seize(child.pid, ptrace.SUSPEND_SECCOMP)  # to the end; its end is not far


def _kill(child: Child) -> None:
    with pidfd.opened_process(child.pid) as process:
        pidfd.kill(process)


@contextmanager
def _opened(place: str, name: str, flags: int) -> Iterator[int]:
    fd = proc.open_in(place, name, flags)
    try:
        yield fd
    finally:
        os.close(fd)


_NO_FILES: Final = "no file descriptors in transactions, no client can attach a socket"
_NO_SOCKETS: Final = "no client can attach a socket"
TRIALS: Final = (
    Trial("process_vm_readv", _read_memory),
    Trial("process_vm_writev", _write_memory),
    Trial("/proc/PID/mem", _use_memory_file),
    Trial("/proc/PID/maps", _read_maps),
    Trial(
        "private pages",
        _make_private_page,
        "who opens a device file that is bind-mounted alone receives nothing, nor does anybody "
        "where there is no passthrough",
        is_for_private=True,
    ),
    Trial("opening files of other users", _open_what_is_not_ours, takes_root=True),
    Trial("pidfd_open", _open_pidfd, "the end of clients' threads is not noticed"),
    Trial("pidfd_getfd", _take_descriptor, _NO_FILES, is_for_sockets=True),
    Trial("/proc/PID/fd", _look_at_descriptor, _NO_SOCKETS, is_for_sockets=True),
    Trial("setpriority", _set_nice, "no nice values are inherited", "CAP_SYS_NICE"),
    Trial("/proc/PID/syscall", _read_call, "--stall-limit has no effect"),
    Trial("ptrace", _stop, "only clients that attach a socket receive files", is_tracing=True),
    Trial(
        "PTRACE_O_SUSPEND_SECCOMP",
        _suspend_filter,
        "clients with a seccomp filter receive files only if they attach a socket",
        is_tracing=True,
        takes_root=True,
    ),
    Trial("pidfd_send_signal", _kill, "--stall-limit cannot kill anybody"),
)
