# SPDX-License-Identifier: Apache-2.0
"""``android.os.IServiceManager``: what its requests and replies are, in each Android from 8 to 16.

A ``Dialect`` is what one Android speaks: the token before a request, the numbers of the methods,
the word behind a binder.  A ``Method`` is declared once, by the kinds of its arguments and of its
result; code that writes or reads one, at either end, goes by these tables.  Numbers move whenever
Android puts a method between others, so a method's number is its place in a dialect's tuple.

Within Android 11 to 16 nothing in a request tells which of them meant it.  Guessing by the shape of
the body works until two shapes meet (code 2 of 14 and of 15), and then something else is done than
was meant; so which Android it is has to be said, and the token decides only what it can.

Only declarations: this file encodes nothing.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

DESCRIPTOR: Final = "android.os.IServiceManager"
CALLBACK_DESCRIPTOR: Final = "android.os.IServiceCallback"
CLIENT_CALLBACK_DESCRIPTOR: Final = "android.os.IClientCallback"

MANAGER_NAME: Final = "manager"  # under which the manager lists itself

DUMP_PRIORITY_DEFAULT: Final = 1 << 3
DUMP_PRIORITY_ALL: Final = 0b1111
FLAG_IS_LAZY_SERVICE: Final = 1 << 30  # among the dump priorities, since Android 16

CALLBACK_CODE: Final = 1  # of the only method that either callback has


class Era(enum.Enum):
    """Which words come before the interface's name in a request."""

    STRICT_MODE = 1  # strict mode policy; up to Android 9
    WORK_SOURCE = 2  # strict mode policy, work source; Android 10
    TAGGED = 3  # strict mode policy, work source, tag; since Android 11


def _pack_chars(text: str) -> int:
    return int.from_bytes(text.encode("ascii"), "big")


# Which copy of libbinder wrote a tagged token.
TAG_SYSTEM: Final = _pack_chars("SYST")
TAG_VENDOR: Final = _pack_chars("VNDR")
TAG_RECOVERY: Final = _pack_chars("RECO")
TAG_UNKNOWN: Final = _pack_chars("UNKN")
TAGS: Final = frozenset({TAG_SYSTEM, TAG_VENDOR, TAG_RECOVERY, TAG_UNKNOWN})


class StabilityWord(enum.Enum):
    """What follows a flat_binder_object."""

    NONE = 0
    LEVEL = 1  # int32 level; 0 for null
    CATEGORY = 2  # format version, two reserved bytes, level; 0 for null


CATEGORY_VERSION: Final = 1
CATEGORY_LEVEL_SHIFT: Final = 24


class Kind(enum.Enum):
    """What an argument or a result is; ``servicemanager.values`` encodes each."""

    NOTHING = enum.auto()
    STATUS = enum.auto()  # int32 0, where there is no exception header
    STRING = enum.auto()  # String16 that is not null
    NULLABLE_STRING = enum.auto()
    STRINGS = enum.auto()  # int32 count, String16 each
    BOOL = enum.auto()
    INT32 = enum.auto()
    DUMP_PRIORITY = enum.auto()  # int32 that clients before Android 9 leave out
    BINDER = enum.auto()  # with its stability
    NULLABLE_BINDER = enum.auto()
    BARE_BINDER = enum.auto()  # without stability; null is int32 0
    SERVICE = enum.auto()  # union Service: tag 0, ServiceWithMetadata
    CONNECTION = enum.auto()  # nullable ConnectionInfo: String16 address, int32 port
    DEBUG_INFOS = enum.auto()  # list of ServiceDebugInfo: String16 name, int32 pid


class Method(NamedTuple):
    """A method: its name in AIDL, what it takes, what it answers with."""

    name: str
    arguments: tuple[Kind, ...]
    result: Kind


_ADDED = (Kind.STRING, Kind.BINDER, Kind.BOOL)
GET = Method("getService", (Kind.STRING,), Kind.NULLABLE_BINDER)
GET2 = Method("getService2", (Kind.STRING,), Kind.SERVICE)
CHECK = Method("checkService", (Kind.STRING,), Kind.NULLABLE_BINDER)
CHECK2 = Method("checkService2", (Kind.STRING,), Kind.SERVICE)
ADD = Method("addService", (*_ADDED, Kind.INT32), Kind.NOTHING)
LIST = Method("listServices", (Kind.INT32,), Kind.STRINGS)
REGISTER = Method("registerForNotifications", (Kind.STRING, Kind.BINDER), Kind.NOTHING)
UNREGISTER = Method("unregisterForNotifications", (Kind.STRING, Kind.BINDER), Kind.NOTHING)
IS_DECLARED = Method("isDeclared", (Kind.STRING,), Kind.BOOL)
DECLARED_INSTANCES = Method("getDeclaredInstances", (Kind.STRING,), Kind.STRINGS)
VIA_APEX = Method("updatableViaApex", (Kind.STRING,), Kind.NULLABLE_STRING)
UPDATABLE_NAMES = Method("getUpdatableNames", (Kind.STRING,), Kind.STRINGS)
CONNECTION_INFO = Method("getConnectionInfo", (Kind.STRING,), Kind.CONNECTION)
CLIENT_CALLBACK = Method(
    "registerClientCallback", (Kind.STRING, Kind.BINDER, Kind.BINDER), Kind.NOTHING
)
TRY_UNREGISTER = Method("tryUnregisterService", (Kind.STRING, Kind.BINDER), Kind.NOTHING)
DEBUG_INFO = Method("getServiceDebugInfo", (), Kind.DEBUG_INFOS)

