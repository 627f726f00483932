# SPDX-License-Identifier: Apache-2.0
"""Every method of every Android: what is written is read, and not a word more or less is."""

from __future__ import annotations

from typing import Any, Final

import pytest

from binderclient import android
from binderclient.errors import ParcelError, RemoteException
from binderclient.objects import Service
from binderclient.parcel import Parcel
from binderclient.servicemanager.values import (
    ConnectionInfo,
    DebugInfo,
    Offered,
    ServiceWithMetadata,
    read_arguments,
    read_result,
    write_arguments,
    write_result,
)
from binderclient.tokens import Token, read_token
from binderwire.service_manager import (
    DIALECTS,
    DUMP_PRIORITY_DEFAULT,
    TAGS,
    Dialect,
    Era,
    Kind,
    Method,
    dialect_for,
    dialect_of,
)

THING: Final = Service()
SAMPLES: Final[dict[Kind, list[Any]]] = {
    Kind.NOTHING: [None],
    Kind.STATUS: [None],
    Kind.STRING: ["", "a.b", "ä€"],
    Kind.NULLABLE_STRING: [None, "com.apex"],
    Kind.STRINGS: [[], ["a", "b.c"]],
    Kind.BOOL: [False, True],
    Kind.INT32: [0, 15, -1],
    Kind.DUMP_PRIORITY: [DUMP_PRIORITY_DEFAULT],
    Kind.BINDER: [Offered(THING)],
    Kind.NULLABLE_BINDER: [None, Offered(THING)],
    Kind.BARE_BINDER: [None, Offered(THING)],
    Kind.SERVICE: [ServiceWithMetadata(None), ServiceWithMetadata(Offered(THING), True)],
    Kind.CONNECTION: [None, ConnectionInfo("::1", 80)],
    Kind.DEBUG_INFOS: [[], [DebugInfo("a", 7), DebugInfo("manager", 8)]],
}
METHODS: Final = [
    pytest.param(dialect, method, id=f"{dialect.android}-{method.name}")
    for dialect in DIALECTS.values()
    for method in dialect.methods
]


def part(whole: Parcel, size: int) -> Parcel:
    """Return the first bytes of a parcel, with the objects that are whole in them."""
    cut = Parcel(bytes(whole)[:size])
    cut._objects = {o: b for o, b in whole._objects.items() if o + 24 <= size}
    return cut


def is_refused(read: Any, data: Parcel, dialect: Dialect, method: Method) -> bool:  # noqa: ANN401
    try:
        read(data, dialect, method)
    except (ParcelError, RemoteException):
        return True
    return False


def longer(whole: Parcel) -> Parcel:
    whole.position = len(whole)
    whole.write_int32(0)
    return part(whole, len(whole))


@pytest.mark.parametrize(("dialect", "method"), METHODS)
def test_requests(dialect: Dialect, method: Method) -> None:
    depth = max((len(SAMPLES[kind]) for kind in method.arguments), default=1)
    for turn in range(depth):
        values = tuple(SAMPLES[kind][turn % len(SAMPLES[kind])] for kind in method.arguments)
        whole = Parcel()
        write_arguments(whole, dialect, method, values)
        assert read_arguments(part(whole, len(whole)), dialect, method) == values
        for size in range(0, len(whole), 4):
            if Kind.DUMP_PRIORITY in method.arguments and size >= len(whole) - 4:
                continue  # which older clients leave out
            assert is_refused(read_arguments, part(whole, size), dialect, method), size
        if not (Kind.DUMP_PRIORITY in method.arguments and dialect.android < 9):
            assert is_refused(read_arguments, longer(whole), dialect, method)


@pytest.mark.parametrize(("dialect", "method"), METHODS)
def test_replies(dialect: Dialect, method: Method) -> None:
    for value in SAMPLES[method.result]:
        whole = Parcel()
        write_result(whole, dialect, method, value)
        assert read_result(part(whole, len(whole)), dialect, method) == value
        for size in range(0, len(whole), 4):
            if method.result is Kind.BARE_BINDER and size == 4:
                continue  # a word alone is how null looks there
            assert is_refused(read_result, part(whole, size), dialect, method), (value, size)
        assert is_refused(read_result, longer(whole), dialect, method)


def test_tokens() -> None:
    for token in (
        Token(Era.STRICT_MODE),
        Token(Era.WORK_SOURCE),
        *(Token(Era.TAGGED, tag) for tag in TAGS),
    ):
        request = Parcel()
        token.write(request, "a.IFoo")
        end = len(request)
        request.write_string16("more")
        request.position = 0
        assert read_token(request, "a.IFoo") == token
        assert request.position == end
        for size in range(0, end, 4):
            cut = part(request, size)
            with pytest.raises(ParcelError):
                read_token(cut, "a.IFoo")
            assert cut.position == 0
        request.position = 0
        with pytest.raises(ParcelError, match="no token"):
            read_token(request, "a.IBar")
        if token.era is Era.TAGGED:
            request.enforce_interface("a.IFoo")


def test_the_token_decides_what_it_can() -> None:
    for chosen in DIALECTS.values():
        for era in Era:
            found = dialect_for(era, chosen)
            assert found.era is era
            assert (found is chosen) == (era is chosen.era)


def test_names_of_androids() -> None:
    names = {8: ("26", 27, "aidl"), 9: (28,), 10: ("29", "AIDL2"), 11: (30,), 12: (31, 32, "aidl4")}
    names |= {13: ("33", "aidl3"), 14: (34, " 14 "), 15: (35, "aidl5"), 16: ("36", "aidl6", 16)}
    for version, others in names.items():
        for other in (version, str(version), *others):
            assert dialect_of(other).android == version
    for wrong in ("", "7", "17", 25, 37, "aidl7", "hidl", "-8", "8.1", "٨"):
        with pytest.raises(ValueError, match="is no Android"):
            dialect_of(wrong)


def test_stability_is_checked_as_each_android_does() -> None:
    for version, word, status in (
        (13, 0x0C, None),
        (13, 0x0C000001, android.STATUS_BAD_TYPE),
        (13, 0, android.STATUS_BAD_TYPE),
        (13, 5, android.STATUS_BAD_TYPE),
        (12, 0x0C000001, None),
        (12, 0x0C, android.STATUS_BAD_TYPE),
        (12, 0x0C000002, android.STATUS_BAD_TYPE),
        (12, 0x0D000001, android.STATUS_BAD_TYPE),
        (12, 0, android.STATUS_BAD_TYPE),
    ):
        request = Parcel()
        request.write_string16("a")
        request.write_bare_binder(THING)
        request.write_uint32(word)
        request.position = 0
        method = dialect_of(version).methods[4]
        if status is None:
            name, offered = read_arguments(request, dialect_of(version), method)
            assert (name, offered) == ("a", Offered(THING, android.STABILITY_SYSTEM))
        else:
            with pytest.raises(RemoteException) as caught:
                read_arguments(request, dialect_of(version), method)
            assert caught.value.status == status
