# SPDX-License-Identifier: Apache-2.0
"""Makes random scripts that get somewhere: it plays them on an engine while it makes them.

Looking at the engine only makes a good choice more likely; every wrong one is made now and then.
What it makes is plain data and does not refer back to the engine.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from binderwire import binder_abi as abi
from binderwire.commands import message
from oracle import script
from oracle.engine_player import Player
from oracle.payloads import Payloads
from oracle.script import (
    Close,
    Command,
    Ioctl,
    Kill,
    Open,
    Poll,
    Renice,
    Signal,
    Unmap,
    WriteRead,
)

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread
    from oracle.engine_player import File
    from oracle.script import Script, Step

STEPS: Final = (12, 45)  # at least and at most, after the opening moves
DEVICES: Final = (1, 1, 1, 1, 1, 1, 2)
SIZES: Final = (4096, 4096, 8192, 16384, 16384, 12288)
READ_SIZES: Final = (256,) * 10 + (512, 2048, 2048, 80, 80, 79, 76, 100, 152, 156, 160, 4, 5, 7, 12)
COOKIES: Final = (0, 1, 2, 3, 1 << 63)
REQUESTS: Final = (
    abi.BINDER_SET_IDLE_TIMEOUT,
    abi.BINDER_SET_IDLE_PRIORITY,
    abi.BINDER_CTL_ADD,
    abi.BINDER_WRITE_READ ^ 0x80000000,
    0,
    0xFFFFFFFF,
)
ODD_WORDS: Final = (
    abi.BC_ACQUIRE_RESULT,
    abi.BC_ATTEMPT_ACQUIRE,
    0,
    0xFFFFFFFF,
    abi.BC_FREE_BUFFER ^ 0x10000,
    0x40046320,
    abi.BR_NOOP,
)


class Generator:
    """One script in the making."""

    def __init__(self, seed: int, *, checking: bool = False) -> None:
        self.random = Random(seed)
        self.calm = self._chance(50)  # does everybody mostly do what makes sense?
        self.caller: Process | None = None  # whom the thread at work is answering
        self.player = Player(checking=checking)
        self.script: list[Step] = []
        self.ends: list[int] = []  # how many results there were after each step

    def make(self) -> Script:
        self._opening()
        for _ in range(self.random.randint(*STEPS)):
            step = self._step()
            if step is not None:
                self._add(step)
        return tuple(self.script)

    def _add(self, step: Step) -> None:
        if self.player.play(step):
            self.script.append(step)
            self.ends.append(len(self.player.expected))

    def _chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def _mishap(self, percent: float) -> bool:
        """Whether to do what does not make sense."""
        return self._chance(percent / 6 if self.calm else percent)

    # What most scripts begin with

    def _opening(self) -> None:
        """Open a device in every process; mostly, one becomes manager and serves."""
        for process in range(self.random.choice([2, 3, 3])):
            self._add(self._open(process, process))
        if self._chance(92):
            self._add(self._become_manager(0, 0))
            if self._chance(60):
                looper = Command(message(abi.COMMANDS, abi.BC_ENTER_LOOPER))
                self._add(WriteRead(0, 0, (looper,), 0))
        if self._chance(40):
            self._add(Ioctl(1, 0, abi.BINDER_SET_MAX_THREADS, self._u32(self.random.randrange(3))))

    def _open(self, process: int, file: int) -> Open:
        size = 0 if self._mishap(2) else self.random.choice(SIZES)
        device = self.random.choice(DEVICES) if self._mishap(100) else 1
        return Open(process, file, device, size, nonblocking=self._chance(12))

    def _become_manager(self, thread: int, file: int) -> Ioctl:
        if self._chance(45):
            return Ioctl(thread, file, abi.BINDER_SET_CONTEXT_MGR, bytes(4))
        flags = self.random.choice([0, 0x100, 0x100, 0x100, 0x105, 0x1FF])
        if self._mishap(12):
            flags |= abi.FLAT_BINDER_FLAG_TXN_SECURITY_CTX
        ptr = self.random.choice([0, 0x1000])
        octets = abi.flat_binder_object.pack(abi.BINDER_TYPE_BINDER, flags, ptr, ptr)
        return Ioctl(thread, file, abi.BINDER_SET_CONTEXT_MGR_EXT, octets)

    # Steps

    def _step(self) -> Step | None:
        random, player = self.random, self.player
        files = [file for file in player.files.values() if not file.released]
        kind = random.random() * 100
        if kind < 2 and len(player.files) < script.FILES:
            return self._open(random.randrange(script.PROCESSES), len(player.files))
        if kind < 2.6 and files:
            return Close(random.choice(files).number)
        if kind < 3.2 and files:
            return Unmap(random.choice(files).number)
        if kind < 4 + len(self.script) / 20:
            return Kill(random.randrange(script.PROCESSES))
        idle = self._idle()
        if kind < 9 or not idle:
            asleep = list(player.busy)
            if asleep and not self._chance(5):
                return Signal(random.choice(asleep))
            return Signal(random.randrange(script.PROCESSES * script.THREADS))
        thread, file = random.choice(idle)
        if kind < 10:
            return Renice(thread, random.choice([-20, -5, 0, 10, 19]))
        if kind < 12:
            return Poll(thread, file.number)
        if kind < 20:
            return self._ioctl(thread, file)
        return self._write_read(*self._prefer_busy(idle))

    def _idle(self) -> list[tuple[int, File]]:
        """Return each thread that does not sleep, with each file that it can use."""
        idle: list[tuple[int, File]] = []
        for file in self.player.files.values():
            first = file.owner.number * script.THREADS
            threads = range(first, first + script.THREADS)
            idle += [(t, file) for t in threads if self.player.usable(t, file.number)]
        return idle

    def _prefer_busy(self, idle: list[tuple[int, File]]) -> tuple[int, File]:
        """Return a thread, more likely one that is in a call or has news to read."""
        involved = []
        for thread, file in idle:
            known = self._known(thread, file)
            has_own = known is not None and (known.stack is not None or known.todo)
            if has_own or file.process.todo:
                involved.append((thread, file))
        return self.random.choice(involved if involved and self._chance(55) else idle)

    def _known(self, thread: int, file: File) -> Thread | None:
        return file.process.threads.get(self.player.tid(thread))

    def _ioctl(self, thread: int, file: File) -> Ioctl:
        random, number = self.random, file.number
        if self._mishap(5):
            return Ioctl(thread, number, random.choice(list(abi.IOCTLS)[1:]), None)
        kind = random.randrange(13)
        if kind == 0:
            return self._become_manager(thread, number)
        if kind == 1:
            return Ioctl(thread, number, abi.BINDER_THREAD_EXIT, bytes(4))
        if kind == 2:
            request = random.choice(REQUESTS)
            return Ioctl(thread, number, request, random.randbytes(8))
        if kind == 3:
            ptr = random.choice([0, 0, 0xFFF, 0x1000, 0x2000, random.getrandbits(64)])
            octets = abi.binder_node_debug_info.pack(ptr, 0, 0, 0)
            return Ioctl(thread, number, abi.BINDER_GET_NODE_DEBUG_INFO, octets)
        if kind == 4:
            odd = 1 if self._chance(10) else 0
            octets = abi.binder_node_info_for_ref.pack(self._handle(file), 0, odd, 0, 0, 0)
            return Ioctl(thread, number, abi.BINDER_GET_NODE_INFO_FOR_REF, octets)
        if kind < 8:
            octets = abi.binder_freeze_info.pack(self._pid(), random.choice([0, 1, 1, 7]), 0)
            return Ioctl(thread, number, abi.BINDER_FREEZE, octets)
        if kind == 8:
            octets = abi.binder_frozen_status_info.pack(self._pid(), 5, 5)
            return Ioctl(thread, number, abi.BINDER_GET_FROZEN_INFO, octets)
        if kind == 9:
            value = self._u32(random.choice([0, 1, 1, 2]))
            return Ioctl(thread, number, abi.BINDER_ENABLE_ONEWAY_SPAM_DETECTION, value)
        if kind == 10:
            value = self._u32(random.choice([0, 1, 2, 0xFFFFFFFF]))
            return Ioctl(thread, number, abi.BINDER_SET_MAX_THREADS, value)
        if kind == 11:
            return Ioctl(thread, number, abi.BINDER_VERSION, bytes(4))
        return Ioctl(thread, number, abi.BINDER_GET_EXTENDED_ERROR, bytes([9]) * 12)

    def _pid(self) -> int:
        if self._chance(5):
            return self.random.choice([0, 0xFFFFFFFF, 19999])
        return script.FIRST_PID + self.random.randrange(script.PROCESSES)

    def _u32(self, value: int) -> bytes:
        return value.to_bytes(4, "little")

    def _write_read(self, thread: int, file: File) -> WriteRead:
        random = self.random
        count = random.choice([0, 0, 1, 1, 1, 1, 2, 2, 3, 5])
        payloads = Payloads(random, thread, file, 1 / 6 if self.calm else 1.0)
        commands = []
        for _ in range(count):
            commands.append(self._command(thread, file, payloads))
            if is_call(commands[-1]) and not self._mishap(60):
                break  # nothing that it says would be done before the answer is there
        step = WriteRead(
            thread,
            file.number,
            tuple(commands),
            read_size=self._read_size(will_write=count > 0),
        )
        return self._odd(step) if self._mishap(6) else step

    def _read_size(self, *, will_write: bool) -> int:
        if self._chance(12 if will_write else 2):
            return 0
        return self.random.choice(READ_SIZES) if self._mishap(100) else 256

    def _odd(self, step: WriteRead) -> WriteRead:
        """Return the step with one thing about its buffers out of the ordinary."""
        random = self.random
        heap_end = script.heap(script.process_of(step.thread)) + script.HEAP_SIZE
        kind = random.randrange(6)
        if kind == 0 and step.read_size:  # the driver does not look whether it is too large
            return replace(step, read_consumed=random.randrange(step.read_size + 1))
        if kind == 1:
            return replace(step, skip=random.choice([1, 4, 8, 68]))
        if kind == 2:
            return replace(step, more=random.choice([-1, -4, -8, -20, 1, 4]))
        if kind == 3:
            return replace(step, at=random.choice([script.SPARE_ADDRESS, heap_end - 4, 1 << 63]))
        if kind == 4:
            return replace(step, into=random.choice([script.SPARE_ADDRESS, 1 << 63, heap_end]))
        return replace(step, into=script.reads(step.thread) + random.randrange(1, 9))

    # Commands

    def _handle(self, file: File) -> int:
        random = self.random
        known = list(file.process.handles.refs)
        if self._mishap(6):
            return random.choice([5, 7, 0xFFFFFFFF, 1 << 31])
        if known and not self._mishap(30):
            return random.choice(known)
        return 0 if self._chance(75) else random.choice([1, 1, 2, 3])

    def _target(self, file: File) -> int:
        """Return whom to call: mostly somebody who can be called, often back into a caller."""
        strong = {number: ref for number, ref in file.process.handles.refs.items() if ref.strong}
        back = [number for number, ref in strong.items() if ref.node.process is self.caller]
        if self.caller is not None and back and self._chance(60):
            return self.random.choice(back)
        targets = list(strong)
        manager = file.process.context.manager
        if manager is not None and manager.process is not file.process:
            targets += [0, 0]
        if targets and not self._mishap(15):
            return self.random.choice(targets)
        return self._handle(file)

    def _can_call(self, file: File) -> bool:
        """Whether there is anybody whom this process can call."""
        manager = file.process.context.manager
        return bool(file.process.handles.refs) or (
            manager is not None and manager.process is not file.process
        )

    def _command(self, thread: int, file: File, payloads: Payloads) -> Command:
        random = self.random
        known = self._known(thread, file)
        stack = known.stack if known is not None else None
        answers = stack is not None and stack.target_thread is known
        self.caller = None
        if stack is not None and answers and stack.sender is not None:
            self.caller = stack.sender.process
        likely = 1.0 if self._can_call(file) else 0.1
        waits = stack is not None and not answers
        choices = {
            self._reply: 40 if answers else 0.6,
            self._call: (1 if waits else 16 if answers else 18) * likely,
            self._one_way: 11 * likely,
            self._free: 14 if file.buffers else 1,
            self._acknowledge: 12 if file.news else 0,
            self._count: 10,
            self._death: 11 if file.process.handles.refs else 0.3,
            self._freeze: 6 if file.process.handles.refs else 0.3,
            self._looper: 3,
            self._acknowledge_wrongly: 0.2 if self.calm else 1,
            self._odd_word: 0.2 if self.calm else 1,
        }
        (make,) = random.choices(list(choices), list(choices.values()))
        return make(file, payloads)

    def _call(self, file: File, payloads: Payloads) -> Command:
        return payloads.transaction(abi.BC_TRANSACTION, self._target(file), one_way=False)

    def _one_way(self, file: File, payloads: Payloads) -> Command:
        return payloads.transaction(abi.BC_TRANSACTION, self._target(file), one_way=True)

    def _reply(self, file: File, payloads: Payloads) -> Command:
        return payloads.transaction(abi.BC_REPLY, 0, one_way=False)

    def _free(self, file: File, _: Payloads) -> Command:
        random = self.random
        bogus = random.choice([0, script.mapping(file.number), script.mapping(file.number) + 8, 1])
        octets = message(abi.COMMANDS, abi.BC_FREE_BUFFER, value=bogus)
        index = random.randrange(64) if self._chance(50) else -1  # often the latest
        return Command(octets, free=None if self._chance(3) else index)

    def _acknowledge(self, file: File, _: Payloads) -> Command:
        return Command(self.random.choice(file.news[-6:]))

    def _acknowledge_wrongly(self, file: File, _: Payloads) -> Command:
        random = self.random
        if self._chance(50):
            word = random.choice([abi.BC_DEAD_BINDER_DONE, abi.BC_FREEZE_NOTIFICATION_DONE])
            return Command(message(abi.COMMANDS, word, value=random.choice(COOKIES)))
        word = random.choice([abi.BC_INCREFS_DONE, abi.BC_ACQUIRE_DONE])
        ptr, cookie = random.choice([0, 0x1000, 0x2000]), random.choice([0, 0x1000, 0x2000])
        return Command(message(abi.COMMANDS, word, ptr=ptr, cookie=cookie))

    def _count(self, file: File, _: Payloads) -> Command:
        words = (abi.BC_INCREFS, abi.BC_ACQUIRE, abi.BC_RELEASE, abi.BC_DECREFS)
        word = self.random.choice(words)
        return Command(message(abi.COMMANDS, word, value=self._handle(file)))

    def _death(self, file: File, _: Payloads) -> Command:
        word = abi.BC_REQUEST_DEATH_NOTIFICATION
        if self._chance(35):
            word = abi.BC_CLEAR_DEATH_NOTIFICATION
        return self._registration(file, word)

    def _freeze(self, file: File, _: Payloads) -> Command:
        word = abi.BC_REQUEST_FREEZE_NOTIFICATION
        if self._chance(35):
            word = abi.BC_CLEAR_FREEZE_NOTIFICATION
        return self._registration(file, word)

    def _registration(self, file: File, word: int) -> Command:
        known = list(file.process.handles.refs)
        handle = self.random.choice(known) if known and not self._mishap(8) else self._handle(file)
        cookie = self.random.choice(COOKIES) if self._mishap(25) else handle + 0x50
        return Command(message(abi.COMMANDS, word, handle=handle, cookie=cookie))

    def _looper(self, _: File, __: Payloads) -> Command:
        words = (abi.BC_ENTER_LOOPER, abi.BC_REGISTER_LOOPER, abi.BC_EXIT_LOOPER)
        return Command(message(abi.COMMANDS, self.random.choice(words)))

    def _odd_word(self, _: File, __: Payloads) -> Command:
        random = self.random
        word = random.choice([*ODD_WORDS, random.getrandbits(32)])
        return Command(word.to_bytes(4, "little") + bytes(random.choice([0, 4, 8])))


def is_call(command: Command) -> bool:
    """Whether it is a transaction or a reply, behind which a client mostly waits."""
    word = int.from_bytes(command.octets[:4], "little")
    if word in (abi.BC_REPLY, abi.BC_REPLY_SG):
        return True
    is_transaction = word in (abi.BC_TRANSACTION, abi.BC_TRANSACTION_SG)
    return is_transaction and not command.octets[24] & abi.TF_ONE_WAY
