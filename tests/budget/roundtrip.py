# SPDX-License-Identifier: Apache-2.0
"""What ``make budget`` counts: calls of 16 bytes through the daemon's request path, in one process.

Theory of operation. The daemon's parts are connected as ``assembly.py`` does it, without a mount:
its channel is one end of a socket that keeps messages apart, and at the other end we are the
kernel. Two client processes have nothing but memory, in which everything lies from the start that
a client would write before its ioctls; the daemon reads and writes it as it does any client's. Each
time the loop waits for the next request we take the replies and put a request there.

So the same instructions are executed whenever this is run: nobody else takes part, the clock is a
counter, and which requests come is fixed. A call takes the three that a client in C needs:

    call    the client frees the last reply, sends 16 bytes and sleeps; the server's read ends
    answer  the server frees the call and sends its reply; the client's read ends, and its own
    sleep   the server reads again, and sleeps

Run as ``roundtrip.py CALLS [LIBRARY]``: so many calls are made, and LIBRARY (of ``collect.c``) has
the instructions of the daemon collected in a part of their own.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
from contextlib import ExitStack
from errno import ESTALE
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import binderd.service  # noqa: F401 - first, as the daemon does
from binderd.channel.kernel_fd import KernelFd
from binderd.channel.pump import Pump
from binderd.channel.readiness import Readiness
from binderd.device.fuse_device import FuseDevice
from binderd.device.open_files import OpenFiles
from binderd.device.pace import Pace
from binderd.engine.engine import Engine
from binderd.engine.limits import Limits
from binderd.fuse.directory import Directory
from binderd.fuse.entrance import Entrance
from binderd.fuse.pages import Choice
from binderd.fuse.server import READ_BUFFER_SIZE
from binderd.fuse.session import Session
from binderd.fuse.tree import Tree
from binderd.fuse.turns import Turns
from binderd.garbage import Garbage
from binderd.memory.client import FileOpener
from binderd.memory.shrinker import Shrinker
from binderd.memory.thread_watch import ThreadWatch
from binderwire import binder_abi as abi
from binderwire import fuse_abi
from support import bc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderd.memory.remote_access import RemoteAccess

DEVICE: Final = b"binder"
AREA_SIZE: Final = 4 << 20  # bytes; what the driver caps every mapping at
READ_SIZE: Final = 256  # bytes
WARM_UP: Final = 50  # calls
PAYLOAD: Final = b"sixteen bytes..."
_TICK_NS: Final = 100  # by which the clock goes on each time when it is asked
_FRAME_MAX: Final = 4096

# Where a client has what, in bytes from where its memory starts.
_COMMANDS: Final = 0
_READ_BUFFER: Final = 1024
_PAYLOAD: Final = 8192
_MEMORY_SIZE: Final = 16384

# A client: says where its memory is, is told which file it has open, says where it has mapped that.
_CLIENT: Final = f"""
import ctypes, mmap, sys
def show(mapping):
    print(ctypes.addressof(ctypes.c_char.from_buffer(mapping)), flush=True)
