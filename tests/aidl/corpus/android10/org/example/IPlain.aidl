// SPDX-License-Identifier: Apache-2.0
package org.example;

import org.example.ICallback;

/**
 * Everything that is one value.
 *
 * With a second paragraph, "quotes" and a \ backslash.
 */
interface IPlain {
    const int ANSWER = 42;
    const int BITS = 0xffffffff;
    const int SMALL = -7;
    /** What it is called. */
    const String NAME = "plain";
    const @utf8InCpp String MOTTO = "plainly";

    boolean flip(boolean value);
    byte addByte(byte a, byte b);
    char next(char value);
    int add(int a, int b);
    long addLong(long a, long b);
    float half(float value);
    double third(double value);
    String echo(String text);
    @nullable String perhaps(@nullable String text);
    @utf8InCpp String utf8(@utf8InCpp String text);
    IBinder same(IBinder binder);
    @nullable IBinder none(@nullable IBinder binder);
    ICallback watch(ICallback callback);
    FileDescriptor bare(in FileDescriptor file);
    ParcelFileDescriptor file(in ParcelFileDescriptor file);
    oneway @UnsupportedAppUsage void tell(String text, in int[] numbers);
    void nothing();
}
