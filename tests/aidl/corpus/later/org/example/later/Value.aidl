// SPDX-License-Identifier: Apache-2.0
package org.example.later;

import org.example.later.Fixed;

/** One of these. */
union Value {
    int number = 7;
    String text;
    Fixed[] many;
    IBinder binder;
}
