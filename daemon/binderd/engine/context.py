# SPDX-License-Identifier: Apache-2.0
"""A context: one device, with its context manager and the processes that have it open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.engine.node import Node


class Context:
    """One binder device; handles of one context mean nothing in another."""

    __slots__ = ("manager", "manager_uid", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.manager: Node | None = None  # the node of handle 0
        self.manager_uid: int | None = None  # remembered for good once there was a manager (I5)
