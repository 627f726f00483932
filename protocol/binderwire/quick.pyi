# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from struct import Struct
from typing import Any

def packer(layout: Struct, /) -> Callable[..., bytes]: ...
def unpacker(layout: Struct, /) -> Callable[..., tuple[Any, ...]]: ...
