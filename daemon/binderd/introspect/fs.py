# SPDX-License-Identifier: Apache-2.0
"""The tree as a file system, through pyfuse3: the only place that knows it.

Theory of operation. What a file says is settled when it is opened: the view of the engine is taken
in one go (unless there is very much: then row by row), and the text is made of it a slice at a
time, with pauses in which the devices, which share the loop with us, go on. One file is opened at a
time. So the readers of logs, however many they are, take a fifth of the loop at most, beside the
views. The text is kept until the file is closed, and charged to the user that opened it.

pyfuse3 serves one file system per process. Two of its habits shape this file:

- A request whose handler is cancelled, or fails with anything but FUSEError, is never answered, and
  its client waits for ever. So handlers are shielded, and bugs are reported and become EIO.
- It takes for granted that a request can be read once it was announced. But its client may be
  killed in between. With a blocking descriptor all clients would then wait for the next request, so
  this one does not block; pyfuse3 gives up then, and is started again.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import stat
from errno import EAGAIN, EIO, ENFILE, ENOENT, ENOMEM
from typing import TYPE_CHECKING, Any, Final

import pyfuse3
import trio

from binderd.engine.limits import LOG_BYTES, LOGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.ports import Charged
    from binderd.introspect.tree import Entry, LogTree

_TASKS_MAX: Final = 8  # requests that are handled at once; the others wait in the kernel
_SLICE_PIECES: Final = 250  # of text, until others have their turn: some 0.2 ms
_PAUSE_SECONDS: Final = 0.001  # the shortest that there is
_FOREVER: Final = 1 << 24  # seconds
_BLOCK_SIZE: Final = 4096  # bytes
_NAME_SIZE_MAX: Final = 255  # bytes

# The directory of what can be read can be looked into.
_OWNER_MAY_WRITE: Final = 0o200
_READ: Final = 0o444
_READ_TO_SEARCH: Final = 2  # bits to the right

_Handler = Any  # an async method of LogFiles; pyfuse3 has no type for it


def _handler(method: _Handler) -> _Handler:
    """Make a method fit to be called by pyfuse3: it always ends, with an answer or an errno."""

    @functools.wraps(method)
    async def handle(files: LogFiles, *arguments: object) -> object:
        answer: object = None
        with trio.CancelScope(shield=True):
            try:
                answer = await method(files, *arguments)
            except pyfuse3.FUSEError:
                raise
            except Exception as error:
                files.report_bug(method.__name__, error)
                raise pyfuse3.FUSEError(EIO) from None
        return answer

    return handle


class LogFiles(pyfuse3.Operations):
    """The requests.

    Args:
        tree: what there is.
        seconds: the time that all files show, in seconds since the epoch.
        report_bug: called with the request's name and the exception when a handler failed.
        payer: returns the user that is charged, for a request's thread and user.
        access: permission bits, user and group of binder_logs.
    """

    supports_dot_lookup = False

    def __init__(
        self,
        tree: LogTree,
        seconds: int,
        report_bug: Callable[[str, Exception], None],
        payer: Callable[[int, int], int],
        access: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.report_bug = report_bug
        self._tree = tree
        self._nanoseconds = seconds * 1_000_000_000
        self._accounts = tree.engine
        self._payer = payer
        self._access = access
        self._contents: dict[int, tuple[bytes, list[Charged]]] = {}  # of open files, by handle
        self._opening = trio.Lock()
        self._last_handle = 0

    @_handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Return what is known of a name."""
        entry = self._tree.find(parent_inode, os.fsdecode(name))
        if entry is None:
            raise pyfuse3.FUSEError(ENOENT)
        return self._attributes(entry.inode, is_directory=entry.is_directory)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing is remembered of what was looked up."""

    @_handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Return what is known of an inode, of one that is open also after it has gone."""
        return self._attributes(inode, is_directory=self._tree.is_directory(inode))

    @_handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """A directory has no state: its handle is its inode number."""
        return inode

    @_handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory by inode number, so that names may come and go in between."""
        entries: list[Entry] = sorted(self._tree.entries(fh) or (), key=lambda entry: entry.inode)
        for entry in entries:
            if entry.inode <= start_id:
                continue
            attributes = self._attributes(entry.inode, is_directory=entry.is_directory)
            if not pyfuse3.readdir_reply(token, os.fsencode(entry.name), attributes, entry.inode):
                break

    @_handler
    async def releasedir(self, fh: int) -> None:
        """There is nothing to release."""

    @_handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Settle what the file says.

        Raises:
            FUSEError: ENOENT, the process has gone; ENFILE, ENOMEM, too much is open.
        """
        payer = self._payer(ctx.pid, ctx.uid)
        payment = self._accounts.charge(payer, LOGS)  # also while it waits for its turn
        if payment is None:
            raise pyfuse3.FUSEError(ENFILE)
        try:
            content, charged = await self._settle(inode, ctx.uid, payer)
        except BaseException:
            payment.end()
            raise
        self._last_handle += 1
        self._contents[self._last_handle] = content, [payment, charged]
        # As with the driver's, stat does not know the size; the kernel must ask us, not its cache.
        return pyfuse3.FileInfo(fh=self._last_handle, direct_io=True, keep_cache=False)

    @_handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return a part of what the file said when it was opened."""
        return self._contents[fh][0][off : off + size]

    @_handler
    async def release(self, fh: int) -> None:
        """Forget what the file said."""
        for payment in self._contents.pop(fh)[1]:
            payment.end()

    @_handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """A file system without blocks."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_SIZE
        data.f_namemax = _NAME_SIZE_MAX
        return data

    async def _settle(self, inode: int, reader: int, payer: int) -> tuple[bytes, Charged]:
        """Return what a file says to a reader, and what a user is charged for it."""
        share = self._accounts.share_of(payer, LOG_BYTES)
        async with self._opening:
            pieces = self._take_view(inode, reader)
            if pieces is None:
                raise pyfuse3.FUSEError(ENOENT)
            content = await _join(pieces, share.has_room)
            if content is None:
                raise pyfuse3.FUSEError(ENOMEM)
            return content, self._accounts.charge_anyway(payer, LOG_BYTES, len(content))

    def _take_view(self, inode: int, reader: int) -> Iterator[str] | None:
        # Nothing of a view is garbage, and the collector would look at all of it several times
        # while the devices wait.
        gc.disable()
        try:
            return self._tree.read(inode, reader)
        finally:
            gc.enable()

    def _attributes(self, inode: int, *, is_directory: bool) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode
        mode = _READ
        if self._tree.is_log(inode):
            mode, attributes.st_uid, attributes.st_gid = self._access
        if is_directory:
            mode |= _OWNER_MAY_WRITE | (mode & _READ) >> _READ_TO_SEARCH
        attributes.st_mode = mode | (stat.S_IFDIR if is_directory else stat.S_IFREG)
        attributes.st_nlink = 2 if is_directory else 1
        attributes.st_atime_ns = attributes.st_mtime_ns = self._nanoseconds
        attributes.st_ctime_ns = self._nanoseconds
        attributes.attr_timeout = _FOREVER
        attributes.entry_timeout = _FOREVER if self._tree.is_lasting(inode) else 0
        return attributes


