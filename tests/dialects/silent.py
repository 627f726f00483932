# SPDX-License-Identifier: Apache-2.0
"""A HIDL service that never says of which interfaces it is: ``silent.py DEVICE``.

Says ``asked`` when the manager asks it, or ``refused`` if the manager does not.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from binderclient import hidl
from binderclient.blocking import Device
from binderclient.errors import DeadObject, RemoteException
from binderclient.objects import Service
from binderclient.parcel import Parcel
from binderwire.hidl import ADD, MANAGER_1_0

if TYPE_CHECKING:
    from collections.abc import Callable


class Silent(Service):
    """What a hostile service does with interfaceChain.

    Args:
        say: gets the word.
        over: when even this one ends.
    """

    def __init__(self, say: Callable[[str], object], over: threading.Event) -> None:
        self._say = say
        self._over = over

    def on_transact(self, _code: int, _data: Parcel, _reply: Parcel, _flags: int) -> None:
        self._say("asked")
        self._over.wait()


def offer(path: str, say: Callable[[str], object], over: threading.Event) -> None:
    """Offer one to the manager of a device, and stay until it is over."""
    with Device(path) as device:
        request = Parcel()
        request.write_cstring(MANAGER_1_0)
        hidl.write_string(request, "silent")
        request.write_bare_binder(Silent(say, over))
        try:
            device.context_manager.call(ADD, request).close()
        except DeadObject:  # it was killed, where that is no real process
            return
        except RemoteException:
            say("refused")
        over.wait()


def main() -> None:
    offer(sys.argv[1], lambda word: print(word, flush=True), threading.Event())


if __name__ == "__main__":
    main()