# What the manager calls back with, one-way, in the dialect of the process that asked for it.
ON_REGISTRATION = Method("onRegistration", (Kind.STRING, Kind.BINDER), Kind.NOTHING)
ON_CLIENTS = Method("onClients", (Kind.BINDER, Kind.BOOL), Kind.NOTHING)

# Before AIDL: no exception header, and names come one at a time.
GET_BARE = Method("getService", (Kind.STRING,), Kind.BARE_BINDER)
CHECK_BARE = Method("checkService", (Kind.STRING,), Kind.BARE_BINDER)
ADD_BARE = Method("addService", (*_ADDED, Kind.DUMP_PRIORITY), Kind.STATUS)
NAME_AT = Method("listServices", (Kind.INT32, Kind.DUMP_PRIORITY), Kind.STRING)

_BARE = (GET_BARE, CHECK_BARE, ADD_BARE, NAME_AT)
_BASE = (ADD, LIST, REGISTER, UNREGISTER, IS_DECLARED)
_LAZY = (CLIENT_CALLBACK, TRY_UNREGISTER)
_APEX = (DECLARED_INSTANCES, VIA_APEX)
_REST_OF_14 = (*_BASE, *_APEX, UPDATABLE_NAMES, CONNECTION_INFO, *_LAZY, DEBUG_INFO)


class Dialect(NamedTuple):
    """What the service manager of one Android speaks.

    ``methods`` are in the order of their codes, from 1 on.
    """

    android: int
    era: Era
    stability: StabilityWord
    methods: tuple[Method, ...]

    @property
    def is_legacy(self) -> bool:
        """Is it from before AIDL, with no exceptions, failures being a status -1?"""
        return self.era is not Era.TAGGED

    def method(self, code: int) -> Method | None:
        """Return the method with that code."""
        return self.methods[code - 1] if 1 <= code <= len(self.methods) else None

    def code(self, name: str) -> int | None:
        """Return the code of the method of that name, None if this Android has none."""
        for code, method in enumerate(self.methods, 1):
            if method.name == name:
                return code
        return None


_NONE, _LEVEL = StabilityWord.NONE, StabilityWord.LEVEL
DIALECTS: Final[Mapping[int, Dialect]] = {
    dialect.android: dialect
    for dialect in (
        Dialect(8, Era.STRICT_MODE, _NONE, _BARE),
        Dialect(9, Era.STRICT_MODE, _NONE, _BARE),
        Dialect(10, Era.WORK_SOURCE, _NONE, _BARE),
        Dialect(11, Era.TAGGED, _LEVEL, (GET, CHECK, *_BASE, *_LAZY)),
        Dialect(
            12,
            Era.TAGGED,
            StabilityWord.CATEGORY,
            (GET, CHECK, *_BASE, *_APEX, *_LAZY, DEBUG_INFO),
        ),
        Dialect(
            13,
            Era.TAGGED,
            _LEVEL,
            (GET, CHECK, *_BASE, *_APEX, CONNECTION_INFO, *_LAZY, DEBUG_INFO),
        ),
        Dialect(14, Era.TAGGED, _LEVEL, (GET, CHECK, *_REST_OF_14)),
        Dialect(15, Era.TAGGED, _LEVEL, (GET, GET2, CHECK, *_REST_OF_14)),
        Dialect(16, Era.TAGGED, _LEVEL, (GET, GET2, CHECK, CHECK2, *_REST_OF_14)),
    )
}

DEFAULT_ANDROID: Final = 13

# The names that libgbinder's configuration has for protocols, and API levels.
ALIASES: Final[Mapping[str, int]] = {
    "aidl": 8,
    "aidl2": 10,
    "aidl3": 13,
    "aidl4": 12,
    "aidl5": 15,
    "aidl6": 16,
    **{str(level): android for level, android in enumerate((8, 8, 9, 10, 11, 12, 12, 13), 26)},
    **{str(level): android for level, android in enumerate((14, 15, 16), 34)},
}


def dialect_of(android: str | int) -> Dialect:
    """Return the dialect of an Android, named by its version, API level or libgbinder's name.

    Raises:
        ValueError: there is none of that name.
    """
    text = str(android).strip().lower()
    versions = {**{str(version): version for version in DIALECTS}, **ALIASES}
    if text not in versions:
        raise ValueError(
            f"{text[:20]!r} is no Android: 8 to 16, an API level from 26 to 36, or aidl to aidl6"
        )
    return DIALECTS[versions[text]]


def dialect_for(era: Era, chosen: Dialect) -> Dialect:
    """Return the dialect of a request.

    Args:
        era: that of the request's token.
        chosen: what the manager was told to speak; it counts where it is of that era.
    """
    if era is chosen.era:
        return chosen
    return DIALECTS[{Era.STRICT_MODE: 9, Era.WORK_SOURCE: 10}.get(era, DEFAULT_ANDROID)]
