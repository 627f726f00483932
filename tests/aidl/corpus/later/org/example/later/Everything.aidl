// SPDX-License-Identifier: Apache-2.0
package org.example.later;

import org.example.later.Color;
import org.example.later.Fixed;
import org.example.later.Level;
import org.example.later.Value;
import org.example.later.Wide;

@JavaDerive(equals=true, toString=true)
@RustDerive(Clone=true)
parcelable Everything {
    /** A limit. */
    const int LIMIT = (1 << 10) - 1;
    const byte ALL = 0xFFu8;
    const boolean LARGE = LIMIT > 1000;

    parcelable Inner {
        String name = "inner";
        @nullable(heap=true) Inner next;
    }

    enum Mode { OFF, ON }

    Color color = Color.GREEN;
    Color[] colors = {Color.BLACK, Color.WHITE};
    Level level = Level.HIGH;
    Level[] levels;
    Wide wide = Wide.FAR;
    Mode mode = Mode.ON;
    Value value;
    @nullable Value other;
    Fixed fixed;
    Fixed[2] pair;
    String[2] words;
    Inner inner;
    List<Inner> inners;
    ParcelableHolder extension;
    Map<String, String> map;
    List<ParcelFileDescriptor> files;
    /** Named like something of Python's. */
    int class;
    int[] from = {1, 2};
}
