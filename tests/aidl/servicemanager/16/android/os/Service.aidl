// SPDX-License-Identifier: Apache-2.0
package android.os;

import android.os.ServiceWithMetadata;

/** A service, or an object that can reach it elsewhere. */
union Service {
    ServiceWithMetadata serviceWithMetadata;
    @nullable IBinder accessor;
}