async def serve(fd: int, files: LogFiles) -> None:
    """Serve until the file system is unmounted; once cancelled, its requests fail.

    Args:
        fd: a non-blocking channel to the kernel, mounted already; closed at the end.

    Raises:
        RuntimeError: libfuse does not want to.
    """
    try:
        pyfuse3.init(files, f"/dev/fd/{fd}", set())
    except BaseException:
        os.close(fd)
        raise
    try:
        while await _serve_until_trouble():
            pass
    finally:
        pyfuse3.close(unmount=False)


async def _serve_until_trouble() -> bool:
    """Return True if there was no request to be read after all, False at the end."""
    has_trouble = False
    try:
        await pyfuse3.main(max_tasks=_TASKS_MAX)
    except* OSError as group:
        if group.split(_is_lost_request)[1] is not None:
            raise
        has_trouble = True
    return has_trouble


def _is_lost_request(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in {EAGAIN, ENOENT}


async def _join(pieces: Iterator[str], has_room: Callable[[int], bool]) -> bytes | None:
    """Return the pieces as one; a pause for others follows every few of them, and the last.

    Returns:
        None if there is no room for so many bytes; then the rest of the text was not made.
    """
    slices = []
    size = 0
    while taken := list(itertools.islice(pieces, _SLICE_PIECES)):
        slices.append(os.fsencode("".join(taken)))
        size += len(slices[-1])
        if not has_room(size):
            return None
        await trio.sleep(_PAUSE_SECONDS)
    return b"".join(slices)
