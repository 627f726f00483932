# SPDX-License-Identifier: Apache-2.0
"""``ProcessState``: what of a test's process the driver can see, and what is to fail in it.

``world.Process`` adds what a test can do with it. Nothing here may know devices or the engine.
"""

from __future__ import annotations


class ProcessState:
    """A process, to what stands for the kernel.

    Args:
        pid: its process id.
        uid: its effective user id.

    Attributes:
        is_dead: was it killed? Then each of its ioctls fails.
        is_full: has it no memory left? Then what is sent to it fails with ENOMEM.
        replies_to_lose: how many of its next replies are not to reach their callers.
    """

    def __init__(self, pid: int, uid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.is_dead = self.is_full = False
        self.replies_to_lose = 0
