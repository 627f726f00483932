# SPDX-License-Identifier: Apache-2.0
"""A server process for the tests: the context manager of a device, able to do many things.

``peer.py DEVICE [--threads N] [--name NAME]``: with a name it registers with the service manager
instead.  Prints "ready", serves until the end of stdin and ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from binderclient.blocking import Device
from binderclient.errors import RemoteException
from binderclient.files import ReceivedFile
from binderclient.objects import Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.ibinder import IBinder

DESCRIPTOR = "org.binderd.test.IPeer"
ECHO, WHO, CALL_BACK, HOLD, DROP, SLEEP, DIE, RAISE, NOTE, JOURNAL, GIVE, SEND_FD, RETURN = range(
    1, 14
)
LEND, COUNT, SWAP = range(14, 17)


class Gift(Service):
    """An object that the peer hands out."""

    @transaction(1)
    def answer(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(os.getpid())


class PeerService(Service):
    descriptor: ClassVar[str] = DESCRIPTOR
    accepts_descriptors: ClassVar[bool] = True

    def __init__(self, die: Callable[[], None]) -> None:
        self._die = die
        self.journal: list[str] = []
        self.held: list[IBinder | None] = []

    @transaction(ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        reply.write_bytes(data.read_blob())

    @transaction(WHO)
    def who(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32_array([caller().sender_pid, caller().sender_euid, os.getpid()])

    @transaction(CALL_BACK)
    def call_back(self, data: Parcel, reply: Parcel) -> None:
        """Call the object that came along, depth first; reply with what it says plus one."""
        target = data.read_strong_binder()
        depth = data.read_int32()
        assert isinstance(target, Proxy)
        request = Parcel()
        request.write_int32(depth - 1)
        with target.call(1, request) as answer:
            reply.write_int32(answer.read_int32() + 1)

    @transaction(HOLD)
    def hold(self, data: Parcel, _reply: Parcel) -> None:
        self.held.append(data.read_strong_binder())

    @transaction(DROP)
    def drop(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(len(self.held))
        self.held.clear()

    @transaction(SLEEP)
    def sleep(self, data: Parcel, reply: Parcel) -> None:
        time.sleep(data.read_int32() / 1000)
        reply.write_int32(threading.get_native_id())

    @transaction(DIE)
    def die(self, _data: Parcel, _reply: Parcel) -> None:
        self._die()

    @transaction(RAISE)
    def fail(self, data: Parcel, _reply: Parcel) -> None:
        kind = data.read_string16()
        if kind == "RemoteException":
            raise RemoteException(-8, "specific", service_specific=data.read_int32())
        raise {"PermissionError": PermissionError, "KeyError": KeyError}[kind or ""]("why")

    @transaction(NOTE)
    def note(self, data: Parcel, _reply: Parcel) -> None:
        self.journal.append(f"note {data.read_int32()} {caller().sender_pid}")

    @transaction(JOURNAL)
    def read_journal(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_string16_array(self.journal)

    @transaction(GIVE)
    def give(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_strong_binder(Gift())

    @transaction(RETURN)
    def give_back(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_strong_binder(self.held[-1])

    @transaction(SEND_FD)
    def send_fd(self, data: Parcel, reply: Parcel) -> None:
        with data.read_file() as file:
            os.write(file.fileno(), b"written by the peer")
            reply.write_int32(file.fileno())

    @transaction(LEND)
    def lend(self, data: Parcel, reply: Parcel) -> None:
        """Reply with so many new files, each with its number in it."""
        for number in range(data.read_int32()):
            file = ReceivedFile(os.memfd_create("lent"))  # closed when nobody has it any more
            os.write(file.fileno(), b"%d" % number)
            reply.write_file(file)

    @transaction(COUNT)
    def count(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(len(os.listdir("/proc/self/fd")) - 1)

    @transaction(SWAP)
    def swap(self, data: Parcel, reply: Parcel) -> None:
        """Send back the files that came, the last one first."""
        files = [data.read_file() for _ in range(data.read_int32())]
        for file in reversed(files):
            reply.write_file(file)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start(path: str, *arguments: str, die: Callable[[], None] = kill_this_process) -> Device:
    """Open a device and serve on it; arguments as on the command line.

    Args:
        die: what DIE does.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--name")
    chosen = parser.parse_args(arguments)
    service = PeerService(die)
    device = Device(path, max_threads=chosen.threads)
    if chosen.name is None:
        device.become_context_manager(service)
    else:
        ServiceManager(device).add(chosen.name, service)
    device.start_thread_pool()
    return device


def main() -> None:
    with start(*sys.argv[1:]):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
