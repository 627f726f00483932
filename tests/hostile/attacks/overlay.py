# SPDX-License-Identifier: Apache-2.0
"""Commands on a page of an overlay over a file system that never answers: it has another device."""

from __future__ import annotations

from hostile.means import (
    Device,
    SilentMount,
    begin,
    finish,
    map_page_by_page,
    mount,
    os,
    own_namespace,
    say,
    write_from,
)

silent = SilentMount()
place = begin()
own_namespace()
os.mkdir(f"{place.folder}/empty")
mount("overlay", f"{place.folder}/over", f"lowerdir={place.folder}/empty:{place.folder}/silent")
device = Device(f"{place.devices}/his")
address = map_page_by_page(f"{place.folder}/over/x", 4)
say("now")
write_from(device, address, 64)
finish()
