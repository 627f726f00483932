// SPDX-License-Identifier: Apache-2.0
package org.example;

/** Is told things. */
oneway interface ICallback {
    /** Tells how far something is. */
    void onProgress(int percent, @nullable String what);
    void onDone();
}
