// SPDX-License-Identifier: Apache-2.0
package org.example.later;

import org.example.later.Color;

@FixedSize
parcelable Fixed {
    int[2][3] grid;
    byte[4] address = {127, 0, 0, 1};
    Color[3] colors;
    boolean valid;
}