memory = mmap.mmap(-1, {_MEMORY_SIZE}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
show(memory)
with open(sys.stdin.readline().strip(), "rb") as file:
    area = mmap.mmap(file.fileno(), {AREA_SIZE}, mmap.MAP_PRIVATE)
show(area)
sys.stdin.read()
"""


class NoWorkers:
    """No worker is needed: the clients' memory is all there (the port ``Workers``)."""

    def begin(self, access: RemoteAccess, ticket: int) -> bool:
        raise AssertionError("memory that is there is not looked at as such")


class NoDelivery:
    """No file is delivered (the ports ``Deliveries`` and ``Delivery``)."""

    injects = False
    disposer = None

    def of(self, client: object) -> NoDelivery:
        return self

    def is_own(self, tid: int) -> bool:
        return False

    def close(self) -> None: ...


class Daemon:
    """The parts of the daemon, connected; what ``Assembly`` makes of a transport without a mount.

    Args:
        clock: for all of them.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        engine, turns = Engine(Limits(), clock), Turns(clock, clock)
        shrinker = Shrinker(lambda: None, _unused)
        watch = ThreadWatch()
        watch.is_available = False  # valgrind knows no pidfd
        self.opener = FileOpener(None, shrinker, watch, NoDelivery(), "", NoWorkers())
        directory = Directory([DEVICE.decode()])
        self.files = OpenFiles(
            engine, directory, self.opener, turns, Pace(clock), _unused, _unused, _raise
        )
        tree = Tree(directory, Choice(clock))
        entrance = Entrance(clock, _unused)
        device = FuseDevice(self.files, tree, directory, self.opener, entrance)
        self.turns = turns
        self.session = Session(tree, device, _unused, _raise, turns, has_passthrough=False)

    def close(self) -> None:
        """Let go of the clients."""
        for client in list(self.opener._clients):
            client.close()


class Switch:
    """Whether instructions are collected.

    Args:
        library: of ``collect.c``; "": it makes no difference.
    """

    def __init__(self, library: str) -> None:
        self.turn: Callable[[], object] = lambda: None
        self._begin: Callable[[], object] = lambda: None
        self._end: Callable[[bytes], object] = lambda part: None
        if library:
            functions = ctypes.PyDLL(library)
            self.turn = functions.turn
            self._begin, self._end = functions.begin, functions.end

    def begin(self) -> None:
        """From now on everything is slow; nothing is collected before ``turn``."""
        self._begin()

    def end_part(self, name: str) -> None:
        """Write down what was collected since the last part, under a name."""
        self._end(name.encode())


class Over(Exception):
    """All calls were made."""


class Kernel:
    """The kernel at the other end of the daemon's channel, and what that looks at (``Poll``).

    Args:
        requests: to be served one after the other.
        switch: on while the daemon has its turn.
    """

    def __init__(self, requests: Iterator[bytes], switch: Switch) -> None:
        near, self._far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._far_end.setblocking(False)
        self._requests = requests
        self._switch = switch
        self._poll = select.poll()
        self.register, self.unregister = self._poll.register, self._poll.unregister
        self.replies: list[bytes] = []
        self.channel = KernelFd(near.detach(), READ_BUFFER_SIZE)
        self.channel.readiness = Readiness(self.channel.fileno(), 0, self)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Let the next request come."""
        self._switch.turn()
        self._take_replies()
        request = next(self._requests, None)
        if request is None:
            raise Over
        self._far_end.send(request)
        self._switch.turn()
        return self._poll.poll(timeout)

    def _take_replies(self) -> None:
        while True:
            try:
                self.replies.append(self._far_end.recv(_FRAME_MAX))
            except BlockingIOError:
                return

    def close(self) -> None:
        """Close both ends."""
        self._far_end.close()
        os.close(self.channel.fileno())


class Client:
    """A client process, and what it has open."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        # Like the node that is called: a call at another's nice value would take that on.
        os.setpriority(os.PRIO_PROCESS, self.pid, 0)
        self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)
        self._start = self._address()
        self.area = 0  # where it has mapped its receive area
        self.handle = 0  # of its open file
        self._written = 0  # how many bytes of commands there are

    def _address(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def map(self, fd: int) -> None:
        """Map the receive area, of which the daemon has that descriptor."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"/proc/{os.getpid()}/fd/{fd}\n")
        self._process.stdin.flush()
        self.area = self._address()

    def end(self) -> None:
        """End the process."""
        with self._process:
            self._process.kill()
        os.close(self._memory)

    def poke(self, offset: int, octets: bytes) -> int:
        """Put bytes into its memory; return their address."""
        os.pwrite(self._memory, octets, self._start + offset)
        return self._start + offset

    def will_write(self, commands: bytes) -> None:
        """Have its ioctls write commands."""
        self.poke(_COMMANDS, commands)
        self._written = len(commands)

    def will_send(self, parcel: bc.Parcel) -> None:
        """Have its ioctls send that, once it has freed what it was sent before."""
        payload = self.poke(_PAYLOAD, parcel.data)
        self.poke(_READ_BUFFER, bytes(READ_SIZE))
        self.will_write(bc.free(self.area) + parcel.place(lambda _: payload))

    def has_reply(self) -> bool:
        """Whether the last that it has read is a reply with the payload."""
        words = abi.BR_NOOP, abi.BR_TRANSACTION_COMPLETE, abi.BR_REPLY
        head = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        stream = os.pread(self._memory, READ_SIZE, self._start + _READ_BUFFER)
        if not stream.startswith(head):
            return False
        found = abi.binder_transaction_data.read(stream, len(head))
        return os.pread(self._memory, found.data_size, found.buffer) == PAYLOAD

    def ioctl(self, unique: int, *, writes: bool = True, reads: bool = True) -> bytes:
        """Return the request of a BINDER_WRITE_READ."""
        argument = abi.binder_write_read.build(
            write_size=self._written if writes else 0,
            write_buffer=self._start + _COMMANDS,
            read_size=READ_SIZE if reads else 0,
            read_buffer=self._start + _READ_BUFFER,
        )
        return self.other_ioctl(unique, abi.BINDER_WRITE_READ, argument)

    def other_ioctl(self, unique: int, request: int, argument: bytes) -> bytes:
        """Return the request of any ioctl."""
        size = len(argument)
        head = fuse_abi.fuse_ioctl_in.pack(self.handle, 0, request, 0, size, size)
        return frame(fuse_abi.FUSE_IOCTL, unique, self.pid, head + argument)


def frame(opcode: int, unique: int, tid: int, body: bytes, nodeid: int = 1) -> bytes:
    """Return a request as the kernel sends it."""
    size = fuse_abi.fuse_in_header.size + len(body)
    header = fuse_abi.fuse_in_header.pack(size, opcode, unique, nodeid, 0, 0, tid, 0, 0)
    return header + body


def _raise(about: object, error: Exception) -> NoReturn:
    raise error


def _unused(*arguments: object) -> None:
    raise AssertionError(f"this is no part of a call: {arguments}")


def ask(daemon: Daemon, request: bytes) -> bytes:
    """Have a request served at once; return the body of its answer.

    Raises:
        OSError: it is answered with an errno.
    """
    buffer = bytearray(READ_BUFFER_SIZE)
    buffer[: len(request)] = request
    daemon.session.receive(buffer, len(request))
    outgoing = daemon.session.outgoing
    assert len(outgoing) == 1, outgoing
    answer = outgoing.pop()
    head = fuse_abi.fuse_out_header
    if error := -head.read(answer).error:
        raise OSError(error, head.describe(answer))
    return answer[head.size :]


def open_device(daemon: Daemon, client: Client, uniques: Iterator[int]) -> None:
    """Let a process open the device and map it."""
    body = fuse_abi.fuse_open_in.pack(os.O_RDWR, 0)
    while not client.handle:
        request = frame(fuse_abi.FUSE_LOOKUP, next(uniques), client.pid, DEVICE + b"\0")
        nodeid = fuse_abi.fuse_entry_out.read(ask(daemon, request)).nodeid
        request = frame(fuse_abi.FUSE_OPEN, next(uniques), client.pid, body, nodeid)
        try:
            client.handle = fuse_abi.fuse_open_out.read(ask(daemon, request)).fh
        except OSError as error:
            if error.errno != ESTALE:  # then the kernel begins anew
                raise
    client.map([arena.fd for arena in daemon.opener.arenas()][-1])


def become_manager(daemon: Daemon, server: Client, uniques: Iterator[int]) -> None:
    """Let a client be who is called as handle 0."""
    ask(daemon, server.other_ioctl(next(uniques), abi.BINDER_SET_CONTEXT_MGR, bytes(4)))
    server.will_write(bc.enter_looper())
    ask(daemon, server.ioctl(next(uniques), reads=False))


def requests(client: Client, server: Client, calls: int, uniques: Iterator[int]) -> Iterator[bytes]:
    """Yield the requests of so many calls, behind the one that the server sleeps in."""
    for _ in range(calls):
        yield client.ioctl(next(uniques))
        yield server.ioctl(next(uniques))
        yield server.ioctl(next(uniques), writes=False)


def serve(daemon: Daemon, frames: Iterator[bytes], switch: Switch) -> list[bytes]:
    """Let the daemon's loop serve requests; return its replies."""
    kernel = Kernel(frames, switch)
    pump = Pump(kernel.channel, daemon.session, daemon.turns, lambda error: _raise("", error))
    loop = pump.run()
    try:
        switch.turn()
        loop.send(None)  # it never waits: there is a request, or that is all
    except Over:
        return kernel.replies
    finally:
        kernel.close()
    raise AssertionError("the loop waits")


def check(replies: list[bytes], calls: int) -> None:
    """See that each request was answered, and none with an error."""
    assert len(replies) == 3 * calls, f"{len(replies)} replies to {calls} calls"
    for reply in replies:
        size, error, unique = fuse_abi.fuse_out_header.unpack_from(reply)
        result = fuse_abi.fuse_ioctl_out.unpack_from(reply, fuse_abi.fuse_out_header.size)[0]
        assert (size, error, result) == (len(reply), 0, 0), f"{unique}: {error} {result}"


def run(calls: int, switch: Switch) -> None:
    """Make so many calls."""
    uniques = count(2, 2)
    with ExitStack() as stack:
        daemon = Daemon(count(1_000_000_000, _TICK_NS).__next__)
        stack.callback(daemon.close)
        server, client = Client(), Client()
        for process in (server, client):
            stack.callback(process.end)
            open_device(daemon, process, uniques)
        become_manager(daemon, server, uniques)
        server.will_send(bc.reply(PAYLOAD))
        client.will_send(bc.call(0, PAYLOAD))
        _garbage = Garbage()  # the collector, as the daemon has it

        first = server.ioctl(next(uniques), writes=False)
        serve(daemon, iter([first, *requests(client, server, WARM_UP, uniques)]), Switch(""))
        made = list(requests(client, server, calls, uniques))
        switch.begin()
        for _ in made:  # what the switch itself takes
            switch.turn()
            switch.turn()
        switch.end_part("switch")
        replies = serve(daemon, iter(made), switch)
        switch.end_part("calls")
        check(replies, calls)
        assert client.has_reply()


if __name__ == "__main__":
    run(int(sys.argv[1]), Switch(*sys.argv[2:3] or [""]))
