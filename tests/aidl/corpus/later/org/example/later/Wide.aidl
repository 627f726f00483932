// SPDX-License-Identifier: Apache-2.0
package org.example.later;

@Backing(type="long")
enum Wide { FAR = 1L << 40, NEAR = -1 }
