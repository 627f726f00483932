// SPDX-License-Identifier: Apache-2.0
package org.example.later;

import org.example.later.Color;
import org.example.later.Everything;
import org.example.later.Fixed;
import org.example.later.Level;
import org.example.later.Value;

@VintfStability
interface ILater {
    /** Is in it. */
    parcelable Request { int id; @nullable ILater from; }
    interface ISession { oneway void dump(in Request request); }

    @nullable ISession make(String name);
    Color paint(Color color, Level level);
    Color[] palette(in Color[] given, out Color[] made);
    Value choose(in Value value, inout @nullable Value other);
    Everything all(in Everything everything);
    int[3] rotate(in int[3] point, out int[2][2] matrix);
    List<ILater> others(in List<ILater> given);
    Map<String, IBinder> names(in Map<String, IBinder> given);
    @nullable List<String> perhaps(in @nullable List<String> given, in @nullable Everything.Inner[] inners);
}
