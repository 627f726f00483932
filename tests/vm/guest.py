# SPDX-License-Identifier: Apache-2.0
"""The agent: the first process inside the machine, or a service. It runs commands for the host.

It knows the frames and nothing of QEMU. Python itself is slow to start in the emulated machine, so
it imports little, and the machine is ready some 0.2 s after the agent began.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from vm import frames

TYPE_CHECKING = False  # typing takes long to import here
if TYPE_CHECKING:
    from typing import Final, NoReturn

PIECE: Final = 65536
PIPE_SIZE_MAX: Final = 1 << 20
DEVICES: Final = ("/dev/binder", "/dev/cuse", "/dev/fuse", "/sys/kernel/debug/binder")


class Job:
    """A command that runs, and our ends of its three pipes."""

    def __init__(self, number: int, content: bytes) -> None:
        self.number = number
        self.unwritten = bytearray()
        self.input_ends = False
        theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        self.stderr, theirs_err = os.pipe()
        self.process = os.fork()
        if not self.process:
            _become_command(content, (theirs_in, theirs_out, theirs_err))
        for theirs in (theirs_in, theirs_out, theirs_err):
            os.close(theirs)
        for ours in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(ours, False)

    def write_input(self) -> bool:
        """Write what the pipe takes; return whether to wait until it takes more."""
        try:
            while self.unwritten:
                del self.unwritten[: os.write(self.stdin, self.unwritten[:PIECE])]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self.unwritten.clear()
        if self.input_ends and self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
        return False


def _become_command(content: bytes, standard: tuple[int, int, int]) -> NoReturn:
    """Be the child: replace this process by the command."""
    status = 126
    try:
        command, directory, environment = frames.unpack_command(content)
        os.setsid()
        for target, source in enumerate(standard):
            os.dup2(source, target)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(directory)
        os.execve("/bin/bash", ["bash", "-c", command], environment)
    except OSError as error:
        os.write(2, f"binderd-vm: cannot start the command: {error}\n".encode())
    finally:
        os._exit(status)


class Agent:
    """Serves the port until the host is gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._parser = frames.Parser()
        self._jobs: dict[int, Job] = {}
        self._output: dict[int, tuple[int, int]] = {}  # pipe: (kind of frame, job number)
        self._epoll = select.epoll()
        self._wakeup = _signal_pipe()
        for descriptor in (port, self._wakeup):
            self._epoll.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        """Return when the host closed the port."""
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._port:
                    piece = os.read(self._port, PIECE)
                    if not piece:
                        return
                    for frame in self._parser.feed(piece):
                        self._obey(*frame)
                elif descriptor == self._wakeup:
                    os.read(self._wakeup, PIECE)
                    self._reap()
                elif descriptor in self._output:
                    self._forward(descriptor)
                else:
                    self._continue_input(descriptor)

    def _obey(self, kind: int, number: int, content: bytes) -> None:
        job = self._jobs.get(number)
        if kind == frames.RUN:
            job = self._jobs[number] = Job(number, content)
            for pipe, report in ((job.stdout, frames.OUTPUT), (job.stderr, frames.ERRORS)):
                self._output[pipe] = report, number
                self._epoll.register(pipe, select.EPOLLIN)
        elif job is None:  # it ended while the host was writing
            return
        elif kind == frames.INPUT:
            waiting = bool(job.unwritten)
            job.unwritten += content
            job.input_ends = job.input_ends or not content
            if not waiting and job.stdin >= 0 and job.write_input():
                self._epoll.register(job.stdin, select.EPOLLOUT)
        elif kind == frames.KILL:
            os.killpg(job.process, signal.SIGKILL)

    def _continue_input(self, pipe: int) -> None:
        job = next((job for job in self._jobs.values() if job.stdin == pipe), None)
        if job is None:  # closed by an event before this one
            return
        self._epoll.unregister(pipe)
        if job.write_input():
            self._epoll.register(pipe, select.EPOLLOUT)

    def _forward(self, pipe: int) -> bool:
        """Send on what the pipe has; return whether there was anything."""
        report, number = self._output[pipe]
        try:
            piece = os.read(pipe, PIECE)
        except BlockingIOError:
            return False
        if piece:
            send(self._port, report, number, piece)
        else:
            self._close_output(pipe)
        return bool(piece)

    def _close_output(self, pipe: int) -> None:
        if self._output.pop(pipe, None):
            os.close(pipe)

    def _reap(self) -> None:
        """Every orphan is ours to wait for: we are the first process."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            for job in tuple(self._jobs.values()):
                if job.process == process:
                    self._finish(job, os.waitstatus_to_exitcode(status))

    def _finish(self, job: Job, status: int) -> None:
        """Report the end. Processes that the command left behind keep running, without a reader."""
        for pipe in (job.stdout, job.stderr):
            for _ in range(PIPE_SIZE_MAX // PIECE):  # bounded: what was left behind may write on
                if pipe not in self._output or not self._forward(pipe):
                    break
            self._close_output(pipe)
        if job.stdin >= 0:
            os.close(job.stdin)
        del self._jobs[job.number]
        send(self._port, frames.EXIT, job.number, b"%d" % (status if status >= 0 else 128 - status))


def _signal_pipe() -> int:
    """Return a descriptor that becomes readable when a child has ended."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def send(port: int, kind: int, job: int, content: bytes = b"") -> None:
    unsent = memoryview(frames.pack(kind, job, content))
    while unsent:
        unsent = unsent[os.write(port, unsent) :]


def find_port() -> int:
    """Open our virtio-serial port; there is no udev to give it its name in /dev.

    Raises:
        OSError: there is none.
    """
    base = "/sys/class/virtio-ports"
    for name in os.listdir(base):
        with open(f"{base}/{name}/name", encoding="ascii") as file:
            if file.read().strip() == frames.PORT:
                return os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(frames.PORT)


def main() -> None:
    port = find_port()
    is_system = sys.argv[1:] == ["system"]  # then what is there is the system's business
    missing = [path for path in DEVICES if not is_system and not os.path.exists(path)]
    if missing:
        send(port, frames.BROKEN, 0, f"it has no {', '.join(missing)}".encode())
    else:
        with open("/proc/uptime", encoding="ascii") as file:
            send(port, frames.READY, 0, file.read().split()[0].encode())
    try:
        Agent(port).serve()
    finally:
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
            sys.stderr.flush()
            trigger.write("o")  # at once: nothing here is worth writing back


if __name__ == "__main__":
    main()
