// SPDX-License-Identifier: Apache-2.0
package org.example.later;

/** Colors, in one byte each. */
@Backing(type="byte")
enum Color {
    BLACK,
    /** Like grass. */
    GREEN = BLACK + 5,
    WHITE,
}
