// SPDX-License-Identifier: Apache-2.0
package android.os;

import android.os.ConnectionInfo;
import android.os.IClientCallback;
import android.os.IServiceCallback;
import android.os.ServiceDebugInfo;

/** Finds services by name, as in Android 14. */
interface IServiceManager {
    const int DUMP_FLAG_PRIORITY_CRITICAL = 1 << 0;
    const int DUMP_FLAG_PRIORITY_HIGH = 1 << 1;
    const int DUMP_FLAG_PRIORITY_NORMAL = 1 << 2;
    /** Of services that say nothing about it. */
    const int DUMP_FLAG_PRIORITY_DEFAULT = 1 << 3;
    const int DUMP_FLAG_PRIORITY_ALL =
            DUMP_FLAG_PRIORITY_CRITICAL | DUMP_FLAG_PRIORITY_HIGH
            | DUMP_FLAG_PRIORITY_NORMAL | DUMP_FLAG_PRIORITY_DEFAULT;

    /** Returns a service; may wait for it to be started. */
    @nullable IBinder getService(@utf8InCpp String name);
    /** Returns a service if it is there. */
    @nullable IBinder checkService(@utf8InCpp String name);
    /** Registers an object under a name; another one of that name is replaced. */
    void addService(@utf8InCpp String name, IBinder service, boolean allowIsolated, int dumpPriority);
    /** Lists the names of services of these priorities. */
    @utf8InCpp String[] listServices(int dumpPriority);
    void registerForNotifications(@utf8InCpp String name, IServiceCallback callback);
    void unregisterForNotifications(@utf8InCpp String name, IServiceCallback callback);
    /** Is there to be a service of that name on this device? */
    boolean isDeclared(@utf8InCpp String name);
    @utf8InCpp String[] getDeclaredInstances(@utf8InCpp String iface);
    @nullable @utf8InCpp String updatableViaApex(@utf8InCpp String name);
    @utf8InCpp String[] getUpdatableNames(@utf8InCpp String apexName);
    @nullable ConnectionInfo getConnectionInfo(@utf8InCpp String name);
    void registerClientCallback(@utf8InCpp String name, IBinder service, IClientCallback callback);
    /** Takes a service back, unless somebody uses it. */
    void tryUnregisterService(@utf8InCpp String name, IBinder service);
    ServiceDebugInfo[] getServiceDebugInfo();
}
