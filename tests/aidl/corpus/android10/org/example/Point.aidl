// SPDX-License-Identifier: Apache-2.0
package org.example;

parcelable Point {
    int x = 3;
    int y = -4;
    String name = "somewhere";
}
