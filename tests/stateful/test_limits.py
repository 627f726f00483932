# SPDX-License-Identifier: Apache-2.0
"""Each kind of ``engine/kinds.py`` is taken to a user's limit, and docs/LIMITS.md tells of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderd.engine.errors import KernelErrno
from binderd.engine.kinds import KINDS, Kind
from binderd.engine.limits import OBJECT_LIMITS, Bound, Limits
from binderwire.binder_abi import BINDER_VERSION, BR_FAILED_REPLY
from stateful.test_users import Play, handle_of, is_refused
from support import bc
from support.playbook import MAPPING_SIZE
from support.scenes import LONG, get_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.playbook import Thread

TOP: Final = Path(__file__).parents[2]
MALLORY, ALICE, ROOT = 1001, 1002, 0
MOST: Final = 3


class Taker:
    """One user, who takes one more of a kind each time that he is asked to."""

    def __init__(self, play: Play, uid: int) -> None:
        self.play = play
        self.uid = uid
        self.taken = 0
        self._places: dict[str, tuple[Thread, int]] = {}

    def thread(self) -> Thread:
        return self.place()[0]

    def place(self) -> tuple[Thread, int]:
        """Return a thread of the user's and a handle of the manager's for a node of its."""
        if "own" not in self._places:
            owner = self.play.user(self.uid)
            owner.write(bc.oneway(0, bc.payload(bc.binder(0x1000, 0, 0x100))))
            owner.read(4096)
            server = self.play.scene.server
            call = get_call(server)
            number = call.objects[0][1]
            server.write(bc.acquire(number), bc.free(call.buffer))
            self._places["own"] = owner, number
        return self._places["own"]

    def is_sent_one(self, content: bc.Payload = b"") -> bool:
        return not is_refused(self.play.scene.server, bc.oneway(self.place()[1], content))

    # One more of a kind; False if that is refused

    def open_files(self) -> bool:
        try:
            self.play.world.open(uid=self.uid)
        except KernelErrno:
            return False
        return True

    def threads(self) -> bool:
        return self.thread().proc.thread().ioctl(BINDER_VERSION, bytes(4))[0] == 0

    def nodes(self) -> bool:
        thread = self.thread()
        self.taken += 1
        return not is_refused(thread, bc.oneway(0, bc.payload(bc.binder(self.taken * 16, 0))))

    def refs(self) -> bool:
        node = bc.binder(0x100 + 16 * self.play.next_number(), 0)
        return self.is_sent_one(bc.payload(node))

    def buffers(self) -> bool:
        return self.is_sent_one()

    def objects(self) -> bool:
        return self.is_sent_one(bc.payload(bc.binder(0x10, 0)))

    def areas(self) -> bool:
        self._places.clear()
        return self.is_sent_one()

    def calls(self) -> bool:
        started = self.play.user(self.uid).start(bc.call(0))
        return started.parked or started.result().items[-1].word != BR_FAILED_REPLY

    def notices(self) -> bool:
        thread = self.thread()
        outcome = thread.write_read(bc.oneway(0), read=0)
        return outcome.write_consumed > 0 and thread.extended_error()[2] == 0

    def freezes(self) -> bool:
        pid = self.play.scene.server.proc.pid
        return self.play.user(self.uid).start_freeze(pid, timeout_ms=LONG).parked

    def files(self) -> bool:
        if "receiver" not in self._places:
            receiver = self.play.user(self.uid)
            self._places["receiver"] = receiver, handle_of(self.play, self.thread(), receiver)
        one = self.thread().proc.new_file()
        number = self._places["receiver"][1]
        return not is_refused(self.thread(), bc.oneway(number, bc.payload(bc.fd(one))))


# What a daemon keeps outside the engine, and the tests that take it to its limit.
ELSEWHERE: Final = {
    "attachments": "channel/test_extension.py::test_the_share_of_attachments",
    "waiting_bytes": "channel/test_turns.py::test_users_who_wait_leave_room_for_others_and_root",
    "outbox": "descriptors/test_outbox.py::test_what_one_user_has_waiting_leaves_room_for_others",
    "closes": "descriptors/test_closer.py::test_who_sends_what_cannot_be_closed_pays_for_it",
    "lanes": "channel/test_lanes.py::test_thousands_of_lanes",
    "flights": "channel/test_flights.py::test_only_what_was_taken_is_given_back",
    "workers": "channel/test_late_memory.py::test_one_user_has_few_workers",
    "fetched": "channel/test_late_memory.py::test_what_was_fetched_is_charged_to_whose_it_is",
    "logs": "integration/test_logs.py::test_one_user_cannot_lock_others_out_of_the_logs",
    "inodes": "integration/test_shares.py::test_inodes_that_are_held_without_an_open_file",
    "lock_waits": "integration/test_shares.py::test_locks_that_are_waited_for",
    "log_bytes": "integration/test_logs.py::test_the_text_of_logs_is_charged_to_its_reader",
}
# A caller waits for the manager, which must not read then; others only have something to wait for.
NEEDS_A_CALL: Final = ("freezes",)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_one_user_reaches_the_limit_and_nobody_else(kind: Kind) -> None:
    if kind.name in ELSEWHERE:
        file, name = ELSEWHERE[kind.name].split("::")
        assert f"def {name}(" in (TOP / "tests" / file).read_text()
        return
    unit = MAPPING_SIZE if kind.name == "areas" else 1
    few: dict[str, Bound | int] = {kind.granted: 0} if kind.granted else {}
    play = Play(**few)
    takers = [Taker(play, uid) for uid in (MALLORY, ALICE, ROOT)]
    if kind.name != "open_files":
        for taker in takers:
            taker.thread()
    if kind.name in NEEDS_A_CALL:
        assert play.scene.client.start(bc.call(0)).parked
    users = [play.world.engine._hub.users.find(taker.uid).of(kind) for taker in takers]
    first = [share.count for share in users]
    bound = Bound(total=1000 * unit, user=first[0] + MOST * unit, ordinary=900 * unit)
    play.world.engine.set_limits(Limits().replaced({**few, kind.name: bound}))
    more: list[Callable[[], bool]] = [getattr(taker, kind.name) for taker in takers]
    got = 0
    while more[0]():
        got += 1
        assert got <= MOST, "more than the user may have"
        assert users[0].count <= bound.user
    assert got >= 1
    assert not more[0](), "the limit is one however often somebody tries"
    assert more[1](), "another user has his own share"
    assert more[2](), "and root"
    assert users[1].count > first[1]
    assert users[2].count > first[2]
    play.end()


def test_every_limit_of_one_object_is_told() -> None:
    named = {kind.object_limit for kind in KINDS} | {kind.granted for kind in KINDS}
    assert named - {""} <= set(OBJECT_LIMITS)
    assert set(OBJECT_LIMITS) == set(Limits._fields) - {"bounds"}
    assert all(seen for name, (_, seen) in OBJECT_LIMITS.items() if not name.endswith("granted"))


def test_the_page_is_what_the_code_says() -> None:
    command = [sys.executable, str(TOP / "docs" / "manual" / "limits.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == (TOP / "docs" / "LIMITS.md").read_text(), "make limits"
    for kind in KINDS:
        assert re.search(rf"^\| `{kind.name.replace('_', '-')}` \|", made, re.MULTILINE)
