// SPDX-License-Identifier: Apache-2.0
package android.os;

/** Is told of a service that somebody waits for. */
oneway interface IServiceCallback {
    /** The service of that name is there, or another one in its place. */
    void onRegistration(String name, IBinder binder);
}
