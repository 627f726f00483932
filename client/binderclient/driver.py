# SPDX-License-Identifier: Apache-2.0
"""The seam to the operating system: one open binder device file, its mapping and its ioctls.

Everything that open, ioctl, mmap and close mean for a binder device is here and nowhere else.
This file must not know what travels in the buffers.

``ioctl`` goes through ctypes: it releases the GIL, and after a failure the kernel has still updated
the ``binder_write_read``, which ``fcntl.ioctl`` does not promise to show.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from binderclient import deliveries
from binderclient.errors import DeviceError, DeviceGone, ProtocolError
from binderclient.extension import flags_of, map_area
from binderclient.lane import PLACES, RECORD, Lane
from binderwire.binder_abi import (
    BINDER_CURRENT_PROTOCOL_VERSION,
    BINDER_GET_EXTENDED_ERROR,
    BINDER_SET_MAX_THREADS,
    BINDER_THREAD_EXIT,
    BINDER_VERSION,
    BINDER_WRITE_READ,
    binder_extended_error,
    binder_write_read,
)
from binderwire.extension_abi import (
    BINDERD_ERRNO,
    BINDERD_FLUSH,
    BINDERD_HAS_LANES,
    BINDERD_HAS_MMAP,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Where it is 0 in the environment no thread has a lane.
LANES_VARIABLE: Final = "BINDERCLIENT_LANES"

WRITE_SIZE: Final = 1024  # bytes; a longer run of commands makes the area grow
READ_SIZE: Final = 4096  # bytes; 80 are the least that brings a transaction (statement R2)
OUTLIVE_SECONDS: Final = 10.0

_libc: Final = ctypes.CDLL(None, use_errno=True)
_ioctl: Final = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_ioctl.restype = ctypes.c_int

# What a FUSE client sees once the daemon behind a file is gone: in a call that it was in, in later
# ones, and where it ended before it was ready; a CUSE device is removed.  Not EIO: that one request
# failed, by a fault of the daemon's, and the next one may succeed.
_GONE: Final = frozenset(
    {errno.ECONNABORTED, errno.ENOTCONN, errno.ECONNREFUSED, errno.ENODEV, errno.ENXIO}
)

# What to do about an open that fails.
_OPEN_HINTS: Final = {
    errno.ENOENT: "no such device; is binderd running, or binderfs mounted?",
    errno.EISDIR: "this is a directory; name a device in it",
    errno.EACCES: (
        "its owner and mode (ls -l) do not let you open it, or binderd runs in a container and you "
        "outside of that; ask whoever runs binderd"
    ),
    errno.ENOTCONN: "the driver behind it is gone; start binderd again",
}


class Driver:
    """An open device file with its receive area mapped.

    Args:
        path: the device file.
        map_size: bytes to map, at most 4 MiB; the room for everything this process receives.

    Raises:
        DeviceError: it cannot be opened or mapped, or is no binder device of protocol 8.

    ``close`` may come while other threads are in ioctls, and the number of the file must not mean
    another file to them.  So every use of it is between ``enter`` and ``leave``, and the number is
    free again when the last thread has left.
    """

    def __init__(self, path: str, map_size: int) -> None:
        self.path = path
        self.on_gone: Callable[[], None] = lambda: None  # called by whichever thread notices
        self.gone = False
        # Appending to a deque is atomic: no lock, also in a signal handler.
        self._inside: deque[None] = deque()
        self._retired: deque[int] = deque()
        self.fd = self._open()
        self._unclosed = deque([self.fd])
        self._has_lanes = False  # can threads have lanes?
        self._is_cuse = False  # a CUSE device, as far as is known
        try:
            self._check_version()
            self._mapping: mmap.mmap | None = self._map(map_size)
        except BaseException:
            self._close_number(self.fd)
            raise
        self._deliveries = deliveries.attach(self.control)
        self._base = buffer_address(self._mapping)
        self._pages = memoryview(self._mapping)

    def _open(self) -> int:
        try:
            return self._open_for_both()
        except OSError as error:
            number = error.errno or errno.EIO
            hint = _OPEN_HINTS.get(number, "cannot open it")
            raise DeviceError(number, hint, self.path) from None

    def _open_for_both(self) -> int:
        """Open the file for reading and writing, or where its mount is read-only as that allows.

        A device takes the same ioctls either way.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _check_version(self) -> None:
        version = bytearray(4)
        try:
            self.control(BINDER_VERSION, version)
        except OSError as error:
            raise DeviceError(error.errno or 0, "this is no binder device", self.path) from None
        found = int.from_bytes(version, "little")
        if found != BINDER_CURRENT_PROTOCOL_VERSION:
            raise DeviceError(errno.EPROTO, f"binder protocol {found} instead of 8", self.path)

    def _map(self, size: int) -> mmap.mmap:
        """Map the device, or where the kernel has no mmap for it what the daemon hands over.

        A FUSE file without passthrough can be mapped, but shows nothing: so those are asked first.
        """
        try:
            is_regular = stat.S_ISREG(os.fstat(self.fd).st_mode)
            flags = flags_of(self.control) if is_regular else None
            if flags is not None:
                self._has_lanes = bool(flags & BINDERD_HAS_LANES)
                if not flags & BINDERD_HAS_MMAP:
                    return map_area(self.control, size)
            try:
                return mmap.mmap(self.fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            except OSError as error:
                if error.errno != errno.ENODEV:  # what CUSE answers
                    raise
                self._is_cuse = True
                return map_area(self.control, size)
        except OSError as error:
            message = f"cannot map {size} bytes of it"
            raise DeviceError(error.errno or 0, message, self.path) from None

    def _close_number(self, number: int) -> None:
        os.close(number)

    # ioctls

    def call(self, request: int, address: int) -> int:
        """Do an ioctl; return its errno, 0 if there is none.

        Args:
            address: of the argument. It is written to also where there is an errno.
        """
        return ctypes.get_errno() if _ioctl(self.fd, request, address) < 0 else 0

    def control(self, request: int, argument: bytearray) -> None:
        """Do an ioctl whose argument is copied from and to ``argument``; retries after a signal.

        Raises:
            OSError: it failed; DeviceError if the driver is gone.
        """
        area = (ctypes.c_char * len(argument)).from_buffer(argument)
        self.enter()
        try:
            number = errno.EINTR
            while number == errno.EINTR:
                number = self.call(request, ctypes.addressof(area))
        finally:
            self.leave()
        if number:
            self.check_gone(number)
            raise OSError(number, os.strerror(number), self.path)

    def check_gone(self, number: int) -> None:
        """Raise if that errno means that nothing can be done here any more.

        Raises:
            DeviceGone: the driver is gone; ``on_gone`` was called.
            DeviceError: the file was closed.
        """
        if number in _GONE:
            self.gone = True
            self.on_gone()
            raise self.gone_error(number)
        if self.gone:
            raise self.gone_error()
        if number == errno.EBADF or self.fd < 0:
            raise DeviceError(errno.EBADF, "it was closed", self.path)

    def gone_error(self, number: int = errno.ENOTCONN) -> DeviceGone:
        """Return the exception that says so."""
        return DeviceGone(number, "the driver behind it is gone", self.path)

    def probe(self) -> None:
        """Notice that the driver is gone, if it is; never raises."""
        with contextlib.suppress(OSError):
            self.control(BINDER_VERSION, bytearray(4))

    def set_max_threads(self, count: int) -> None:
        """Say how many threads the driver may ask for (BINDER_SET_MAX_THREADS)."""
        self.control(BINDER_SET_MAX_THREADS, bytearray(count.to_bytes(4, "little")))

    def thread_exit(self) -> None:
        """Drop what the driver has of the calling thread (BINDER_THREAD_EXIT).

        The argument means nothing, but its address must be good: FUSE copies it in any case.
        """
        with contextlib.suppress(OSError):
            self.control(BINDER_THREAD_EXIT, bytearray(4))

    def failure_reason(self) -> int:
        """Return the errno behind the calling thread's last failure, 0 if the driver keeps none."""
        answer = bytearray(binder_extended_error.size)
        try:
            self.control(BINDER_GET_EXTENDED_ERROR, answer)
        except OSError:
            return 0
        _id, _command, param = binder_extended_error.unpack_from(answer)
        return max(0, -int(param))

    def lane(self) -> Lane | None:
        """Return a lane for the calling thread, None if it can have none."""
        if self._has_lanes and os.environ.get(LANES_VARIABLE) != "0":
            self.enter()
            try:
                return Lane(self)
            except OSError:
                pass  # there are too many, or no descriptor: what follows takes another way
            finally:
                self.leave()
        return None

    def take_deliveries(self) -> None:
        """Take the descriptors that the driver wants installed before a read goes on."""
        if self._deliveries is not None:
            self._deliveries.take()

    # Received memory

    def view(self, address: int, size: int) -> memoryview:
        """Return ``size`` bytes of the mapping at an address that the driver named.

        Raises:
            ProtocolError: they are not inside of the mapping.
            DeviceError: the driver went meanwhile, or the file was closed.
        """
        if self.fd < 0:
            self.check_gone(errno.EBADF)
        start = address - self._base
        if not 0 <= start <= start + size <= len(self._pages):
            raise ProtocolError(f"a buffer at {address:#x} outside of the mapping")
        return self._pages[start : start + size]

    # Lifetime

    def wake_all(self) -> None:
        """Make every thread that waits in a read return with nothing.

        Closing any descriptor of the device is a flush, and that is what a flush does
        (statement I4). CUSE tells nobody of it, so there it takes an ioctl.
        """
        self.enter()
        try:
            with contextlib.suppress(OSError):
                if self._is_cuse:
                    self.control(BINDERD_FLUSH, bytearray(1))
                else:
                    os.close(os.dup(self.fd))
        finally:
            self.leave()

    @property
    def lifeline(self) -> int:
        """A descriptor that hangs up when the driver ends; -1 if there is none."""
        return self._deliveries.fileno() if self._deliveries is not None else -1

    def enter(self) -> None:
        """Begin to use ``fd``."""
        self._inside.append(None)

    def leave(self) -> None:
        """End what ``enter`` began."""
        self._inside.pop()
        if self._retired and not self._inside:
            self._close_retired()

    def close(self) -> None:
        """Close the file and unmap its pages; idempotent.

        Pages that a caller still looks at stay mapped until it is done; they, too, keep the
        process known to the driver (statement N12).
        """
        try:
            number = self._unclosed.popleft()
        except IndexError:
            return
        self.fd = -1
        if self._inside:
            self._put_aside(number)
        self._retired.append(number)
        if not self._inside:
            self._close_retired()
        # Views of parts of them may be in use; then the end of the last one unmaps them.
        pages, self._pages = self._pages, memoryview(b"")
        mapping, self._mapping = self._mapping, None
        with contextlib.suppress(BufferError):
            pages.release()
            if mapping is not None:
                mapping.close()

    def forget(self) -> None:
        """For a forked child: close its copy, whichever of the parent's threads were inside."""
        self._inside.clear()
        self.close()

    @staticmethod
    def _put_aside(number: int) -> None:
        """Close the device, but keep its number from becoming that of another file."""
        with contextlib.suppress(OSError):  # without a free number: it will be closed later
            stand_in = os.eventfd(0)  # knows no ioctl
            os.dup2(stand_in, number, inheritable=False)
            os.close(stand_in)

    def _close_retired(self) -> None:
        with contextlib.suppress(IndexError):  # another thread was faster
            number = self._retired.popleft()
            with contextlib.suppress(OSError):  # a driver that is gone; the file is closed anyway
                os.close(number)
            if self._deliveries is not None:
                self._deliveries.close()


# What opens devices that are no files, by path; see ``binderclient.testing``.
OPENERS: Final[dict[str, Callable[[str, int], Driver]]] = {}


def open_driver(path: str, map_size: int) -> Driver:
    """Open a device; arguments and errors as ``Driver``."""
    return OPENERS.get(path, Driver)(path, map_size)


# In a lane's memory: the commands, and what is read.
_OUT: Final = 64
_IN: Final = _OUT + WRITE_SIZE
assert _IN + READ_SIZE <= PLACES


class WriteRead:
    """The memory of one thread's BINDER_WRITE_READ: allocated once, addresses taken once.

    Args:
        lane: the thread's; None: it has none.
    """

    __slots__ = (
        "__weakref__",
        "_in",
        "_in_address",
        "_lane",
        "_out",
        "_out_address",
        "_record",
        "_record_address",
    )

    def __init__(self, lane: Lane | None = None) -> None:
        self._lane = lane
        if lane is not None:
            self._record, self._record_address = _part(lane, RECORD, binder_write_read.size)
            self._out, self._out_address = _part(lane, _OUT, WRITE_SIZE)
            self._in, self._in_address = _part(lane, _IN, READ_SIZE)
        else:
            self._use_own()

    def _use_own(self) -> None:
        self._record, self._record_address = _area(binder_write_read.size)
        self._out, self._out_address = _area(WRITE_SIZE)
        self._in, self._in_address = _area(READ_SIZE)

    def load(self, commands: bytearray, *, read: bool) -> None:
        """Prepare to write ``commands`` and, if ``read``, to wait for something to read."""
        size = len(commands)
        if size > len(self._out):
            self._out, self._out_address = _area(2 * size)
        self._out[:size] = commands
        binder_write_read.pack_into(
            self._record,
            0,
            size,
            0,
            self._out_address,
            READ_SIZE if read else 0,
            0,
            self._in_address,
        )

    def run(self, driver: Driver, go_on: Callable[[], bool]) -> int:
        """Do the ioctl; returns 0 or its errno.

        After a signal the same record goes in again: the driver has noted in it what it consumed,
        and repeats nothing (statement R9).  ``go_on`` is asked before that; EINTR is returned if
        it says no.  An exception from a signal handler passes through.  It also goes in again after
        descriptors were taken that binderd has sent.
        """
        driver.enter()
        try:
            while number := self._call(driver, go_on):
                if number == BINDERD_ERRNO:
                    driver.take_deliveries()
                elif number != errno.EINTR or not go_on():
                    if number == errno.ECONNABORTED and not self._is_shared:
                        _outlive(self)
                    if number in _GONE and self._is_shared:
                        self._leave_lane()
                    return number
            return 0
        finally:
            driver.leave()

    @property
    def _is_shared(self) -> bool:
        """Does the daemon write what is read to memory of its own, which is this?"""
        return self._lane is not None and not self._lane.is_over

    def _leave_lane(self) -> None:
        """Go on in memory of our own: the thread may keep this object long after its lane."""
        record = bytes(self._record)
        self._lane = None
        self._use_own()
        self._record[:] = record

    def _call(self, driver: Driver, go_on: Callable[[], bool]) -> int:
        if self._lane is not None:
            return self._lane.write_read(driver, go_on)
        return driver.call(BINDER_WRITE_READ, self._record_address)

    @property
    def write_consumed(self) -> int:
        """How many bytes of the commands the driver has taken."""
        return int(binder_write_read.unpack_from(self._record)[1])

    def returned(self) -> memoryview:
        """What was read; valid until the next ``load``."""
        return self._in[: binder_write_read.unpack_from(self._record)[4]]


# What daemons may still write to, and since when: seconds of the monotonic clock.
_outliving: Final[deque[tuple[float, WriteRead]]] = deque()


def _outlive(memory: WriteRead) -> None:
    """Keep memory for OUTLIVE_SECONDS, as the daemon may still be writing to it.

    It writes what a thread reads straight into this process. Where its connection was aborted
    (``umount -f``) the kernel has sent the thread back without waiting for that, and memory that
    is freed now could have become something else when the daemon gets there.
    """
    now = time.monotonic()
    with contextlib.suppress(IndexError):  # other threads do this, too
        while _outliving[0][0] < now - OUTLIVE_SECONDS:
            _outliving.popleft()
    _outliving.append((now, memory))


def _part(lane: Lane, start: int, size: int) -> tuple[memoryview, int]:
    return lane.octets[start : start + size], lane.address + start


def _area(size: int) -> tuple[memoryview, int]:
    """Return memory of a fixed address."""
    area = ctypes.create_string_buffer(size)
    return memoryview(area).cast("B"), ctypes.addressof(area)


def data_address(data: bytearray) -> tuple[int, object]:
    """Return where the bytes of ``data`` are, and what keeps them there while it is alive."""
    if not data:
        return 0, None
    pin = ctypes.c_char.from_buffer(data)
    return ctypes.addressof(pin), pin


class _PyBuffer(ctypes.Structure):
    """Python's Py_buffer, of its stable ABI: the only way to a read-only mapping's address."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def buffer_address(mapping: Any) -> int:  # noqa: ANN401 - anything with a buffer
    """Return where the bytes of a buffer are; the caller keeps it where it is."""
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(buffer), 0)
    address = int(buffer.buf or 0)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address
