// SPDX-License-Identifier: Apache-2.0
package android.os;

/** Which process has a service. */
parcelable ServiceDebugInfo {
    @utf8InCpp String name;
    int debugPid;
}
