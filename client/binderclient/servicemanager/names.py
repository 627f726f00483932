# SPDX-License-Identifier: Apache-2.0
"""Which names a service may have: the rule of ``android.os.IServiceManager``, and HIDL's.

Nothing here may know a manager.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9_.\-/]{1,127}\Z")  # as Android's isValidServiceName
_HIDL_NAME: Final = re.compile(r"[\w.]{1,127}@\d+\.\d+::\w{1,127}/[\w.-]{1,127}", re.ASCII)
_HIDL_PART_MAX: Final = 255  # characters


def is_service_name(name: str) -> bool:
    """Say whether a service may be called that: 1 to 127 letters, digits and ``_.-/``."""
    return _NAME.match(name) is not None


def is_hidl_name(name: str) -> bool:
    """Say whether that is a full name of HIDL, ``package@1.0::IInterface/instance``."""
    return _HIDL_NAME.fullmatch(name) is not None


def is_hidl_part(text: str) -> bool:
    """Say whether hwbinder's manager takes that for an interface or an instance."""
    return 0 < len(text) <= _HIDL_PART_MAX and text.isprintable()
