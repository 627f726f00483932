# SPDX-License-Identifier: Apache-2.0
"""Files in calls, both sides: ``python file_service.py serve [DEVICE]``, ``… FILE [DEVICE]``.

The service never opens the file: it gets it from the caller, counts its lines, and answers with a
file of its own, in memory, in which they are sorted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from binderclient import (
    DEFAULT_PATH,
    BinderError,
    Device,
    Parcel,
    Service,
    ServiceManager,
    transaction,
)

NAME = "org.example.sorter"
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
        with os.fdopen(os.memfd_create("sorted"), "w+", encoding="utf-8") as result:
            result.writelines(lines)
            result.flush()
            result.seek(0)  # the position goes along
            reply.write_no_exception()
            reply.write_int32(len(lines))
            reply.write_file(result)


def serve(device: Device) -> None:
    """Serve until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: device.stop())
    ServiceManager(device).add(NAME, Sorter())
    device.join_thread_pool()


def sort(device: Device, path: str) -> None:
    """Have a file sorted and print it."""
    with open(path, encoding="utf-8") as file:
        manager = ServiceManager(device)
        if manager.check(NAME) is None:
            print(f"waiting 10 s for {NAME} (file_service.py serve)", file=sys.stderr)
        sorter = manager.wait(NAME, timeout=10)
        request = Parcel.for_interface(DESCRIPTOR)
        request.write_file(file)
        with sorter.call(SORT, request) as reply:
            reply.read_exception()
            print(f"{reply.read_int32()} lines")
            with reply.read_file().open() as result:
                sys.stdout.write(result.read())


def main() -> None:
    """Be the service or its client."""
    parser = argparse.ArgumentParser(description="Sorts the lines of files that callers send.")
    parser.add_argument("file", metavar="serve|FILE", help="be the service, or have FILE sorted")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default=DEFAULT_PATH)
    chosen = parser.parse_args()
    with Device(chosen.device) as device:
        if chosen.file == "serve":
            serve(device)
        else:
            sort(device, chosen.file)


if __name__ == "__main__":
    try:
        main()
    except (BinderError, OSError, UnicodeError) as error:
        sys.exit(f"file_service: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
