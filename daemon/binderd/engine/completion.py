# SPDX-License-Identifier: Apache-2.0
"""What the outside must do next: answer a request."""

from __future__ import annotations

from typing import NamedTuple


class Completion(NamedTuple):
    """The end of one ioctl."""

    ticket: int  # the number that the caller gave to ``Engine.ioctl``
    result: int  # 0 or a negative errno
    payload: bytes  # the argument as it goes back to the client, also beside an errno
