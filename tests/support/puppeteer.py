# SPDX-License-Identifier: Apache-2.0
"""The other end of ``puppet.py``: starting client processes, commanding and watching them.

One puppet per test session, the zygote, opens no device; every other one is forked from it, which
is much faster than starting an interpreter.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from support.patience import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE: Final = patience(30.0)  # seconds until something that must happen is taken to have failed
GLANCE: Final = 0.0005  # seconds between two looks at a thread
PROGRAM: Final = Path(__file__).with_name("puppet.py").resolve()
READ_SIZE: Final = 1 << 20
CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
# ioctl, poll, ppoll and epoll_wait of x86-64 and of the architectures with the generic table
CALLS: Final = {"x86_64": (16, 7, 271, 232)}.get(os.uname().machine, (29, 73, 22))


class Puppet:
    """One client process."""

    def __init__(
        self, control: socket.socket, uid: int = 0, *, nice: int = 0, nice_limit: int = 0
    ) -> None:
        self._control = control
        self._received = bytearray()
        self._answers: dict[int, tuple[dict[str, Any], bytes]] = {}
        self._last_id = 0
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        number = self.send("hello", uid=uid, nice=nice, nice_limit=nice_limit)
        self.pid = self._receive_pid()
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self._pidfd = os.pidfd_open(self.pid)
        self.alive = True
        hello, _ = self.answer(number)
        if hello["errno"]:
            self.kill()
            raise OSError(hello["errno"], f"client: {os.strerror(hello['errno'])}")
        self.own_pid: int = hello["pid"]  # as the process itself knows it
        self.heap: int = hello["heap"]

    def send(self, op: str, blob: bytes = b"", *, fds: tuple[int, ...] = (), **fields: Any) -> int:  # noqa: ANN401
        """Send a request without waiting; return its id."""
        self._last_id += 1
        line = json.dumps({"id": self._last_id, "op": op, "size": len(blob), **fields}).encode()
        if fds:
            socket.send_fds(self._control, [line + b"\n"], list(fds))
        else:
            self._control.sendall(line + b"\n" + blob)
        return self._last_id

    def answered(self, number: int, seconds: float = 0.0) -> bool:
        """Whether the answer is there, waiting for news of any kind at most so long."""
        if number not in self._answers and select.select([self._control], [], [], seconds)[0]:
            octets = self._control.recv(READ_SIZE)
            assert octets, f"client {self.pid} is gone"
            self._received += octets
            self._sort()
        return number in self._answers

    def answer(self, number: int) -> tuple[dict[str, Any], bytes]:
        """Wait for an answer and take it."""
        deadline = time.monotonic() + PATIENCE
        while not self.answered(number, GLANCE * 20):
            assert time.monotonic() < deadline, f"client {self.pid} does not come back"
        return self._answers.pop(number)

    def ask(self, op: str, blob: bytes = b"", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a request and wait; an errno becomes an OSError."""
        answer, _ = self.answer(self.send(op, blob, **fields))
        if answer["errno"]:
            raise OSError(answer["errno"], f"{op}: {os.strerror(answer['errno'])}")
        return answer

    def peek(self, address: int, size: int) -> bytes:
        answer, blob = self.answer(self.send("peek", address=address, length=size))
        assert not answer["errno"]
        return blob

    def fork(
        self,
        uid: int = 0,
        *,
        nice: int = 0,
        nice_limit: int = 0,
        users: tuple[int, int] | None = None,
    ) -> Puppet:
        """Let the process fork; return the child.

        Args:
            uid: whom the child becomes, as it knows users itself.
            nice_limit: its RLIMIT_NICE; 0: as we have it.
            users: the child gets namespaces of its own, with these users: (first, count).

        Raises:
            OSError: it may not become that.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            number = self.send("fork", fds=(theirs.fileno(),), users=users)
            self.answer(number)
        return Puppet(ours, uid, nice=nice, nice_limit=nice_limit)

    def exec(self, fd: int) -> None:
        """Let the process run the program anew, with nothing but its socket and ``fd``."""
        self.ask("exec", fd=fd)
        hello = self.ask("hello", uid=0, nice=0, nice_limit=0)
        self.heap = hello["heap"]

    def tid_outside(self, tid: int) -> int:
        """Return how we know the thread that its process knows as ``tid``."""
        if self.pid == self.own_pid:
            return tid
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            status = (task / "status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if int(ids.split()[-1]) == tid:
                return int(task.name)
        raise AssertionError(f"client {self.pid} has no thread {tid}")

    def nap(self, tid: int) -> str | None:
        """Return how often the thread went to sleep if it sleeps in an ioctl or poll, else None.

        As long as that number stays the same, it is the same sleep.
        """
        task = f"/proc/{self.pid}/task/{tid}"
        try:
            call = Path(task, "syscall").read_text().split(maxsplit=1)[0]
            status = Path(task, "status").read_text()
        except OSError:
            return None
        if call == "running" or int(call) not in CALLS or "State:\tS" not in status:
            return None
        return status[status.index("voluntary_ctxt_switches") :]

    def kill(self, *, is_child: bool = False) -> None:
        """Kill the process and wait until nothing of it is left.

        Args:
            is_child: it is ours; its parent, who will hear of its end.
        """
        if not self.alive:
            return
        self.alive = False
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        gone, _, _ = select.select([self._pidfd], [], [], PATIENCE)
        if gone and not is_child:
            self._wait_until_reaped()
        os.close(self._pidfd)
        self._control.close()
        assert gone, f"client {self.pid} cannot be killed"

    def _wait_until_reaped(self) -> None:
        """Nobody waits for it, so that takes no time; but until then it has its number."""
        deadline = time.monotonic() + PATIENCE
        while "\nPid:\t-1\n" not in Path(f"/proc/self/fdinfo/{self._pidfd}").read_text():
            assert time.monotonic() < deadline, f"client {self.pid} is a zombie"
            time.sleep(GLANCE)

    def _receive_pid(self) -> int:
        """Receive something; return who sent it, as we know that process."""
        assert select.select([self._control], [], [], PATIENCE)[0], "a client says nothing"
        room = socket.CMSG_SPACE(CREDENTIALS.size)
        octets, ancillary, _, _ = self._control.recvmsg(READ_SIZE, room)
        self._received += octets
        self._sort()
        level, kind, credentials = ancillary[0]
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        return int(CREDENTIALS.unpack(credentials)[0])

    def _sort(self) -> None:
        """Move complete answers out of what was received."""
        while (end := self._received.find(b"\n")) >= 0:
            answer = json.loads(self._received[:end])
            size = end + 1 + answer["size"]
            if len(self._received) < size:
                return
            self._answers[answer["id"]] = (answer, bytes(self._received[end + 1 : size]))
            del self._received[:size]


@contextmanager
def start_zygote() -> Iterator[Puppet]:
    """The interpreter that all clients are forked from."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(PROGRAM), str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
    with suppress(PermissionError):  # clients start at 0, also where the tests were made nice
        os.setpriority(os.PRIO_PROCESS, process.pid, 0)
    with process:
        puppet = Puppet(ours)
        try:
            yield puppet
        finally:
            puppet.kill(is_child=True)
