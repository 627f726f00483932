# SPDX-License-Identifier: Apache-2.0
"""One open file of a device: what belongs together for as long as it is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.device.lanes import Lane
    from binderd.device.opener import OpenedClient
    from binderd.device.replies import Replies
    from binderd.engine.ports import OpenFile as EngineFile


class OpenFile:
    """One open file of a device, from FUSE_OPEN to FUSE_RELEASE.

    Args:
        handle: what the kernel calls it in later requests.
        nodeid: of its inode; 0: of none, it is CUSE's.
        client: its outside half.
        process: what it is to the engine.
        replies: of the connection that it was opened through.
    """

    __slots__ = ("client", "handle", "kernel_handle", "lanes", "nodeid", "process", "replies")

    def __init__(
        self, handle: int, nodeid: int, client: OpenedClient, process: EngineFile, replies: Replies
    ) -> None:
        self.handle = handle
        self.nodeid = nodeid
        self.client = client
        self.process = process
        self.replies = replies
        self.lanes: dict[int, Lane] = {}  # of its threads, by thread id
        self.kernel_handle = 0  # under which handle do its pollers wait, if any wait?
