# SPDX-License-Identifier: Apache-2.0
"""What can go wrong around a command, as opposed to in it."""

from __future__ import annotations


class MachineError(Exception):
    """The machine could not be made, or died. The text says why and what to do, for a person."""


class CommandTimeoutError(MachineError):
    """A command did not end in time; it has been killed, the machine may still be usable."""
