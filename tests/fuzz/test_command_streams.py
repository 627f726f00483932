# SPDX-License-Identifier: Apache-2.0
"""Hostile clients of the engine: a completion or a sleeping read, never another exception.

Each case plays against a context manager and a bystander, whose own call must still go through
afterwards.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EFAULT, EINVAL, EPERM
from random import Random
from typing import TYPE_CHECKING

import pytest

from binderwire import binder_abi as abi
from binderwire.commands import message
from binderwire.ioc import ioc_size
from support import bc
from support.engine_world import EngineWorld
from support.playbook import SPARE_ADDRESS
from support.scenes import Scene, manager_and_client, round_trip, take

if TYPE_CHECKING:
    from support.engine_world import EngineProc, EngineThread

CASES = 200  # of each kind
ROUNDS = 40  # ioctls in each case
ERRNOS = {0, EAGAIN, EBUSY, EFAULT, EINVAL, EPERM}
WORDS = sorted(abi.COMMANDS)
VALUES = [0, 1, 2, 3, 4, 7, 8, 24, 76, 80, 0x1000, 0x7FFF_FFFF, 1 << 31, 1 << 32, 1 << 63]


class Attacker:
    """A client that sends what a generator makes up."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = EngineWorld()
        self.scene = manager_and_client(self.world)
        self.proc: EngineProc = self.world.open(size=4096)
        self.threads: list[EngineThread] = [self.proc.thread() for _ in range(3)]
        self.known = [take(Scene(self.scene.server, self.proc.seasoned()), 0x1000), 0]

    def number(self) -> int:
        """Return a number that some field may hold: a special one, a known one, any one."""
        random = self.random
        kind = random.randrange(6)
        if kind == 0:
            return random.getrandbits(random.choice([8, 16, 32, 64]))
        if kind == 1:
            return self.proc.mapping[0] + random.choice([0, 8, 4088, 4096])
        if kind < 4:
            return random.choice(self.known)
        return max(0, random.choice(VALUES) + random.choice([-1, 0, 0, 1]))

    def octets(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def part(self) -> bytes:
        """Return something that a payload may contain, seldom nonsense."""
        random = self.random
        kind = random.randrange(11)
        if kind == 8:
            return self.pointer()
        if kind == 9:
            return bc.fd_array(random.choice([0, 1, self.number()]), parent=self.number())
        if kind == 10:
            return bc.fd(random.choice([self.proc.new_file(), self.number() & 0xFFFF_FFFF]))
        if kind < 3:
            return bc.handle(self.known[0])
        if kind < 6:
            return random.choice([bc.binder, bc.weak_binder])(random.choice(VALUES))
        if kind < 7:
            return self.octets(random.choice([0, 4, 24, 40]))
        return bc.handle(self.number() & 0xFFFF_FFFF)

    def pointer(self) -> bytes:
        random = self.random
        return bc.ptr(
            random.choice([self.proc.put(bytes(32)), self.number()]),
            random.choice([0, 8, 32, self.number()]),
            parent=random.choice([None, 0, 0, 1, self.number()]),
            parent_offset=random.choice([0, 8, self.number()]),
        )

    def payload(self) -> bc.Payload:
        random = self.random
        parts = [self.part() for _ in range(random.randrange(4))]
        if random.random() < 0.2:
            return bc.payload(*parts, at=[self.number() for _ in range(random.randrange(4))])
        return bc.payload(*parts)

    def command(self) -> bytes:
        random = self.random
        word = random.choice([*WORDS, *[abi.BC_TRANSACTION] * 12])
        record = abi.COMMANDS[word].payload
        if record in (abi.binder_transaction_data, abi.binder_transaction_data_sg):
            make = random.choice([bc.call, bc.oneway, bc.oneway])
            parcel = make(random.choice(self.known), self.payload(), code=random.getrandbits(32))
            if random.random() < 0.2:
                name = random.choice(["data_size", "offsets_size", "buffer", "offsets", "flags"])
                parcel.fields[name] = self.number() & (0xFFFF_FFFF if name == "flags" else ~0)
            if word in (abi.BC_REPLY, abi.BC_REPLY_SG):
                parcel = bc.reply(self.payload())
            octets = parcel.place(self.proc.put)[4:]
            if record is abi.binder_transaction_data_sg:
                octets += random.choice([0, 64, 64, self.number()]).to_bytes(8, "little")
            return word.to_bytes(4, "little") + octets
        if record is None:
            return message(abi.COMMANDS, word)
        values = {
            field.name: self.number() & ((1 << field.size * 8 - 1) - 1) for field in record.fields
        }
        return message(abi.COMMANDS, word, **values)

    def stream(self) -> bytes:
        """Return mostly valid commands, sometimes damaged."""
        random = self.random
        stream = bytearray(b"".join(self.command() for _ in range(random.randrange(4))))
        if stream and random.random() < 0.1:
            stream[random.randrange(len(stream))] = random.randrange(256)
        if random.random() < 0.1:
            del stream[random.randrange(len(stream) + 1) :]
        return bytes(stream)

    def write_read(self, stream: bytes) -> bytes:
        """Return a binder_write_read over the stream, sometimes with strange fields."""
        random = self.random
        bwr = {
            "write_size": len(stream),
            "write_buffer": self.proc.put(stream) if stream else 0,
            "read_size": random.choice([0, 4, 80, 256, 256]),
            "read_buffer": self.proc.room(256),
        }
        if random.random() < 0.2:
            bwr[random.choice(abi.binder_write_read.fields).name] = self.number()
        if random.random() < 0.1:
            bwr["read_buffer"] = random.choice([SPARE_ADDRESS, self.proc.mapping[0]])
        return abi.binder_write_read.build(**bwr)

    def ioctl(self, request: int, argument: bytes) -> None:
        """Send it on some thread that is not asleep, and see that it ends well."""
        awake = [thread for thread in self.threads if thread.tid not in self.proc.file.calling]
        if not awake:
            self.random.choice(self.threads).signal()
            return
        pending = self.random.choice(awake).start_ioctl(request, argument)
        if not pending.parked:
            errno, payload = pending.wait()
            assert errno in ERRNOS
            assert len(payload) <= ioc_size(request)

    def finish(self) -> None:
        """The others must not have noticed, and nothing may be left."""
        self.proc.kill()
        server = self.scene.manager.looper()
        while server.poll():  # calls that the attacker has left behind
            buffers = [item.buffer for item in server.read().items if hasattr(item.fields, "code")]
            server.write(*map(bc.free, buffers))
            server = self.scene.manager.looper()
        round_trip(Scene(server, self.scene.client), b"still there")
        self.world.close()
        self.world.assert_empty()


@pytest.mark.parametrize("kind", ["commands", "garbage", "ioctls"])
def test_nothing_but_completions(kind: str) -> None:
    for seed in range(CASES):
        attacker = Attacker(seed)
        random = attacker.random
        for _ in range(ROUNDS):
            if kind == "commands":
                attacker.ioctl(abi.BINDER_WRITE_READ, attacker.write_read(attacker.stream()))
            elif kind == "garbage":
                stream = attacker.octets(random.randrange(64))
                attacker.ioctl(abi.BINDER_WRITE_READ, attacker.write_read(stream))
            else:
                request = random.choice([*abi.IOCTLS, random.getrandbits(32)])
                attacker.ioctl(request, attacker.octets(ioc_size(request)))
        attacker.finish()
