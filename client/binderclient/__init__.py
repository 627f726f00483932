# SPDX-License-Identifier: Apache-2.0
"""binderclient: Android's binder for Python programs, over any binder device.

The names that most programs need are here.  ``binderclient.trio`` and ``binderclient.aio`` are the
same for trio's and asyncio's programs, ``binderclient.servicemanager`` finds services by name,
``binderclient.bundle`` and ``binderclient.hidl`` read and write what ``Parcel`` does not,
``binderclient.connection`` is the protocol without any input or output.
"""

from __future__ import annotations

from binderclient.annotations import Byte, Char, Float, Long
from binderclient.blocking import DEFAULT_PATH, Device
from binderclient.errors import (
    BinderError,
    CallAbandoned,
    CallTimeout,
    DeadObject,
    DeviceError,
    DeviceGone,
    FailedTransaction,
    FrozenObject,
    MisuseError,
    ParcelError,
    ProtocolError,
    RemoteException,
)
from binderclient.files import ReceivedFile
from binderclient.ibinder import IBinder
from binderclient.interfaces import as_interface, interface, oneway
from binderclient.objects import Caller, Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager

__all__ = [
    "DEFAULT_PATH",
    "BinderError",
    "Byte",
    "CallAbandoned",
    "CallTimeout",
    "Caller",
    "Char",
    "DeadObject",
    "Device",
    "DeviceError",
    "DeviceGone",
    "FailedTransaction",
    "Float",
    "FrozenObject",
    "IBinder",
    "Long",
    "MisuseError",
    "Parcel",
    "ParcelError",
    "ProtocolError",
    "Proxy",
    "ReceivedFile",
    "RemoteException",
    "Service",
    "ServiceManager",
    "as_interface",
    "caller",
    "interface",
    "oneway",
    "transaction",
]
