# SPDX-License-Identifier: Apache-2.0
"""The service manager: the one object that everybody can reach, where the others are found by name.

Interface ``android.os.IServiceManager`` as Android 8 to 16 have it, each with numbers and formats
of its own: ``binderwire.service_manager`` has the tables.  The token before a request tells those
before AIDL (8 and 9, 10) from the later ones; among these the manager speaks the one that it was
told (``--android``).  A request or reply that does not fit its code to the last byte is refused.

A name's callback (one-way ``onRegistration``) comes at once if the name is taken already, so that
nobody has to poll for a service; before Android 11 there are none, and one has to.

Different from Android: no SELinux decides who may do what (override
``ServiceManagerService.may_add``), users' numbers that Android gives to apps may add services, GET
starts no lazy service, and what is declared comes from ``--declare`` instead of manifests.

``values`` has the bytes, ``formats`` the calls, ``client`` and ``server`` the two ends,
``async_client`` the former for trio, ``registry`` what every manager is, ``entries``
what the server keeps, ``lazy`` the callbacks of services about their clients, ``report`` its dumps,
``hardware`` and ``hardware_client`` the manager of HIDL's services on hwbinder.
"""

from __future__ import annotations

from binderclient.servicemanager.client import NamedService, ServiceManager, ServiceNotFound
from binderclient.servicemanager.declared import Declared
from binderclient.servicemanager.server import ServiceManagerService
from binderclient.servicemanager.values import ConnectionInfo, DebugInfo

__all__ = [
    "ConnectionInfo",
    "DebugInfo",
    "Declared",
    "NamedService",
    "ServiceManager",
    "ServiceManagerService",
    "ServiceNotFound",
]
