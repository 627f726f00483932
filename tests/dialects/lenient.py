# SPDX-License-Identifier: Apache-2.0
"""A context manager that answers checkService to everything, as if it read no further.

``lenient.py DEVICE``; says ``ready``, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from binderclient.blocking import Device
from binderclient.objects import Service

if TYPE_CHECKING:
    from binderclient.parcel import Parcel


class Lenient(Service):
    """What real managers before Android 13 do with what is another method's."""

    def on_transact(self, _code: int, _data: Parcel, reply: Parcel, _flags: int) -> None:
        reply.write_no_exception()
        reply.write_strong_binder(None)


def main() -> None:
    with Device(sys.argv[1]) as device:
        device.become_context_manager(Lenient())
        device.start_thread_pool()
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
