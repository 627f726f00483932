// SPDX-License-Identifier: Apache-2.0
package org.example;

import org.example.Point;

/** All that a field can be in Android 10. */
parcelable Shape {
    boolean closed = true;
    byte kind = 7;
    char letter = 'q';
    int color;
    long area = 5000000000;
    float width = 0.5f;
    double scale = 2.25;
    @utf8InCpp String title = "shape";
    @nullable String note;
    Point center;
    @nullable Point label;
    Point[] corners;
    byte[] data;
    int[] numbers;
    String[] tags;
    List<String> words;
    @nullable long[] perhaps;
    @nullable IBinder owner;
}
