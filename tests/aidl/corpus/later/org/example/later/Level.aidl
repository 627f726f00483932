// SPDX-License-Identifier: Apache-2.0
package org.example.later;

@Backing(type="int")
enum Level { LOW = 1 << 4, HIGH = LOW << 8 | 3, TOP = 0x80000000 }
