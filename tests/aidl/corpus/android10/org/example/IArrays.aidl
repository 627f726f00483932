// SPDX-License-Identifier: Apache-2.0
package org.example;

interface IArrays {
    boolean[] booleans(in boolean[] given, out boolean[] made, inout boolean[] changed);
    byte[] bytes(in byte[] given, out byte[] made, inout byte[] changed);
    char[] chars(in char[] given, out char[] made, inout char[] changed);
    int[] ints(in int[] given, out int[] made, inout int[] changed);
    long[] longs(in long[] given, out long[] made, inout long[] changed);
    float[] floats(in float[] given, out float[] made, inout float[] changed);
    double[] doubles(in double[] given, out double[] made, inout double[] changed);
    String[] strings(in String[] given, out String[] made, inout String[] changed);
    List<String> lists(in List<String> given, out List<String> made, inout List<String> changed);
    @nullable int[] perhaps(in @nullable int[] given);
    @nullable String[] words(in @nullable String[] given);
    void files(in FileDescriptor[] files);
}
