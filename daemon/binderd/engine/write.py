# SPDX-License-Identifier: Apache-2.0
"""The write half of BINDER_WRITE_READ: a client's stream of BC_ commands.

A table gives each command its payload size and the function that acts.  A function raises
``KernelErrno`` where the driver ends the ioctl; a transaction that fails ends in-band instead.

Mirrors binder_thread_write.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.death import Death
from binderd.engine.errors import BinderFailure, KernelErrno
from binderd.engine.freeze_notice import FreezeNotice
from binderd.engine.kinds import NOTICES
from binderd.engine.owner import ENTERED, REGISTERED
from binderd.engine.ports import NotYet
from binderd.engine.send import send_call, send_call_sg, send_reply, send_reply_sg
from binderd.engine.thread import EXITED, INVALID, Thread
from binderd.engine.unfinished import Emptying, begin
from binderd.engine.views import COMMANDS_COUNT, NUMBER_MASK
from binderd.engine.work import pack_word
from binderwire.binder_abi import (
    BC_ACQUIRE,
    BC_ACQUIRE_DONE,
    BC_CLEAR_DEATH_NOTIFICATION,
    BC_CLEAR_FREEZE_NOTIFICATION,
    BC_DEAD_BINDER_DONE,
    BC_DECREFS,
    BC_ENTER_LOOPER,
    BC_EXIT_LOOPER,
    BC_FREE_BUFFER,
    BC_FREEZE_NOTIFICATION_DONE,
    BC_INCREFS,
    BC_INCREFS_DONE,
    BC_REGISTER_LOOPER,
    BC_RELEASE,
    BC_REPLY,
    BC_REPLY_SG,
    BC_REQUEST_DEATH_NOTIFICATION,
    BC_REQUEST_FREEZE_NOTIFICATION,
    BC_TRANSACTION,
    BC_TRANSACTION_SG,
    BR_ERROR,
    BR_OK,
    COMMANDS,
    binder_handle_cookie,
    binder_ptr_cookie,
    binder_uintptr_t,
    u32_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.engine.completion import WriteRead
    from binderd.engine.pause import Unfinished
    from binderd.engine.stats import Counter

_unpack_word: Final = Struct("=I").unpack_from
_unpack_pointer: Final = binder_uintptr_t.unpack_from
_WORD: Final = 4
# The stream is fetched in windows.  Each is read with enough behind it for the longest command.
_WINDOW: Final = 4096
_LONGEST: Final = _WORD + max(row.payload.size for row in COMMANDS.values() if row.payload)

PAUSED: Final = 1  # a result of ``run``


def run(thread: Thread, request: WriteRead) -> int:
    """Carry out the commands from ``write_consumed`` on, which follows each (R10, Q11).

    Raises:
        NotYet: something has to be fetched before the command at ``write_consumed``.

    Returns:
        0; the negative errno of the command at ``write_consumed``; or PAUSED, others should have
        their turn before that command, or in the middle of it.
    """
    if thread.unfinished is not None and not _finish(thread, request, thread.unfinished):
        return PAUSED
    return _run(thread, request)


def _run(thread: Thread, request: WriteRead) -> int:
    position = request.write_consumed
    stop = request.write_end
    start = data_end = position
    data = b""
    error, counters = thread.return_error, thread.process.words.commands
    pace = thread.process.hub.pace
    while position < stop and error.word == BR_OK:  # Q10
        if position >= data_end:
            size = min(stop - position, _WINDOW + _LONGEST)
            data = thread.memory.read_commands(request.write_buffer + position, size)
            start, data_end = position, position + min(size, _WINDOW)
        offset = position - start + _WORD
        if offset > len(data):
            data, start, offset = _beyond(thread, request, position), position, _WORD
            if offset > len(data):
                return -EFAULT
        command = _COMMANDS[data[offset - _WORD]]
        if command is None or data[offset - _WORD : offset] != command.word:
            _count(counters, _unpack_word(data, offset - _WORD)[0] & NUMBER_MASK)
            return -EINVAL
        counter, size = counters[command.number], command.size
        counter.count += 1
        if offset + size > len(data):
            data, start, offset = _beyond(thread, request, position), position, _WORD
            if offset + size > len(data):
                return -EFAULT
        try:
            command.run(thread, data, offset)
        except KernelErrno as failure:
            return -failure.errno
        except NotYet:
            counter.count -= 1
            raise
        if thread.unfinished is not None:
            thread.unfinished.size = _WORD + size
            thread.unfinished.number = command.number
            return PAUSED
        position += _WORD + size
        request.write_consumed = position
        if position < stop and error.word == BR_OK and pace():
            return PAUSED
    return 0


def _count(counters: Sequence[Counter], number: int) -> None:
    if number < COMMANDS_COUNT:  # what only looks like a command counts, too, as in the driver
        counters[number].count += 1


def _finish(thread: Thread, request: WriteRead, unfinished: Unfinished) -> bool:
    """Go on with the command that has stopped in the middle; returns whether it is through."""
    try:
        if not unfinished.go_on():
            return False
    except NotYet:
        thread.unfinished = None  # it is done anew, and counted then
        thread.process.words.commands[unfinished.number].count -= 1
        raise
    thread.unfinished = None
    request.write_consumed += unfinished.size
    return True


def _beyond(thread: Thread, request: WriteRead, position: int) -> bytes:
    """Return what is there of a command that begins before the end of the buffer, but ends behind.

    Like the driver we take it as a whole; what is behind other commands is not looked at.
    """
    return thread.memory.read(request.write_buffer + position, _LONGEST)


def _free_buffer(thread: Thread, data: bytes, offset: int) -> None:
    buffer = thread.process.delivered_buffer(_unpack_pointer(data, offset)[0])
    if buffer is not None and buffer.is_left_to(thread):  # E7
        thread.process.wipe(buffer, thread)
        if buffer.array_numbers:
            thread.closes += buffer.array_numbers
            thread.need_return = True  # R7
        if buffer.held is not None and len(buffer.held) > 1:
            buffer.allow_user_free = False
            thread.process.begin_free(buffer)
            begin(thread, Emptying(thread.process, buffer))
        else:
            thread.process.free_buffer(buffer)


def _change_ref(thread: Thread, data: bytes, offset: int, *, increment: bool, strong: bool) -> None:
    """BC_INCREFS, BC_ACQUIRE, BC_RELEASE, BC_DECREFS; a bad handle is ignored (E7)."""
    handle = u32_value.unpack_from(data, offset)[0]
    process = thread.process
    manager = process.context.manager
    try:
        if increment and handle == 0 and manager is not None:
            if manager.process is process:
                raise KernelErrno(EINVAL)  # E6
            try:
                process.handles.increment_for_node(manager, strong=strong, thread=None)
            except BinderFailure:
                pass
            else:
                return
        process.handles.update(handle, increment=increment, strong=strong)
    except BinderFailure:
        pass


def _increfs(thread: Thread, data: bytes, offset: int) -> None:
    _change_ref(thread, data, offset, increment=True, strong=False)


def _acquire(thread: Thread, data: bytes, offset: int) -> None:
    _change_ref(thread, data, offset, increment=True, strong=True)


def _release(thread: Thread, data: bytes, offset: int) -> None:
    _change_ref(thread, data, offset, increment=False, strong=True)


def _decrefs(thread: Thread, data: bytes, offset: int) -> None:
    _change_ref(thread, data, offset, increment=False, strong=False)


def _acquire_done(thread: Thread, data: bytes, offset: int) -> None:
    _acknowledge(thread, data, offset, strong=True)


def _increfs_done(thread: Thread, data: bytes, offset: int) -> None:
    _acknowledge(thread, data, offset, strong=False)


def _acknowledge(thread: Thread, data: bytes, offset: int, *, strong: bool) -> None:
    ptr, cookie = binder_ptr_cookie.unpack_from(data, offset)
    node = thread.process.nodes.get(ptr)
    if node is None:
        return
    if node.cookie == cookie:  # E7
        node.acknowledged(strong=strong)
    node.put()


def _register_looper(thread: Thread, data: bytes, offset: int) -> None:
    process = thread.process
    if thread.looper & ENTERED or process.requested_threads == 0:
        thread.looper |= INVALID  # R12
    else:
        process.requested_threads -= 1
        process.started_threads += 1
    thread.looper |= REGISTERED


def _enter_looper(thread: Thread, data: bytes, offset: int) -> None:
    if thread.looper & REGISTERED:
        thread.looper |= INVALID  # R12
    thread.looper |= ENTERED


def _exit_looper(thread: Thread, data: bytes, offset: int) -> None:
    thread.looper |= EXITED


def _request_death(thread: Thread, data: bytes, offset: int) -> None:
    """A bad handle or a second request is ignored (E7).

    Where the user has too many the thread reads BR_ERROR, as when the driver has no memory.
    """
    handle, cookie = binder_handle_cookie.unpack_from(data, offset)
    process = thread.process
    ref = process.handles.find(handle, strong=False)
    if ref is None or ref.death is not None:
        return
    if not process.user.of(NOTICES).has_room(1):
        thread.fail(BR_ERROR)
        return
    ref.death = Death(process, cookie)
    if ref.node.process is None:
        ref.death.announce()


def _clear_death(thread: Thread, data: bytes, offset: int) -> None:
    """Ignored unless it fits a registration (E7)."""
    handle, cookie = binder_handle_cookie.unpack_from(data, offset)
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.death is None or ref.death.cookie != cookie:
        return
    death, ref.death = ref.death, None
    death.clear(thread)


def _dead_binder_done(thread: Thread, data: bytes, offset: int) -> None:
    """An unknown cookie is ignored (E7)."""
    waiting = thread.process.delivered_deaths.get(binder_uintptr_t.unpack_from(data, offset)[0])
    if waiting:
        next(iter(waiting)).done(thread)


def _request_freeze_notice(thread: Thread, data: bytes, offset: int) -> None:
    """A weak ref suffices (F5).

    Raises:
        KernelErrno: EINVAL: no such handle, or requested before (E6); ENOMEM: the user has too
            many.
    """
    handle, cookie = binder_handle_cookie.unpack_from(data, offset)
    process = thread.process
    ref = process.handles.find(handle, strong=False)
    if ref is None or ref.freeze is not None:
        raise KernelErrno(EINVAL)
    if not process.user.of(NOTICES).has_room(1):
        raise KernelErrno(ENOMEM)
    ref.freeze = FreezeNotice(process, cookie)
    owner = ref.node.process
    if owner is not None and not owner.is_dead:
        ref.freeze.is_frozen = owner.is_frozen
        ref.freeze.announce()


def _clear_freeze_notice(thread: Thread, data: bytes, offset: int) -> None:
    """EINVAL if it fits no registration (E6)."""
    handle, cookie = binder_handle_cookie.unpack_from(data, offset)
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.freeze is None or ref.freeze.cookie != cookie:
        raise KernelErrno(EINVAL)
    notice, ref.freeze = ref.freeze, None
    notice.clear(thread)


def _freeze_notice_done(thread: Thread, data: bytes, offset: int) -> None:
    """EINVAL if nothing with this cookie was read (E6)."""
    waiting = thread.process.delivered_freezes.get(binder_uintptr_t.unpack_from(data, offset)[0])
    if not waiting:
        raise KernelErrno(EINVAL)
    next(iter(waiting)).done(thread)


class _Command:
    """What is to be done at a BC_ word.

    Args:
        word: the number.
        act: carries it out.
    """

    __slots__ = ("_act", "number", "size", "word")

    def __init__(self, word: int, act: Callable[[Thread, bytes, int], None]) -> None:
        payload = COMMANDS[word].payload
        self.word: bytes = pack_word(word)
        self.number = word & NUMBER_MASK
        self.size = payload.size if payload else 0  # bytes behind the word
        self._act = act

    def run(self, thread: Thread, data: bytes, offset: int) -> None:
        """Do it; ``data`` has all of its payload from ``offset`` on."""
        if self is _TRANSACTION:  # what every call has needs no detour
            send_call(thread, data, offset)
        elif self is _REPLY:
            send_reply(thread, data, offset)
        elif self is _FREE_BUFFER:
            _free_buffer(thread, data, offset)
        else:
            self._act(thread, data, offset)


def _table(rows: dict[int, Callable[[Thread, bytes, int], None]]) -> list[_Command | None]:
    """Return the commands by the first byte of their words in a stream.

    Whatever has no row ends the ioctl with EINVAL (E6).
    """
    table: list[_Command | None] = [None] * (NUMBER_MASK + 1)
    for word, act in rows.items():
        command = _Command(word, act)
        assert table[command.word[0]] is None
        table[command.word[0]] = command
    return table


_COMMANDS: Final = _table(
    {
        BC_TRANSACTION: send_call,
        BC_REPLY: send_reply,
        BC_TRANSACTION_SG: send_call_sg,
        BC_REPLY_SG: send_reply_sg,
        BC_FREE_BUFFER: _free_buffer,
        BC_INCREFS: _increfs,
        BC_ACQUIRE: _acquire,
        BC_RELEASE: _release,
        BC_DECREFS: _decrefs,
        BC_INCREFS_DONE: _increfs_done,
        BC_ACQUIRE_DONE: _acquire_done,
        BC_REGISTER_LOOPER: _register_looper,
        BC_ENTER_LOOPER: _enter_looper,
        BC_EXIT_LOOPER: _exit_looper,
        BC_REQUEST_DEATH_NOTIFICATION: _request_death,
        BC_CLEAR_DEATH_NOTIFICATION: _clear_death,
        BC_DEAD_BINDER_DONE: _dead_binder_done,
        BC_REQUEST_FREEZE_NOTIFICATION: _request_freeze_notice,
        BC_CLEAR_FREEZE_NOTIFICATION: _clear_freeze_notice,
        BC_FREEZE_NOTIFICATION_DONE: _freeze_notice_done,
    }
)
_TRANSACTION: Final = _COMMANDS[pack_word(BC_TRANSACTION)[0]]
_REPLY: Final = _COMMANDS[pack_word(BC_REPLY)[0]]
_FREE_BUFFER: Final = _COMMANDS[pack_word(BC_FREE_BUFFER)[0]]
