# SPDX-License-Identifier: Apache-2.0
"""``ReceivedFile``: an open file that came in a parcel, with an owner.

Nothing here may know parcels or devices; a number is all that there is to an open file.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
from typing import IO, TYPE_CHECKING, Any, Protocol

from binderclient.arguments import check_type
from binderclient.errors import ParcelError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class HasFileno(Protocol):
    """A file object, a socket: anything with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class ReceivedFile:
    """An open file of which this object has the only descriptor.

    It is closed by ``close``, at the end of a ``with`` block, or with the object itself. Functions
    that want a file take it as it is, because it has a ``fileno``.

    Args:
        descriptor: belongs to the object from now on.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = -1  # until it is known to be one
        check_type("ReceivedFile(): descriptor", descriptor, int)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's.

        Raises:
            ValueError: it was closed or given away.
        """
        if self._descriptor < 0:
            raise ValueError("this file was closed, or given away")
        return self._descriptor

    @property
    def closed(self) -> bool:
        """Is there nothing left to close?"""
        return self._descriptor < 0

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close from now on.

        Raises:
            ValueError: it was closed or given away.
        """
        descriptor, self._descriptor = self.fileno(), -1
        return descriptor

    def open(self, mode: str = "r", **arguments: Any) -> IO[Any]:  # noqa: ANN401 - as for open()
        """Return a file object that owns the descriptor from now on.

        Args:
            mode, arguments: as for the built-in ``open``.

        Raises:
            ValueError: it was closed or given away, or as the built-in ``open``.
            LookupError, OSError: as the built-in ``open``; the file may be closed then.
        """
        # With an opener, unlike with a number, the built-in says by the call of it from when on the
        # descriptor is its own, which it closes if it then fails.
        name = f"descriptor {self.fileno()}"
        return open(name, mode, opener=lambda _path, _flags: self.detach(), **arguments)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor >= 0:
            os.close(self.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ReceivedFile {'closed' if self.closed else self._descriptor}>"


def duplicate(file: int | HasFileno, method: str = "duplicate()") -> ReceivedFile:
    """Return the same open file under a number of its own, which children do not inherit.

    Args:
        file: a descriptor, or anything that has one.
        method: the function that errors name.

    Raises:
        TypeError: it has none.
        ParcelError: it is closed.
        OSError: this process has too many descriptors.
    """
    refusal = f"{method} takes a file or a descriptor, not {type(file).__name__}"
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(refusal)
    try:
        number = file if isinstance(file, int) else file.fileno()
        return ReceivedFile(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0))
    except io.UnsupportedOperation:  # it has the method, and no descriptor
        raise TypeError(refusal) from None
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno != errno.EBADF:
            raise
        raise ParcelError(f"{file!r} is no open file") from None
