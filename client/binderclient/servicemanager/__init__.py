# SPDX-License-Identifier: Apache-2.0
"""The service manager: the object of handle 0, through which all others are found by name.

Interface ``android.os.IServiceManager`` as Android 8 to 16 have it, each with numbers and formats
of its own: ``binderwire.service_manager`` has the tables.  The token before a request tells those
before AIDL (8 and 9, 10) from the later ones; among these the manager speaks the one that it was
told (``--android``).  A request or reply that does not fit its code to the last byte is refused.

A name's callback (one-way ``onRegistration``) comes at once if the name is taken already, so that
no client has to poll for a service; before Android 11 there are no callbacks, and clients poll.

Different from Android: no SELinux decides which process may do what (override
``ServiceManagerService.may_add``), user ids that Android gives to apps may add services, GET
starts no lazy service, and what is declared comes from ``--declare`` instead of manifests.

``values`` has the bytes of arguments and results, ``formats`` the calls, ``names`` the rules for
names. ``server`` is the manager, ``client`` its client, ``async_client`` the same for event loops.
``registry`` is what both managers have in common: ``entries`` the tables and how much of them a
user may have, ``lazy`` the callbacks of services about their clients, ``report`` the dumps,
``complaints`` the log of refused requests, ``declared`` the instances of ``--declare``.
``hardware`` and ``hardware_client`` are the manager of HIDL's services on hwbinder and its client,
``hidl_base`` has the methods of every object of HIDL.
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
