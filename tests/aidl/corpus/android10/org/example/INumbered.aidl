// SPDX-License-Identifier: Apache-2.0
package org.example;

interface INumbered {
    void last() = 700;
    int first() = 0;
    int middle(int value) = 41;
}
