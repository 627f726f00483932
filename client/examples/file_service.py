# SPDX-License-Identifier: Apache-2.0
"""Files in calls, both sides: ``python file_service.py serve [DEVICE]``, ``… FILE [DEVICE]``.

The service never opens the file: it gets it from the caller, counts its lines, and answers with a
file of its own, in memory, in which they are sorted.
"""

from __future__ import annotations

import os
import signal
import sys

from binderclient import DEFAULT_PATH, Device, Parcel, Service, ServiceManager, transaction

DESCRIPTOR = "org.example.ISorter"
SORT = 1


class Sorter(Service):
    """Sorts the lines of files."""

    descriptor = DESCRIPTOR
    accepts_descriptors = True

    @transaction(SORT)
    def sort(self, data: Parcel, reply: Parcel) -> None:
        """A file in; exception header, int32 and a file out."""
        with data.read_file().open() as file:
            lines = sorted(file)
        result = os.fdopen(os.memfd_create("sorted"), "w+", encoding="utf-8")
        result.writelines(lines)
        result.flush()
        result.seek(0)  # the position goes along
        reply.write_no_exception()
        reply.write_int32(len(lines))
        reply.write_file(result)  # lives as long as the reply


def serve(device: Device) -> None:
    """Serve until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: device.stop())
    ServiceManager(device).add("org.example.sorter", Sorter())
    device.join_thread_pool()


def sort(device: Device, path: str) -> None:
    """Have a file sorted and print it."""
    sorter = ServiceManager(device).wait("org.example.sorter")
    with open(path, encoding="utf-8") as file:
        request = Parcel.for_interface(DESCRIPTOR)
        request.write_file(file)
        with sorter.call(SORT, request) as reply:
            reply.read_exception()
            print(f"{reply.read_int32()} lines")
            with reply.read_file().open() as result:
                sys.stdout.write(result.read())


def main() -> None:
    """Be the service or its client."""
    with Device(sys.argv[2] if len(sys.argv) > 2 else DEFAULT_PATH) as device:
        if sys.argv[1] == "serve":
            serve(device)
        else:
            sort(device, sys.argv[1])


if __name__ == "__main__":
    main()
