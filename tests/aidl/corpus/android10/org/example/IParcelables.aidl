// SPDX-License-Identifier: Apache-2.0
package org.example;

import org.example.Point;
import org.example.Shape;

interface IParcelables {
    Point move(in Point point, int dx, int dy);
    @nullable Point perhaps(in @nullable Point point);
    void fill(out Point made, inout Shape changed);
    Point[] all(in Point[] given, out Point[] made, inout Point[] changed);
    Shape shape(in Shape shape);
}
