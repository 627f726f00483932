# SPDX-License-Identifier: Apache-2.0
"""A client process of the demo: ``python -m binderclient.demo.client --help``.

Calls every server in a random but repeatable mix, checks every answer, and goes on without a
server that died until it is back.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final

from binderclient.blocking import Device
from binderclient.demo import workload
from binderclient.demo.child import Reporter, Stop
from binderclient.demo.patience import Patience
from binderclient.demo.workload import CorruptMessage, body_of, read_message, write_message
from binderclient.errors import BinderError, DeadObject
from binderclient.objects import Proxy, Service, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable

# A note waits for those of all others, and each of these for the calls that are queued before it.
_ACKNOWLEDGE_SECONDS: Final = 120.0


class Callback(Service):
    """What the servers call back into."""

    descriptor: ClassVar[str] = workload.CALLBACK_DESCRIPTOR

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acknowledged = 0

    @transaction(workload.ACKNOWLEDGE)
    def acknowledge(self, data: Parcel, _reply: Parcel) -> None:
        """Note that the server has handled all notes up to this one."""
        with self._changed:
            self._acknowledged = data.read_int64()
            self._changed.notify_all()

    @transaction(workload.ASK)
    def ask(self, data: Parcel, reply: Parcel) -> None:
        """Answer while the own call waits."""
        reply.write_int32(data.read_int32() + 1)

    def wait_acknowledged(self, sequence: int) -> None:
        """Return when note ``sequence`` has been handled, or its server is dead."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._acknowledged >= sequence, _ACKNOWLEDGE_SECONDS
            ):
                raise CorruptMessage(f"note {sequence} is not acknowledged")

    def give_up(self) -> None:
        """Wake the waiting thread: the server is dead."""
        with self._changed:
            self._acknowledged = sys.maxsize
            self._changed.notify_all()


class Peer:
    """One server, as this client sees it; as long as that server lives."""

    def __init__(self, client: int, name: str, proxy: Proxy, patience: Patience) -> None:
        self.name = name
        self.died = threading.Event()
        self._client = client
        self._proxy = proxy
        self._patience = patience
        self._callback = Callback()
        self._notes = 0
        proxy.link_to_death(self._on_death)
        patience.call(proxy, workload.HELLO, workload.hello(client, self._callback)).close()

    def _on_death(self, _proxy: Proxy) -> None:
        self.died.set()
        self._callback.give_up()

    def echo(self, sequence: int, size: int) -> None:
        """Send a message, check what comes back."""
        body = body_of(self._client, sequence, size)
        request = Parcel.for_interface(workload.DESCRIPTOR)
        write_message(request, self._client, sequence, body)
        with self._patience.call(self._proxy, workload.ECHO, request) as reply:
            message, returned = read_message(reply)
            if message[:2] != (self._client, sequence) or returned.nbytes != size:
                raise CorruptMessage(f"sent {sequence} with {size} bytes, got {message}")

    def note(self, size: int) -> None:
        """Send a one-way message; ``settle`` must follow."""
        self._notes += 1
        acknowledge = self._notes % workload.NOTES_UNDERWAY_MAX == 0
        request = Parcel.for_interface(workload.DESCRIPTOR)
        body = body_of(self._client, self._notes, size)
        write_message(request, self._client, self._notes, body)
        request.write_bool(acknowledge)
        self._patience.call(self._proxy, workload.NOTE, request, oneway=True)

    def settle(self) -> None:
        """Wait where too many one-way messages would be under way."""
        if self._notes % workload.NOTES_UNDERWAY_MAX == 0:
            self._callback.wait_acknowledged(self._notes)

    def nested(self, number: int) -> None:
        """Make the server call back while we wait."""
        request = Parcel.for_interface(workload.DESCRIPTOR)
        request.write_int32(self._client)
        request.write_int32(number)
        with self._patience.call(self._proxy, workload.NESTED, request) as reply:
            if reply.read_int32() != number + 1:
                raise CorruptMessage(f"a wrong answer to {number}")

    def leave(self) -> None:
        """Say goodbye; every note must have arrived."""
        while self._notes % workload.NOTES_UNDERWAY_MAX:
            self.note(0)  # calls overtake one-way ones: have all of these acknowledged first
        self.settle()
        request = Parcel.for_interface(workload.DESCRIPTOR)
        request.write_int32(self._client)
        with self._patience.call(self._proxy, workload.BYE, request) as reply:
            received = reply.read_int64()
        if received != self._notes:
            raise CorruptMessage(f"sent {self._notes} notes, {received} arrived")
        self._proxy.unlink_to_death(self._on_death)


