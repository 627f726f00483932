// SPDX-License-Identifier: Apache-2.0
package android.os;

/** Where a declared service can be reached through the network. */
parcelable ConnectionInfo {
    @utf8InCpp String ipAddress;
    int port;
}
