# SPDX-License-Identifier: Apache-2.0
"""A server process of the demo: ``python -m binderclient.demo.server --help``.

Checks everything that arrives, and remembers for each client which note came last.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
from typing import ClassVar

from binderclient.blocking import Device
from binderclient.demo import workload
from binderclient.demo.child import REPORT_SECONDS, Reporter, Stop
from binderclient.demo.patience import Patience
from binderclient.demo.workload import CorruptMessage, read_message, write_message
from binderclient.errors import BinderError, DeadObject
from binderclient.objects import Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager


class _Client:
    """What the server keeps about one client."""

    def __init__(self, callback: Proxy) -> None:
        self.callback = callback
        self.notes = 0
        self.last_note = 0


class Worker(Service):
    """The service that every client of the demo calls."""

    descriptor: ClassVar[str] = workload.DESCRIPTOR

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[int, _Client] = {}
        self._patience = Patience()
        self.calls = self.deaths = 0
        self.threads: set[int] = set()
        self.errors: list[str] = []

    def on_transact(self, code: int, data: Parcel, reply: Parcel, flags: int) -> None:
        """Count, and let no broken message pass unnoticed, one-way ones included."""
        with self._lock:
            self.calls += 1
            self.threads.add(threading.get_native_id())
        try:
            super().on_transact(code, data, reply, flags)
        except DeadObject:
            raise  # a client that was killed while we called it back
        except (CorruptMessage, BinderError) as error:
            self.errors.append(f"server: {type(error).__name__}: {error}")
            raise

    @transaction(workload.HELLO)
    def hello(self, data: Parcel, _reply: Parcel) -> None:
        """Remember a client, and ask to be told of its death."""
        number, callback = data.read_int32(), data.read_strong_binder()
        if not isinstance(callback, Proxy):
            raise CorruptMessage(f"{callback!r} is no callback")
        callback.link_to_death(self._died)
        with self._lock:
            self._clients[number] = _Client(callback)

    @transaction(workload.ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        """Check a message and send it back."""
        message, body = read_message(data)
        write_message(reply, message.client, message.sequence, body)

    @transaction(workload.NOTE)
    def note(self, data: Parcel, _reply: Parcel) -> None:
        """Check that a one-way message is the next one of its client; acknowledge if asked to."""
        if not caller().one_way:
            raise CorruptMessage("a note that is not one-way")
        message, _body = read_message(data)
        client = self._clients.get(message.client)
        if client is None:
            return  # killed: the last things it sent arrive after the news of its death
        if message.sequence != client.last_note + 1:
            raise CorruptMessage(f"note {message.sequence} came after {client.last_note}")
        client.notes += 1
        client.last_note = message.sequence
        if data.read_bool():
            answer = Parcel.for_interface(workload.CALLBACK_DESCRIPTOR)
            answer.write_int64(message.sequence)
            with contextlib.suppress(DeadObject):
                self._patience.call(client.callback, workload.ACKNOWLEDGE, answer, oneway=True)

    @transaction(workload.NESTED)
    def nested(self, data: Parcel, reply: Parcel) -> None:
        """Ask the caller something while it waits for us."""
        client = self._clients.get(data.read_int32())
        if client is None:
            raise DeadObject("killed since it sent this")
        question = Parcel.for_interface(workload.CALLBACK_DESCRIPTOR)
        question.write_int32(data.read_int32())
        with self._patience.call(client.callback, workload.ASK, question) as answer:
            reply.write_int32(answer.read_int32())

    @transaction(workload.BYE)
    def bye(self, data: Parcel, reply: Parcel) -> None:
        """Forget a client; its end is no death any more."""
        with self._lock:
            client = self._clients.pop(data.read_int32())
        client.callback.unlink_to_death(self._died)
        reply.write_int64(client.notes)

    def _died(self, callback: Proxy) -> None:
        with self._lock:
            self.deaths += 1
            for number in [n for n, c in self._clients.items() if c.callback is callback]:
                del self._clients[number]


def main() -> int:
    """Serve until the end of stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--name", required=True, help="service name")
    parser.add_argument("--threads", type=int, default=0, help="pool threads beside the first")
    chosen = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format=f"{chosen.name}: %(message)s")
    stop, reporter, worker = Stop(), Reporter(), Worker()

    def report() -> None:
        reporter.send(
            {
                "pid": os.getpid(),
                "calls": worker.calls,
                "deaths": worker.deaths,
                "threads": len(worker.threads),
                "errors": worker.errors,
            }
        )

    with Device(
        chosen.device, map_size=workload.WORKER_MAP_SIZE, max_threads=chosen.threads
    ) as device:
        device.start_thread_pool()
        ServiceManager(device).add(chosen.name, worker)
        while not stop.wait(REPORT_SECONDS):
            report()
    report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
