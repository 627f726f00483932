# SPDX-License-Identifier: Apache-2.0
"""All attacks: what each is called, how large it is, what must hold while it lasts.

The programs are in ``attacks``, under the same names.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LOAD: Final = "load"  # work for the daemon: the victims must hardly notice
STALL: Final = "stall"  # something that does not answer: noticed once, briefly
SHARE: Final = "share"  # things that are taken and kept: there is enough for everybody else
END: Final = "end"  # the daemon is told to end meanwhile
NONE: Final = "none"  # nothing is done to the daemon: what others are to be compared with


class Attack(NamedTuple):
    """One row."""

    name: str
    title: str
    kind: str
    size: int  # for its program
    short: int  # the same, in `make test`
    seconds: float = 20.0  # at most, until it is done
    checks: tuple[str, ...] = ()  # of checks.py
    victims: str = "plain"
    program: str = ""  # if it is not called like the attack
    by_many: bool = False  # by processes that run at once: what WAKING costs comes on top

    def path(self) -> str:
        return f"attacks/{self.program or self.name}.py"


WAKING: Final = Attack("waking", "no attack: 16 processes that wake each other", NONE, 16, 4)
ATTACKS: Final = (
    # What the scheduler does by itself
    Attack("computing", "no attack: 20 processes that compute, without a device", NONE, 20, 4),
    WAKING,
    # What keeps the daemon waiting
    Attack("slow_pages", "4 pages of a slow file system, 9 s each", STALL, 9000, 9000, 40),
    Attack("silent_pages", "a page that never comes, three times", STALL, 3, 1, 50),
    Attack("overlay", "the same behind an overlay", STALL, 0, 0),
    Attack("mapping_lock", "the owner of plain memory is in an endless mmap", STALL, 0, 0),
    Attack("receiver", "a receiver is in an endless mmap", STALL, 0, 0, 10),
    Attack("ended_thread", "a silent page, the opening thread has ended", STALL, 0, 0),
    Attack("exec", "a receiver of files in an endless exec", STALL, 0, 0, 10, (), "files"),
    Attack("attributes", "files whose attributes never come are sent", LOAD, 4000, 500),
    # What takes it long
    Attack("deaths", "deaths with one cookie, then close", LOAD, 65000, 30000, 60),
    Attack(
        "frozen_updates", "1 MiB updates to a frozen receiver, 5 × 256 KiB", LOAD, 3855, 2000, 60
    ),
    Attack("mappings", "a receiver with 60,000 mappings", LOAD, 60000, 30000),
    Attack("scatter", "scatter-gather, 8,191 deep, 20 senders", LOAD, 8191, 4000, by_many=True),
    Attack("objects", "8,192 objects a call, 256 KiB of commands", LOAD, 8192, 8192),
    Attack("reads", "60,000 notices read in one go", LOAD, 60000, 20000),
    Attack("containers", "1,543 processes in a user namespace", LOAD, 1543, 300, by_many=True),
    Attack(
        "opening",
        "16 processes open and stat her device",
        LOAD,
        16,
        8,
        20,
        ("openings",),
        by_many=True,
    ),
    Attack("state", "as many nodes as there may be, `state` is read", LOAD, 325_000, 82_000),
    Attack("end", "SIGTERM under 1 MiB updates", END, 3855, 400, 60, program="frozen_updates"),
    # What uses up what others need
    Attack("threads", "320 files × 64 threads", SHARE, 64, 64, checks=("newcomer",)),
    Attack("notices", "death notices, never read", SHARE, 6000, 1500, checks=("memory",)),
    Attack("opens", "8,190 opens by one process", SHARE, 8190, 8190, checks=("newcomer",)),
    Attack("pages", "receive areas, never read", SHARE, 4000, 200, 30, ("newcomer", "pages")),
    Attack("logs", "logs that are kept open", SHARE, 1000, 1000, checks=("root_log",)),
    Attack("closes", "files that nobody can close", SHARE, 3000, 600, checks=("newcomer",)),
    Attack("flights", "files on their way, never taken", SHARE, 30000, 3000, 30, ("root_files",)),
)
BY_NAME: Final = {attack.name: attack for attack in ATTACKS}
