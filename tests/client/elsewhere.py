# SPDX-License-Identifier: Apache-2.0
"""What tests have another process do: ``elsewhere.py FUNCTION DEVICE ARGUMENT...``.

Prints what the function returns, as JSON.  With an engine in the test's process the functions are
called there, as another process of the engine's; see ``Bench.elsewhere``.
"""

from __future__ import annotations

import json
import sys
import threading

from binderclient.blocking import Device
from binderclient.errors import DeadObject, RemoteException
from binderclient.objects import Proxy
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager, formats
from binderclient.servicemanager.values import Offered
from binderwire.service_manager import dialect_of


def _request(descriptor: str, *numbers: int) -> Parcel:
    request = Parcel.for_interface(descriptor)
    for number in numbers:
        request.write_int32(number)
    return request


def naps(path: str, descriptor: str, code: str) -> list[int]:
    """Call the context manager five times at once; return its answers."""
    answers: list[int] = []
    with Device(path) as device:
        manager = device.context_manager

        def nap() -> None:
            with manager.call(int(code), _request(descriptor, 200)) as reply:
                answers.append(reply.read_int32())

        threads = [threading.Thread(target=nap) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers


def hammer(path: str, descriptor: str, code: str, threads: str, times: str) -> int:
    """Call the context manager with many numbers, of many threads; return how many came back."""
    answered: list[bool] = []
    with Device(path) as device:
        manager = device.context_manager

        def work(first: int) -> None:
            for number in range(first, first + int(times)):
                with manager.call(int(code), _request(descriptor, number)) as reply:
                    answered.append(reply.read_int32() == number)

        workers = [
            threading.Thread(target=work, args=[each * 1000]) for each in range(int(threads))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(answered)


def call_given(path: str, descriptor: str, code: str, second: str) -> int:
    """Call the object that the context manager hands out; return its answer."""
    with Device(path) as device:
        with device.context_manager.call(int(code), _request(descriptor)) as reply:
            given = reply.read_strong_binder()
        assert isinstance(given, Proxy)
        with given.call(int(second)) as reply:
            return reply.read_int32()


def failure(path: str, descriptor: str, code: str) -> tuple[int, str] | None:
    """Make a call; return the exception that comes back, None if there is none."""
    with Device(path) as device, device.context_manager.call(int(code), _request(descriptor)) as r:
        try:
            r.read_exception()
        except RemoteException as error:
            return error.exception_code, error.message
    return None


def status(path: str, descriptor: str, code: str) -> int | str:
    """Make a long call; return the status that it ends with, or that the object is dead."""
    with Device(path) as device:
        try:
            device.context_manager.call(int(code), _request(descriptor, 60_000)).close()
        except RemoteException as error:
            return error.status
        except DeadObject:
            return "dead"
    return 0


def meddle(path: str) -> list[tuple[int, str]]:
    """Try what only the server of a service may do; return the refusals."""
    refused = []
    with Device(path) as device:
        manager = ServiceManager(device)
        service = Offered(manager.get("lazy"))
        callback = Offered(formats.ClientCallback(dialect_of(13), print))
        for name, *values in (
            ("tryUnregisterService", service),
            ("registerClientCallback", service, callback),
        ):
            try:
                manager._ask(name, "lazy", *values)
            except RemoteException as error:
                refused.append((error.exception_code, error.message))
    return refused


def main() -> None:
    name, *arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*arguments)))


if __name__ == "__main__":
    main()
