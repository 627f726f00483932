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
from binderclient.errors import RemoteException
from binderclient.objects import Service
from binderclient.parcel import Parcel
from binderwire.hidl import ADD, MANAGER_1_0

if TYPE_CHECKING:
    from typing import Never


class Silent(Service):
    """What a hostile service does with interfaceChain."""

    def on_transact(self, _code: int, _data: Parcel, _reply: Parcel, _flags: int) -> Never:
        print("asked", flush=True)
        while True:
            threading.Event().wait()


def main() -> None:
    with Device(sys.argv[1]) as device:
        request = Parcel()
        request.write_cstring(MANAGER_1_0)
        hidl.write_string(request, "silent")
        request.write_bare_binder(Silent())
        try:
            device.context_manager.call(ADD, request).close()
        except RemoteException:
            print("refused", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
