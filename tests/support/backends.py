# SPDX-License-Identifier: Apache-2.0
"""Which backends the scenarios are played on, in this place.

BINDERD_BACKENDS names some, for example "kernel", where not all that there are should be played.
"""

from __future__ import annotations

import os
import platform
from typing import Final

from support.kernel_driver import has_driver

_HERE: Final = (
    "engine",
    "fuse",
    "private",
    "bare",
    *(["lane"] if platform.machine() == "x86_64" else []),
    *(["cuse"] if os.path.exists("/dev/cuse") and os.geteuid() == 0 else []),
    *(["kernel"] if has_driver() else []),
)

BACKENDS: Final = tuple(os.environ.get("BINDERD_BACKENDS", " ".join(_HERE)).split())
