# SPDX-License-Identifier: Apache-2.0
"""``Parcel``: the payload of a transaction in Android's encoding.

Rules of this encoding: everything starts on a multiple of 4 bytes, integers are in native byte
order and at least 32 bits wide, a length comes before what it counts, -1 is the length of null.
Weak references are not offered: with the driver they can neither be called nor made strong
(statement N3).

``numbers_and_text`` and ``lists`` have what is made of bytes alone, this file what is more:
objects, parcelables, headers.  It must not touch memory or know its owner: ``contents`` does.
``bundle`` reads Android's Bundle, ``hidl`` has the other encoding.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from binderclient import android
from binderclient.arguments import check_type
from binderclient.errors import ParcelError, RemoteException
from binderclient.files import ReceivedFile, duplicate
from binderclient.ibinder import IBinder
from binderclient.lists import Lists
from binderclient.numbers_and_text import INT32, check
from binderclient.tokens import (
    TAG_OFFSET,
    interface_named,
    read_token,
    tagged_name,
    tagged_token,
    token_octets,
)
from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_FD,
    binder_fd_object,
    flat_binder_object,
)
from binderwire.service_manager import TAG_SYSTEM, Era

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from binderclient.files import HasFileno


class Parcel(Lists):
    """The payload of one transaction, in Android's encoding.

    ``Parcel()`` is empty, for writing; ``Parcel(data)`` is for reading what there is.  A reader
    that finds too few bytes, or anything that is not what the bytes say, raises ParcelError, which
    says where, and leaves the position alone.  A writer that gets what is of another type raises
    TypeError, one that gets what does not fit ParcelError.  See ``Contents`` for the rest.
    """

    __slots__ = ()

    @classmethod
    def for_interface(cls, descriptor: str) -> Self:
        """Return a new request that starts with the interface token of ``descriptor``."""
        if type(descriptor) is not str:
            check_type("for_interface(): descriptor", descriptor, str)
        parcel = cls()
        parcel.write_interface_token(descriptor)
        return parcel

    # Binder objects and file descriptors

    def write_strong_binder(self, binder: IBinder | None) -> None:
        """Write a reference to a ``Service`` of this process or a ``Proxy``, with its stability.

        As Android 11 and 13+ do, an int32 with the stability level follows the
        flat_binder_object; it is STABILITY_SYSTEM, and STABILITY_UNDECLARED for null.  (Android 12
        packs a version into the upper bits of that word; Android 10 does not have it.)
        """
        if binder is not None:
            check("write_strong_binder", binder, IBinder)
        self.write_bare_binder(binder)
        self.write_int32(
            android.STABILITY_UNDECLARED if binder is None else android.STABILITY_SYSTEM
        )

    def write_bare_binder(self, binder: IBinder | None) -> None:
        """Write a reference without a word for its stability, as Android 10 and HIDL do."""
        if binder is not None:
            check("write_bare_binder", binder, IBinder)
        position = self._position
        self._put(flat_binder_object.pack(BINDER_TYPE_BINDER, 0, 0, 0))
        if binder is not None:  # the driver is not to look at a null one
            self._objects[position] = binder

    def read_bare_binder(self) -> IBinder | None:
        """Read a reference behind which there is no word for its stability."""
        position = self._position
        self._skip(position, flat_binder_object.size)
        try:
            return self._binder_at(position)
        except ParcelError:
            self._position = position
            raise

    def read_strong_binder(self) -> IBinder | None:
        """Read a reference and the stability level behind it, which is not judged.

        Returns:
            The ``Service`` itself if it lives in this process, else a ``Proxy`` with a reference
            of its own; None for null.
        """
        position = self._position
        size = flat_binder_object.size
        self._skip(position, size + INT32.size)
        try:
            return self._binder_at(position)
        except ParcelError:
            self._position = position
            raise

    def write_file(self, file: int | HasFileno) -> None:
        """Write an open file; the receiver gets a descriptor of its own for it.

        The parcel has a duplicate of the descriptor, which it closes: ``file`` may be closed at
        once.

        Args:
            file: a descriptor, or anything that has one.

        Raises:
            TypeError, ParcelError: it has none, or it is closed.
            OSError: this process has too many descriptors.
        """
        self._put_file(duplicate(file, "write_file()"))

    def read_file(self) -> ReceivedFile:
        """Read an open file, which is the caller's from now on.

        What nobody reads is closed with the parcel. The file is the sender's, not a copy: they
        share its position, for example.

        Raises:
            ParcelError: there is none, or it was read before.
        """
        return ReceivedFile(self.read_file_descriptor())

    def read_file_descriptor(self) -> int:
        """Like ``read_file``, but return the bare descriptor, which the caller must close."""
        position = self._position
        kind, _flags, descriptor, _cookie = self._object_at(position, binder_fd_object)
        if kind != BINDER_TYPE_FD or position not in self._objects:
            raise ParcelError(f"no file descriptor at {position}")
        if self._owner is not None and self._objects[position] is not None:
            raise ParcelError(f"the file at {position} was read before")
        if self._owner is None:  # what is in there stays the parcel's
            descriptor = duplicate(descriptor).detach()
        else:
            self._objects[position] = descriptor
        self._skip(position, binder_fd_object.size)
        return int(descriptor)

    def write_strong_binder_array(self, values: Sequence[IBinder | None] | None) -> None:
        """Write a list of references; None for null."""
        self.write_list(values, self.write_strong_binder, "write_strong_binder_array")

    def read_strong_binder_array(self) -> list[IBinder | None] | None:
        """Read a list of references; None for null."""
        return self.read_list(self.read_strong_binder)

    def write_parcel_file_descriptor(self, file: int | HasFileno | None) -> None:
        """Write an open file as Android's ParcelFileDescriptor; None for null.

        Android's may have a second descriptor beside it, through which its receiver tells that it
        was closed; none is written here.  Arguments and exceptions as ``write_file``.
        """
        method = "write_parcel_file_descriptor()"
        found = None if file is None else duplicate(file, method)
        self.write_int32(found is not None)
        if found is not None:
            self.write_int32(0)  # no second descriptor
            self._put_file(found)

    def read_parcel_file_descriptor(self) -> ReceivedFile | None:
        """Read a ParcelFileDescriptor; None for null.

        Raises:
            ParcelError: there is none, or it was read before.
        """

        def read() -> ReceivedFile:
            has_second = self.read_int32()
            file = self.read_file()
            if has_second:
                self.read_file().close()
            return file

        return self.read_nullable(read)

    # Parcelables

    @contextlib.contextmanager
    def writing_parcelable(self) -> Iterator[None]:
        """Write the size of what is written in the ``with`` block in front of it.

        That is how AIDL's structured parcelables begin, behind the word that says that they are not
        null (``write_nullable``).
        """
        start = self._position
        self.write_int32(0)
        yield
        end = self._position
        self._position = start
        self.write_int32(end - start)
        self._position = end

    @contextlib.contextmanager
    def reading_parcelable(self) -> Iterator[int]:
        """Read a size, and go behind what it counts at the end of the ``with`` block.

        Yields:
            Where the parcelable ends: one of an older writer has fewer fields than its reader
            knows, one of a newer writer more.

        Raises:
            ParcelError: it does not fit, or more was read than it has.
        """
        start = self._position
        end = start + self._size_at(start, "a parcelable")
        yield end
        if self._position > end:
            raise ParcelError(f"a parcelable of {end - start} bytes at {start} has more")
        self._position = end

    # Headers

    def write_interface_token(
        self, descriptor: str, era: Era = Era.TAGGED, tag: int = TAG_SYSTEM
    ) -> None:
        """Write a request's header.

        Args:
            descriptor: the interface's name.
            era: TAGGED since Android 11 (strict mode policy, work source, tag, name), WORK_SOURCE
                of Android 10 (without the tag), STRICT_MODE before.
            tag: 'SYST', or what vendors' processes write.
        """
        if type(descriptor) is str and era is Era.TAGGED and tag is TAG_SYSTEM:
            self._put(tagged_token(descriptor))
            return
        check_type("write_interface_token(): descriptor", descriptor, str)
        check_type("write_interface_token(): era", era, Era)
        check_type("write_interface_token(): tag", tag, int)
        self._put(token_octets(era, tag, descriptor))

    def enforce_interface(self, descriptor: str) -> None:
        """Read a request's header, of whichever era, and check that it names ``descriptor``.

        Raises:
            ParcelError: it names another interface, or is no such header.
        """
        if type(descriptor) is not str:
            check_type("enforce_interface(): descriptor", descriptor, str)
        start = self._position
        if not self._closed:  # what nearly all requests begin with, at a glance
            name = tagged_name(descriptor)
            place = start + TAG_OFFSET
            end = place + len(name)
            if self._data[place:end] == name:
                self._position = end
                return
        try:
            read_token(self, descriptor)
        except ParcelError:
            found = interface_named(Parcel(bytes(self)[start:]))
            what = f"a request for {found!r}" if found else "what has no token, with 'SYST',"
            raise ParcelError(f"{what} came to {descriptor!r}, at {start}") from None

    def write_no_exception(self) -> None:
        """Write the header of a reply that is a result."""
        self.write_int32(android.EX_NONE)

    def write_exception(self, error: RemoteException) -> None:
        """Write a reply that is an exception: code, message, empty stack trace, own number."""
        check_type("write_exception(): error", error, RemoteException)
        self.write_int32(error.exception_code)
        self.write_string16(error.message)
        self.write_int32(0)
        if error.exception_code == android.EX_SERVICE_SPECIFIC:
            self.write_int32(error.service_specific)

    def read_exception(self) -> None:
        """Read a reply's header; return if it is a result.

        Raises:
            RemoteException: the service raised an exception.
            ParcelError: the header is malformed.
        """
        start = self._position
        try:
            code = self.read_int32()
            if code == android.EX_NONE:
                return
            error = self._read_error(code)
        except ParcelError:
            self._position = start
            raise
        if error is not None:
            raise error

    def _read_error(self, code: int) -> RemoteException | None:
        """Read what is behind the first word of a header; None if it stands for a result."""
        if code == android.EX_HAS_NOTED_APPOPS_REPLY_HEADER:
            self._skip_header()
            code = self.read_int32()
        if code == android.EX_HAS_REPLY_HEADER:
            self._skip_header()
            code = android.EX_NONE  # Java puts this header only before results
        if code == android.EX_NONE:
            return None
        message = self.read_string16() or ""
        self._skip_header()  # the stack trace of the other side
        number = self.read_int32() if code == android.EX_SERVICE_SPECIFIC else 0
        return RemoteException(code, message, service_specific=number)

    def _skip_header(self) -> None:
        """Skip a block whose int32 size counts itself; 0 means that there is only the size."""
        start = self._position
        if self.read_int32():
            self._position = start
            self._position = start + self._size_at(start, "a header")

    def _size_at(self, start: int, what: str) -> int:
        size = self.read_int32()
        if not INT32.size <= size <= len(self) - start:
            self._position = start
            raise ParcelError(f"{what} of {size} bytes at {start} of {len(self)}")
        return size