class Client:
    """The loop: picks a server and something to do, measures it, reports."""

    def __init__(self, number: int, seed: int, device: Device, servers: list[str]) -> None:
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._device = device
        self._manager = ServiceManager(device)
        self._reporter = Reporter()
        self._sequence = 0
        self._sizes = workload.sizes_for(number)
        self._samples: dict[str, list[int]] = {}  # what was called -> microseconds
        self._bytes = 0
        self._errors: list[str] = []
        self._reunions = 0
        self._back: list[tuple[str, Proxy]] = []  # servers that came back
        self._patience = Patience()
        self._peers = [self._connect(name, self._manager.wait(name)) for name in servers]
        self._lost: list[Peer] = []

    def run(self, stop: Stop) -> None:
        """Call until told to stop, then say goodbye to everybody."""
        while not stop.is_set():
            while self._back:
                self._reconnect(*self._back.pop())
            if self._peers:
                self._step(self._random.choice(self._peers))
            elif stop.wait(0.01):
                break
            if self._reporter.is_due:
                self._report()
        for peer in list(self._peers):
            self._guarded(peer, peer.leave)
        for peer in self._lost:
            peer.died.wait(1.0)  # the news may come later than the failed call
        self._report(final=True)

    def _connect(self, name: str, proxy: Proxy) -> Peer:
        return Peer(self._number, name, proxy, self._patience)

    def _reconnect(self, name: str, proxy: Proxy) -> None:
        try:
            self._peers.append(self._connect(name, proxy))
            self._reunions += 1
        except DeadObject:
            # The manager was asked before it knew of the death, and gave us the dead one.
            self._start_waiting(name)

    def _step(self, peer: Peer) -> None:
        dice = self._random.random()
        self._sequence += 1
        if dice < 0.70:
            # The larger, the rarer; every size comes often enough to be measured.
            size = self._sizes[int(len(self._sizes) * self._random.random() ** 2)]
            self._timed(peer, str(size), 2 * size, lambda: peer.echo(self._sequence, size))
        elif dice < 0.95:
            size = self._random.choice(workload.NOTE_SIZES)
            if self._timed(peer, "one-way", size, lambda: peer.note(size)):
                self._guarded(peer, peer.settle)
        else:
            self._timed(peer, "nested", 0, lambda: peer.nested(self._sequence & 0xFFFF))

    def _timed(self, peer: Peer, what: str, size: int, action: Callable[[], None]) -> bool:
        start = time.perf_counter_ns()
        if not self._guarded(peer, action):
            return False
        microseconds = (time.perf_counter_ns() - start) // 1000
        self._samples.setdefault(what, []).append(microseconds)
        self._bytes += size
        return True

    def _guarded(self, peer: Peer, action: Callable[[], None]) -> bool:
        """Do it; a dead server is taken off the list, everything else is an error."""
        try:
            action()
        except DeadObject:
            self._peers.remove(peer)
            self._lost.append(peer)
            self._start_waiting(peer.name)
            return False
        except (BinderError, CorruptMessage) as error:
            self._errors.append(f"client {self._number}: {type(error).__name__}: {error}")
            return False
        return True

    def _start_waiting(self, name: str) -> None:
        threading.Thread(target=self._await_return, args=(name,), daemon=True).start()

    def _await_return(self, name: str) -> None:
        try:
            self._back.append((name, self._manager.wait(name)))
        except BinderError as error:
            if not isinstance(error, OSError):  # the device is closed: the demo is over
                self._errors.append(f"client {self._number}: waiting: {error}")

    def _report(self, *, final: bool = False) -> None:
        samples, self._samples = self._samples, {}
        self._reporter.send(
            {
                "pid": os.getpid(),
                "client": self._number,
                "samples": samples,
                "bytes": self._bytes,
                "errors": self._errors,
                "refused": self._patience.refused,
                "dead_objects": len(self._lost),
                "deaths": sum(peer.died.is_set() for peer in self._peers + self._lost),
                "reunions": self._reunions,
                "final": final,
            }
        )


def main() -> int:
    """Call until the end of stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("servers", metavar="SERVICE", nargs="+")
    chosen = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format=f"client {chosen.number}: %(message)s")
    stop = Stop()
    with Device(chosen.device, max_threads=1) as device:
        device.start_thread_pool()
        Client(chosen.number, chosen.seed, device, chosen.servers).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
