# SPDX-License-Identifier: Apache-2.0
"""The service manager: the one object that everybody can reach, where the others are found by name.

Interface ``android.os.IServiceManager`` with the transaction codes that it has had since Android 1
(GET 1, CHECK 2, ADD 3, LIST 4) and the request and reply formats of its AIDL version (Android 11
and later): an interface token before each request, an exception header before each reply.

====  ===========================  ==========================================  ==================
code  method                       request                                     reply
====  ===========================  ==========================================  ==================
1, 2  getService, checkService     String16 name                               binder or null
3     addService                   String16 name, binder, bool allowIsolated,  nothing
                                   int32 dumpPriority
4     listServices                 int32 dumpPriority                          String16 array
5, 6  (un)registerForNotifications String16 name, binder callback              nothing
====  ===========================  ==========================================  ==================

A callback is an ``android.os.IServiceCallback``: one-way code 1, String16 name, binder.  It comes
at once if the name is taken already.  Nobody has to poll for a service.

Different from Android: GET does not wait (neither does Android's since 11: its clients do), no
SELinux decides who may do what (override ``ServiceManagerService.may_add``), and LIST with its old
meaning of "the n-th name" is not offered.

``formats`` has the requests and replies, ``client`` and ``server`` the two ends.
"""

from __future__ import annotations

from binderclient.servicemanager.client import NamedService, ServiceManager, ServiceNotFound
from binderclient.servicemanager.server import ServiceManagerService

__all__ = ["NamedService", "ServiceManager", "ServiceManagerService", "ServiceNotFound"]
