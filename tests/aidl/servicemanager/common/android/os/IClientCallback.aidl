// SPDX-License-Identifier: Apache-2.0
package android.os;

/** Is told whether anybody uses a service, so that it may end. */
oneway interface IClientCallback {
    /** The first client has come, or the last one has gone. */
    void onClients(IBinder registered, boolean hasClients);
}
