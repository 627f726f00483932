# SPDX-License-Identifier: Apache-2.0
"""Real devices as a backend: real processes and threads, driven through puppets.

When is a thread blocked?  It sleeps in its call, then something goes through the driver behind
everything that was asked before (``Driver.barrier``), and it still sleeps the same sleep.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import time
from abc import ABC, abstractmethod
from errno import EBADF, EIO
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from binderd.options import SECURITY_CONTEXT
from binderwire.binder_abi import BINDER_WRITE_READ, IOCTLS
from binderwire.extension_abi import (
    BINDERD_AGAIN,
    BINDERD_ATTACH,
    BINDERD_ENTER,
    BINDERD_INSTALLED,
    BINDERD_LANE,
)
from support.playbook import (
    GUEST_UID,
    GUEST_USERS,
    MAPPING_SIZE,
    FileState,
    Pending,
    Proc,
    Thread,
    Watch,
    World,
)
from support.puppet import HEAP_SIZE, PROT_READ, PROT_WRITE
from support.puppeteer import GLANCE, PATIENCE, Puppet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RETRY_SECONDS: Final = 0.02
_KCMP_FILE: Final = 0
_KCMP: Final = 272 if platform.machine() == "aarch64" else 312
_libc = ctypes.CDLL(None, use_errno=True)


def _kcmp(*arguments: int) -> int:
    """Compare what two processes have; 0: the same."""
    return int(_libc.syscall(_KCMP, *(ctypes.c_long(value) for value in arguments)))


class Driver(ABC):
    """What a test session knows about the driver behind the devices."""

    name: str
    is_kernel: bool
    has_lanes = False  # do clients' threads use lanes?
    hands_over_areas = False  # is the receive area mapped through the extension?
    control: Path | None = None  # the file that devices are made with, beside them

    @abstractmethod
    def new_device(self, name: str) -> Path:
        """Return a device that nobody uses.

        Args:
            name: what the scenario calls it. If it begins with ``fresh``, the device was never
                used; if with ``user``, only by scenarios that call it the same.
        """

    @abstractmethod
    def barrier(self) -> None:
        """Return once everything that was asked before has had its effect."""

    @abstractmethod
    def settle(self, open_files: int) -> None:
        """Return once the driver has seen to every close, so that so many files are open."""

    @abstractmethod
    def assert_empty(self) -> None:
        """Fail if the driver keeps anything though all clients have gone, where it tells."""


class DeviceWorld(World):
    """Fresh devices of one driver, and the processes that use them.

    Args:
        attaches: they get descriptors through the extension's socket.
    """

    def __init__(self, driver: Driver, zygote: Puppet, *, attaches: bool = False) -> None:
        super().__init__()
        # The numbers that lanes are used with; none: BINDER_WRITE_READ is an ioctl.
        self.lane = [BINDERD_LANE, BINDERD_ENTER, BINDERD_AGAIN] if driver.has_lanes else None
        self.attaches = attaches
        self.name = driver.name
        self.is_kernel = driver.is_kernel
        self.driver = driver
        # The ioctl that gives a client its receive area; 0: mmap does.
        self.area_request = BINDERD_ATTACH if driver.hands_over_areas else 0
        self._zygote = zygote
        self._guest_zygote: Puppet | None = None  # what the guests are forked from
        self._devices: dict[str, Path] = {}
        self.programs: list[Program] = []
        self.files: list[OpenFile] = []

    def open(
        self,
        device: str = "binder",
        *,
        size: int | None = MAPPING_SIZE,
        nonblocking: bool = False,
        uid: int = 0,
        shared: bool = False,
        nice: int = 0,
        nice_limit: int = 0,
        guest: bool = False,
        context: bytes | None = None,  # the system chooses it
    ) -> DeviceProc:
        zygote = self._guests() if guest else self._zygote
        program = Program(self, zygote.fork(uid, nice=nice, nice_limit=nice_limit))
        return program.open(device, size=size, nonblocking=nonblocking, shared=shared)

    def _guests(self) -> Puppet:
        if self._guest_zygote is None:
            self._guest_zygote = self._zygote.fork(users=(GUEST_UID, GUEST_USERS))
        return self._guest_zygote

    def control(self, request: int, argument: bytes) -> tuple[int, bytes] | None:
        if self.driver.control is None:
            return None
        row = IOCTLS.get(request)
        self.seen.add(row.name if row else "unknown ioctl")
        back = bytearray(argument)
        fd = os.open(self.driver.control, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, request, back)
        except OSError as error:
            return error.errno or 0, bytes(back)
        finally:
            os.close(fd)
        return 0, bytes(back)

    def path(self, device: str) -> str:
        if device.startswith("made"):
            assert self.driver.control is not None
            return str(self.driver.control.with_name(device))
        if device not in self._devices:
            self._devices[device] = self.driver.new_device(device)
        return str(self._devices[device])

    def assert_empty(self) -> None:
        self.driver.assert_empty()

    def close(self) -> None:
        for program in self.programs:
            program.die()
        if self._guest_zygote is not None:
            self._guest_zygote.kill()

    def settle(self) -> None:
        self.driver.settle(sum(file.holds > 0 for file in self.files))

    def eventually(self, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not check():
            assert time.monotonic() < deadline, "it never happens"
            Event().wait(RETRY_SECONDS)


class OpenFile:
    """An open file description: what the driver calls a process."""

    def __init__(self, world: DeviceWorld) -> None:
        self.holds = 0  # descriptors and, as a kernel counts them, mappings
        world.files.append(self)


class Program:
    """A client process: its heap, and how often it holds which file."""

    def __init__(self, world: DeviceWorld, puppet: Puppet, heap: int | None = None) -> None:
        self.world = world
        self.puppet = puppet
        self.heap = puppet.heap if heap is None else heap
        self.files: list[OpenFile] = []
        world.programs.append(self)

    def open(
        self, device: str, *, size: int | None, nonblocking: bool, shared: bool = False
    ) -> DeviceProc:
        flags = os.O_RDWR | (os.O_NONBLOCK if nonblocking else 0)
        fd = self.puppet.ask("open", path=self.world.path(device), flags=flags)["fd"]
        self.attach(fd)
        mapping = None
        file = OpenFile(self.world)
        self.hold(file)
        if size is not None:
            area = self.world.area_request
            answer = self.puppet.ask(
                "mmap", fd=fd, length=size, protection=PROT_READ, shared=shared, area=area
            )
            mapping = (answer["address"], size)
            self.hold(file)
        return DeviceProc(self, device, file, fd, mapping)

    def attach(self, fd: int) -> None:
        if self.world.attaches:
            self.puppet.ask("attach", fd=fd, attach=BINDERD_ATTACH, report=BINDERD_INSTALLED)

    def exec(self, fd: int) -> None:
        """Run another program, which inherits ``fd``."""
        self.puppet.exec(fd)
        self.heap = self.puppet.heap

    def hold(self, file: OpenFile) -> None:
        self.files.append(file)
        file.holds += 1

    def let_go(self, file: OpenFile) -> None:
        self.files.remove(file)
        file.holds -= 1
        self.world.settle()

    def die(self) -> None:
        self.puppet.kill()
        while self.files:
            self.files.pop().holds -= 1
        self.world.settle()

    def room(self, size: int) -> int:
        address = self.heap
        self.heap += (size + 7) & ~7
        return address


class DevicePending(Pending):
    """A call that a puppet's thread is in."""

    def __init__(self, thread: DeviceThread, number: int) -> None:
        self._puppet = thread.puppet
        self._tid = thread.tid_outside
        self._driver = thread.proc.world.driver
        self._number = number

    @property
    def parked(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not self._puppet.answered(self._number, GLANCE):
            nap = self._puppet.nap(self._tid)
            if nap is not None:
                self._driver.barrier()
                if self._puppet.nap(self._tid) == nap:
                    return not self._puppet.answered(self._number)
            assert time.monotonic() < deadline, "the thread neither sleeps nor comes back"
        return False

    def wait(self) -> tuple[int, bytes]:
        answer, blob = self._puppet.answer(self._number)
        if "revents" in answer:
            return 0, answer["revents"].to_bytes(4, "little")
        return answer["errno"], blob


class DeviceWatch(Watch):
    """An epoll set of a puppet."""

    def __init__(self, epoll: int) -> None:
        self._epoll = epoll

    def start(self, thread: Thread) -> Pending:
        assert isinstance(thread, DeviceThread)
        return thread.wait_for(self._epoll)


class DeviceThread(Thread):
    """An operating system thread of a puppet."""

    proc: DeviceProc

    def __init__(self, proc: DeviceProc) -> None:
        super().__init__(proc)
        self.puppet = proc.program.puppet
        self._tid: int = self.puppet.ask("thread")["tid"]
        self.tid_outside = self.puppet.tid_outside(self._tid)

    @property
    def tid(self) -> int:
        return self._tid

    @property
    def nice(self) -> int:
        return int(self.puppet.ask("nice", thread=self.tid, nice=None)["nice"])

    @nice.setter
    def nice(self, nice: int) -> None:
        self.puppet.ask("nice", thread=self.tid, nice=nice)

    def _start(self, op: str, blob: bytes = b"", **fields: Any) -> DevicePending:  # noqa: ANN401
        number = self.puppet.send(op, blob, thread=self.tid, fd=self.proc.fd, **fields)
        return DevicePending(self, number)

    def begin_ioctl(self, request: int, argument: bytes | None) -> Pending:
        blob = b"" if argument is None else argument
        null = argument is None
        lane = self.proc.world.lane if request == BINDER_WRITE_READ else None
        pending = self._start("ioctl", blob, request=request, null=null, late=False, lane=lane)
        _ = pending.parked  # waits until it has either ended or sleeps
        return pending

    def start_late_ioctl(self, request: int, argument: bytes) -> Pending:
        pending = self._start("ioctl", argument, request=request, null=False, late=True)
        _ = pending.parked
        return pending

    def start_poll(self) -> Pending:
        pending = self._start("poll", timeout=-1)
        _ = pending.parked
        return pending

    def watch(self, *, edges: bool = False) -> DeviceWatch:
        number = self.puppet.send("epoll", thread=self.tid, fd=self.proc.fd, edges=edges)
        return DeviceWatch(int(self.puppet.answer(number)[0]["epoll"]))

    def wait_for(self, epoll: int) -> Pending:
        """Start an epoll_wait."""
        pending = self._start("epoll_wait", epoll=epoll)
        _ = pending.parked
        return pending

    def poll(self) -> int:
        return int.from_bytes(self._start("poll", timeout=0).wait()[1], "little")

    def signal(self) -> None:
        self.puppet.ask("signal", thread=self.tid)

    def end(self) -> None:
        self.puppet.ask("end", thread=self.tid)


class DeviceProc(Proc):
    """A descriptor in a puppet."""

    def __init__(
        self,
        program: Program,
        device: str,
        file: OpenFile,
        fd: int,
        mapping: tuple[int, int] | None,
    ) -> None:
        self.program = program
        self.file = file
        self.world: DeviceWorld = program.world
        self.device = device
        self.fd = fd
        self._mapping = mapping

    @property
    def pid(self) -> int:
        return self.program.puppet.pid

    @property
    def own_pid(self) -> int:
        return self.program.puppet.own_pid

    @property
    def mapping(self) -> tuple[int, int]:
        assert self._mapping is not None
        return self._mapping

    def thread(self) -> DeviceThread:
        return DeviceThread(self)

    def room(self, size: int) -> int:
        return self.program.room(size)

    @property
    def heap_end(self) -> int:
        return self.program.puppet.heap + HEAP_SIZE

    def poke(self, address: int, data: bytes) -> None:
        self.program.puppet.send("poke", data, address=address)

    def peek(self, address: int, size: int) -> bytes:
        return self.program.puppet.peek(address, size)

    def open_again(
        self, device: str | None = None, *, size: int | None = MAPPING_SIZE
    ) -> DeviceProc:
        return self.program.open(device or self.device, size=size, nonblocking=False)

    def new_file(self, kind: str = "null", *, nonblocking: bool = False) -> int:
        puppet = self.program.puppet
        answer = puppet.ask("new_file", kind=kind, device=self.fd, nonblocking=nonblocking)
        return int(answer["fd"])

    def file_state(self, fd: int) -> FileState | None:
        puppet = self.program.puppet
        answer, _ = puppet.answer(puppet.send("file_state", fd=fd))
        if answer["errno"] == EBADF:
            return None
        return FileState(bool(answer["close_on_exec"]), not answer["blocking"])

    def has_same_file(self, fd: int, other: Proc, other_fd: int) -> bool:
        result: int = _kcmp(self.pid, other.pid, _KCMP_FILE, fd, other_fd)
        return result == 0

    def descriptors(self) -> set[int]:
        return {int(name) for name in os.listdir(f"/proc/{self.program.puppet.pid}/fd")}

    def close_file(self, fd: int) -> None:
        self.program.puppet.ask("close", fd=fd)

    def run_out_of_files(self) -> None:
        self.program.puppet.ask("run_out_of_files")

    def become(self, uid: int) -> None:
        self.program.puppet.ask("become", uid=uid)

    def security_context(self) -> bytes | None:
        puppet = self.program.puppet
        answer, blob = puppet.answer(puppet.send("read_file", path="/proc/self/attr/current"))
        own = b"" if answer["errno"] else blob.rstrip(b"\n\0")
        default = None if self.program.world.is_kernel else SECURITY_CONTEXT.encode()
        return own or default

    def fork(self, uid: int = 0) -> DeviceProc:
        child = Program(self.world, self.program.puppet.fork(uid), self.program.heap)
        child.hold(self.file)
        child.attach(self.fd)
        return DeviceProc(child, self.device, self.file, self.fd, self._mapping)

    def try_mmap(
        self, size: int = MAPPING_SIZE, *, writable: bool = False, shared: bool = False
    ) -> int:
        protection = PROT_READ | (PROT_WRITE if writable else 0)
        try:
            self.program.puppet.ask(
                "mmap",
                fd=self.fd,
                length=size,
                protection=protection,
                shared=shared,
                area=self.world.area_request,
            )
        except OSError as error:
            return error.errno or EIO
        self.program.hold(self.file)
        return 0

    def unusual_memory(self, kind: str, data: bytes) -> int:
        puppet = self.program.puppet
        answer, _ = puppet.answer(puppet.send("unusual_memory", data, kind=kind))
        if answer["errno"]:
            raise OSError(answer["errno"], kind)
        return int(answer["address"])

    def set_nonblocking(self) -> None:
        self.program.puppet.ask("nonblock", fd=self.fd)

    def exec(self) -> None:
        self.program.exec(self.fd)
        while self.program.files != [self.file]:
            self.program.files.remove(self.file)
            self.file.holds -= 1
        self.world.settle()

    def munmap(self) -> None:
        address, size = self.mapping
        self.program.puppet.ask("munmap", address=address, length=size)
        self.program.let_go(self.file)

    def close(self) -> None:
        self.program.puppet.ask("close", fd=self.fd)
        self.program.let_go(self.file)

    def kill(self) -> None:
        self.program.die()
