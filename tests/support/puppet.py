# SPDX-License-Identifier: Apache-2.0
"""A client process of a binder device that does what it is told over a socket.

Runs as a program of its own, ``puppet.py FD``, with nothing but the standard library, so that any
Python 3.9 will do, also one inside a virtual machine.  It knows nothing of binder: it opens, maps,
polls and calls ioctl with the numbers and bytes that it is given.

Each message, both ways, is one line of JSON followed by ``size`` raw bytes.  A request names an
``op`` and carries an ``id`` that the answer repeats.  Whatever may block runs on the ``thread``
that the request names; everything else runs at once, in the order of arrival.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import queue
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

HEAP_SIZE = 16 << 20  # bytes; taken from the machine only where it is touched
READ_SIZE = 1 << 16
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 0x20, 0x4000
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
IO_URING_SETUP, MEMFD_SECRET = 425, 447  # the same on all architectures
MADV_DONTFORK = 10
MAP_FAILED = (1 << 64) - 1

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.unshare.argtypes = [ctypes.c_int]


def map_memory(size: int, protection: int, flags: int, fd: int = -1) -> int:
    """Return the address of a new mapping.  Not the mmap module: that would keep a copy of fd."""
    address = libc.mmap(None, size, protection, flags, fd, 0)
    if address is None or address == MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(address)


def system_call(*arguments: Any) -> int:  # noqa: ANN401
    """Make a system call that the C library may not have."""
    result = libc.syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def fork_into_namespaces(user_first: int, user_count: int) -> int:
    """Fork like os.fork, but the child is the first of a user and a pid namespace of its own.

    Args:
        user_first: the user that user 0 in there is out here; and so on.
        user_count: how many there are.
    """
    unshared_in, unshared_out = os.pipe()
    mapped_in, mapped_out = os.pipe()
    between = os.fork()
    if between:
        os.close(unshared_out)
        os.read(unshared_in, 1)
        for kind in ("uid", "gid"):
            with open(f"/proc/{between}/{kind}_map", "w", encoding="ascii") as users:
                users.write(f"0 {user_first} {user_count}")
        for fd in (unshared_in, mapped_in, mapped_out):
            os.close(fd)
        return between
    os.close(mapped_out)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID):
        os._exit(1)
    os.close(unshared_out)
    os.read(mapped_in, 1)
    os.close(unshared_in)
    os.close(mapped_in)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if os.fork():
        os._exit(0)  # a pid namespace begins with a child
    return 0


def receive_area(device: int, attach: int) -> int:
    """Return a descriptor of the receive area, which binderd hands over (docs/EXTENSION.md)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        if libc.ioctl(device, attach, struct.pack("=iI", theirs.fileno(), 1)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _, [fd], _, _ = socket.recv_fds(ours, READ_SIZE, 1)
    return fd


class Deliveries:
    """The socket through which binderd sends descriptors for one open file (docs/EXTENSION.md)."""

    MESSAGE = struct.Struct("=IIQI4x")  # kind, count, value, left
    INSTALLED = struct.Struct("=QiIQ")  # id, error, count, address
    FILES, CLOSE = 2, 3

    def __init__(self, fd: int, attach: int, report: int) -> None:
        self._fd, self._report = fd, report
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._numbers: list[int] = []
        with theirs:
            if libc.ioctl(fd, attach, struct.pack("=iI", theirs.fileno(), 2)) < 0:
                raise OSError(ctypes.get_errno(), "attach")

    def take(self) -> None:
        with self._lock:
            while True:
                try:
                    octets, ancillary, flags, _ = self._end.recvmsg(
                        READ_SIZE,
                        socket.CMSG_SPACE(4 * 253),
                        socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                    )
                except BlockingIOError:
                    return
                kind, count, value, left = self.MESSAGE.unpack_from(octets)
                if kind == self.CLOSE:
                    for number in struct.unpack_from(f"={count}i", octets, self.MESSAGE.size):
                        with contextlib.suppress(OSError):
                            os.close(number)
                    continue
                for _, _, data in ancillary:
                    self._numbers += struct.unpack(f"={len(data) // 4}i", data[: len(data) & ~3])
                if flags & socket.MSG_CTRUNC:
                    for number in self._numbers:
                        os.close(number)
                    self._numbers.clear()
                    self._installed(value, errno.EMFILE)
                elif not left:
                    self._installed(value, 0)

    def _installed(self, number: int, error: int) -> None:
        count = len(self._numbers)
        area = (ctypes.c_int32 * count)(*self._numbers)
        self._numbers.clear()
        argument = self.INSTALLED.pack(number, error, count, ctypes.addressof(area))
        if libc.ioctl(self._fd, self._report, argument) < 0:
            raise OSError(ctypes.get_errno(), "report")


class Lane:
    """A thread's lane of one open file (docs/EXTENSION.md)."""

    SIZE, WRITE, READ, END = 16384, 64, 4096, 8192
    SPIN_SECONDS = 50e-6
    RECORD = struct.Struct("=6Q")

    def __init__(self, fd: int, numbers: list[int]) -> None:
        make, self._enter, self._again = numbers
        memory = os.memfd_create("lane", os.MFD_CLOEXEC | 2)
        try:
            os.ftruncate(memory, self.SIZE)
            fcntl.fcntl(memory, 1033, 2)  # F_ADD_SEALS, F_SEAL_SHRINK
            self._address = map_memory(self.SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory)
            libc.madvise(self._address, self.SIZE, MADV_DONTFORK)
            lane = struct.pack("=iIIxxxxQ", memory, 0, self.SIZE, self._address)
            if libc.ioctl(fd, make, lane) < 0:
                raise OSError(ctypes.get_errno(), "lane")
        finally:
            os.close(memory)
        octets = memoryview((ctypes.c_char * self.SIZE).from_address(self._address))
        self._octets = octets.cast("B")
        self._cells = self._octets[:16].cast("I")

    def write_read(self, fd: int, blob: bytes, heap: int) -> tuple[int, bytes]:
        """Do the ioctl; what lies in the heap and fits goes through the lane's memory."""
        fields = list(self.RECORD.unpack(blob))
        write_size, _, write, read_size, _, read = fields
        if heap <= write <= heap + HEAP_SIZE - write_size and write_size <= self.READ - self.WRITE:
            self._octets[self.WRITE : self.WRITE + write_size] = ctypes.string_at(write, write_size)
            fields[2] = self._address + self.WRITE
        if heap <= read <= heap + HEAP_SIZE - read_size and read_size <= self.END - self.READ:
            self._octets[self.READ : self.READ + read_size] = ctypes.string_at(read, read_size)
            fields[5] = self._address + self.READ
        is_moved = fields[5] != read
        self.RECORD.pack_into(self._octets, 16, *fields)
        number = self._ask(fd)
        fields = list(self.RECORD.unpack_from(self._octets, 16))
        fields[2], fields[5] = write, read
        if is_moved and fields[4]:
            ctypes.memmove(read, self._address + self.READ, fields[4])
        return number, self.RECORD.pack(*fields)

    def _ask(self, fd: int) -> int:
        """Ask for what is in the slot; return its errno, EINVAL where the lane is over."""
        while True:
            number = self._cells[0] = (self._cells[0] + 1) % (1 << 32)
            end = time.monotonic() + self.SPIN_SECONDS
            while self._cells[1] != number and self._cells[2] and time.monotonic() < end:
                libc.sched_yield()
            while self._cells[1] != number:
                if libc.ioctl(fd, self._enter, None) < 0:
                    if ctypes.get_errno() != errno.EINTR:
                        return ctypes.get_errno()
                elif self._cells[1] != number:
                    return errno.EINVAL
            result = -struct.unpack_from("=i", self._octets, 12)[0]
            if result != self._again:
                return result


class Worker:
    """A thread that takes blocking requests one after the other."""

    def __init__(self, puppet: Puppet) -> None:
        self._puppet = puppet
        self._lanes: dict[int, Lane] = {}
        self._requests: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def tid(self) -> int:
        tid = self._thread.native_id
        assert tid is not None
        return tid

    def take(self, request: dict[str, Any], blob: bytes) -> None:
        self._requests.put((request, blob))

    def end(self) -> None:
        self._requests.put(None)
        self._thread.join()

    def signal(self) -> None:
        ident = self._thread.ident
        assert ident is not None
        signal.pthread_kill(ident, signal.SIGUSR1)

    def _run(self) -> None:
        while True:
            item = self._requests.get()
            if item is None:
                return
            request, blob = item
            getattr(self, f"_{request['op']}")(request, blob)

    def _ioctl(self, request: dict[str, Any], blob: bytes) -> None:
        argument = None if request["null"] else ctypes.create_string_buffer(blob, len(blob) or 1)
        if request["late"]:
            argument = (ctypes.c_char * len(blob)).from_address(untouched_memory(blob))
        while True:
            number = self._call(request, argument)
            deliveries = self._puppet.deliveries.get(request["fd"])
            if number != errno.EREMOTEIO or deliveries is None:
                break
            deliveries.take()
        back = argument.raw[: len(blob)] if argument is not None else b""
        self._puppet.answer(request, back, errno=number)

    def _call(self, request: dict[str, Any], argument: Any) -> int:  # noqa: ANN401
        """Do an ioctl, through a lane where that is asked for and there is one."""
        fd = request["fd"]
        if request.get("lane") and argument is not None and len(argument) == Lane.RECORD.size:
            try:
                lane = self._lanes.get(fd) or Lane(fd, request["lane"])
            except OSError:
                return self._call({**request, "lane": None}, argument)
            self._lanes[fd] = lane
            number, argument.raw = lane.write_read(fd, argument.raw, self._puppet.heap)
            if number != errno.EINVAL:
                return number
            del self._lanes[fd]  # it left with BINDER_THREAD_EXIT, or this is another file
            return self._call({**request, "lane": None}, argument)
        failed = libc.ioctl(fd, request["request"], argument) < 0
        return ctypes.get_errno() if failed else 0

    def _epoll(self, request: dict[str, Any], _: bytes) -> None:
        poller = select.epoll()
        poller.register(request["fd"], select.EPOLLIN | (select.EPOLLET if request["edges"] else 0))
        self._puppet.epolls[poller.fileno()] = poller
        self._puppet.answer(request, errno=0, epoll=poller.fileno())

    def _epoll_wait(self, request: dict[str, Any], _: bytes) -> None:
        found = self._puppet.epolls[request["epoll"]].poll()
        self._puppet.answer(request, errno=0, revents=found[0][1] if found else 0)

    def _poll(self, request: dict[str, Any], _: bytes) -> None:
        poller = select.poll()
        poller.register(request["fd"], select.POLLIN)
        found = poller.poll(request["timeout"])
        self._puppet.answer(request, errno=0, revents=found[0][1] if found else 0)


def untouched_memory(blob: bytes) -> int:
    """Return the address of memory that holds ``blob`` and is in no page table before its use."""
    size = os.sysconf("SC_PAGE_SIZE")
    fd = os.memfd_create("untouched", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, blob.ljust(size, b"\0"), 0)
        return map_memory(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd)
    finally:
        os.close(fd)


class Puppet:
    """The process: its control socket, its memory, its threads."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lock = threading.Lock()  # of the socket's sending side
        self._workers: dict[int, Worker] = {}
        self._received = bytearray()
        self._descriptors: list[int] = []
        self.epolls: dict[int, select.epoll] = {}
        self.deliveries: dict[int, Deliveries] = {}  # by the descriptor of the device
        anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard_size = os.sysconf("SC_PAGE_SIZE")
        self.heap = map_memory(HEAP_SIZE + guard_size, PROT_READ | PROT_WRITE, anonymous)
        if libc.mprotect(self.heap + HEAP_SIZE, guard_size, 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def run(self) -> None:
        """Serve until the other side closes the socket."""
        while True:
            request = json.loads(self._take_line())
            blob = self._take(request["size"])
            if request["op"] in ("ioctl", "poll", "epoll", "epoll_wait"):
                self._workers[request["thread"]].take(request, blob)
                continue
            try:
                getattr(self, f"op_{request['op']}")(request, blob)
            except OSError as error:
                self.answer(request, errno=error.errno or errno.EIO)

    def answer(self, request: dict[str, Any], blob: bytes = b"", **fields: int) -> None:
        line = json.dumps({"id": request["id"], "size": len(blob), **fields}).encode()
        with self._lock:
            self._control.sendall(line + b"\n" + blob)

    def _receive(self) -> None:
        octets, descriptors, _, _ = socket.recv_fds(self._control, READ_SIZE, 1)
        self._descriptors += descriptors
        if not octets:
            os._exit(0)
        self._received += octets

    def _take_line(self) -> bytes:
        while b"\n" not in self._received:
            self._receive()
        return self._take(self._received.index(b"\n") + 1)

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    # Requests that are carried out at once

    def op_hello(self, request: dict[str, Any], _: bytes) -> None:
        if request["nice"]:
            os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
        if request["nice_limit"]:
            try:
                limits = (request["nice_limit"], request["nice_limit"])
                resource.setrlimit(resource.RLIMIT_NICE, limits)
            except ValueError:
                self.answer(request, errno=errno.EPERM)
                return
        if request["uid"]:
            os.setresuid(request["uid"], request["uid"], request["uid"])
        self.answer(request, errno=0, pid=os.getpid(), heap=self.heap)

    def op_open(self, request: dict[str, Any], _: bytes) -> None:
        fd = os.open(request["path"], request["flags"] | os.O_CLOEXEC)
        self.answer(request, errno=0, fd=fd)

    def op_attach(self, request: dict[str, Any], _: bytes) -> None:
        fd = request["fd"]
        self.deliveries[fd] = Deliveries(fd, request["attach"], request["report"])
        self.answer(request, errno=0)

    def op_new_file(self, request: dict[str, Any], _: bytes) -> None:
        kind = request["kind"]
        if kind == "pipe":
            fd, other = os.pipe()
            os.close(other)
        elif kind == "socket":
            fd, other = (end.detach() for end in socket.socketpair())
            os.close(other)
        elif kind == "memory":
            fd = os.memfd_create("test")
        elif kind == "device":
            fd = os.dup(request["device"])
        elif kind == "uring":
            fd = system_call(IO_URING_SETUP, 4, ctypes.create_string_buffer(120))
        elif kind == "regular":
            fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
        else:
            flags = os.O_PATH if kind == "path" else os.O_RDWR
            fd = os.open(os.devnull, flags)
        if request["nonblocking"]:
            os.set_blocking(fd, False)
        self.answer(request, errno=0, fd=fd)

    def op_file_state(self, request: dict[str, Any], _: bytes) -> None:
        fd = request["fd"]
        close_on_exec, blocking = fcntl.fcntl(fd, fcntl.F_GETFD), os.get_blocking(fd)
        self.answer(request, errno=0, close_on_exec=close_on_exec, blocking=blocking)

    def op_close(self, request: dict[str, Any], _: bytes) -> None:
        os.close(request["fd"])
        self.answer(request, errno=0)

    def op_nonblock(self, request: dict[str, Any], _: bytes) -> None:
        os.set_blocking(request["fd"], False)
        self.answer(request, errno=0)

    def op_mmap(self, request: dict[str, Any], _: bytes) -> None:
        kind = MAP_SHARED if request["shared"] else MAP_PRIVATE
        if not request["area"]:
            address = map_memory(request["length"], request["protection"], kind, request["fd"])
        else:
            fd = receive_area(request["fd"], request["area"])
            try:
                address = map_memory(request["length"], request["protection"], kind, fd)
            finally:
                os.close(fd)
            libc.madvise(address, request["length"], MADV_DONTFORK)
        self.answer(request, errno=0, address=address)

    def op_unusual_memory(self, request: dict[str, Any], blob: bytes) -> None:
        kind = request["kind"]
        size = os.sysconf("SC_PAGE_SIZE")
        writable = PROT_READ | PROT_WRITE
        if kind == "kernel":
            with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
                [line, *_] = [line for line in maps if "[vvar]" in line]
            self.answer(request, errno=0, address=int(line.partition("-")[0], 16))
            return
        if kind == "untouched":
            self.answer(request, errno=0, address=untouched_memory(blob))
            return
        if kind == "secret":
            fd = system_call(MEMFD_SECRET, 0)
            os.ftruncate(fd, size)
            address = map_memory(size, writable, MAP_SHARED, fd)
            os.close(fd)
        else:
            address = map_memory(size, writable, MAP_PRIVATE | MAP_ANONYMOUS)
        ctypes.memmove(address, blob, len(blob))
        if kind == "execute" and libc.mprotect(address, size, PROT_EXEC):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.answer(request, errno=0, address=address)

    def op_munmap(self, request: dict[str, Any], _: bytes) -> None:
        failed = libc.munmap(request["address"], request["length"])
        self.answer(request, errno=ctypes.get_errno() if failed else 0)

    def op_nice(self, request: dict[str, Any], _: bytes) -> None:
        """Change a thread's nice value if there is one in the request; say what it is."""
        if request["nice"] is not None:
            os.setpriority(os.PRIO_PROCESS, request["thread"], request["nice"])
        self.answer(request, errno=0, nice=os.getpriority(os.PRIO_PROCESS, request["thread"]))

    def op_run_out_of_files(self, request: dict[str, Any], _: bytes) -> None:
        """Make the lowest free number the first that is not allowed."""
        lowest = os.dup(self._control.fileno())
        os.close(lowest)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        self.answer(request, errno=0)

    def op_exec(self, request: dict[str, Any], _: bytes) -> None:
        """Become another program, which gives the answer."""
        for fd in (request["fd"], self._control.fileno()):
            os.set_inheritable(fd, True)
        flags = ["-I", "-S", "-W", "ignore"]
        program = os.path.abspath(__file__)
        arguments = [program, str(self._control.fileno()), str(request["id"])]
        os.execv(sys.executable, [sys.executable, *flags, *arguments])

    def op_become(self, request: dict[str, Any], _: bytes) -> None:
        os.setresuid(request["uid"], request["uid"], request["uid"])
        self.answer(request, errno=0)

    def op_read_file(self, request: dict[str, Any], _: bytes) -> None:
        with open(request["path"], "rb") as file:
            self.answer(request, file.read(), errno=0)

    def op_poke(self, request: dict[str, Any], blob: bytes) -> None:
        ctypes.memmove(request["address"], blob, len(blob))

    def op_peek(self, request: dict[str, Any], _: bytes) -> None:
        self.answer(request, ctypes.string_at(request["address"], request["length"]), errno=0)

    def op_thread(self, request: dict[str, Any], _: bytes) -> None:
        worker = Worker(self)
        self._workers[worker.tid] = worker
        self.answer(request, errno=0, tid=worker.tid)

    def op_end(self, request: dict[str, Any], _: bytes) -> None:
        self._workers.pop(request["thread"]).end()
        self.answer(request, errno=0)

    def op_signal(self, request: dict[str, Any], _: bytes) -> None:
        self._workers[request["thread"]].signal()
        self.answer(request, errno=0)

    def op_fork(self, request: dict[str, Any], _: bytes) -> None:
        """Fork; the child serves the socket that came with the request."""
        with self._lock:
            users = request["users"]
            child = fork_into_namespaces(*users) if users else os.fork()
        descriptor = self._descriptors.pop(0)
        if child:
            os.close(descriptor)
            self.answer(request, errno=0)
            return
        self._control.close()
        self._control = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._workers = {}
        self._received.clear()


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    puppet = Puppet(socket.socket(fileno=int(sys.argv[1])))
    for number in sys.argv[2:]:
        puppet.answer({"id": int(number)}, errno=0)
    puppet.run()


if __name__ == "__main__":
    main()
