# SPDX-License-Identifier: Apache-2.0
"""The token in front of a request, of every era: which words come before the interface's name."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from binderclient import android
from binderclient.errors import ParcelError
from binderclient.numbers_and_text import Values
from binderwire.service_manager import TAG_SYSTEM, TAGS, Era

if TYPE_CHECKING:
    from binderclient.parcel import Parcel

# The policy "gather violations" as libbinder wrote it before Android 11.
_OLD_PENALTY_GATHER: Final = 0x400000
_NAME: Final = re.compile(r"[\w.$]+")
_REMEMBERED: Final = 256  # interfaces whose tokens are made once
TAG_OFFSET: Final = 8  # bytes before a tagged token's tag: the policy and the work source


class Token(NamedTuple):
    """The kind of token in a caller's requests; calls back to it begin with the same kind."""

    era: Era
    tag: int = TAG_SYSTEM  # only of a tagged token

    def write(self, request: Parcel, descriptor: str) -> None:
        """Begin a request to the interface ``descriptor`` with such a token."""
        request.write_interface_token(descriptor, self.era, self.tag)


def token_octets(era: Era, tag: int, descriptor: str) -> bytes:
    """Return a token as it is in requests.

    Raises:
        ParcelError: the tag does not fit.
    """
    token = Values()
    is_tagged = era is Era.TAGGED
    token.write_uint32(android.STRICT_MODE_PENALTY_GATHER if is_tagged else _OLD_PENALTY_GATHER)
    if era is not Era.STRICT_MODE:
        token.write_int32(android.UNSET_WORK_SOURCE)
    if is_tagged:
        token.write_uint32(tag)
    token.write_string16(descriptor)
    return bytes(token)


@lru_cache(_REMEMBERED)
def tagged_token(descriptor: str) -> bytes:
    """Return the token that nearly all requests begin with: of Android 11 and later, 'SYST'."""
    return token_octets(Era.TAGGED, TAG_SYSTEM, descriptor)


@lru_cache(_REMEMBERED)
def tagged_name(descriptor: str) -> bytes:
    """Return what follows the first TAG_OFFSET bytes of ``tagged_token``."""
    return tagged_token(descriptor)[TAG_OFFSET:]


def read_token(request: Parcel, descriptor: str) -> Token:
    """Read the token of a request, whichever era it is of.

    A tag is too large to be the length of a name, and no length of a name is followed by
    another: so one era at most fits.

    Raises:
        ParcelError: none fits, or it names another interface; the position is where it was.
    """
    start = request.position
    for era in (Era.TAGGED, Era.STRICT_MODE, Era.WORK_SOURCE):
        request.position = start
        try:
            tag = _read_words(request, era)
            if request.read_string16() == descriptor:
                return Token(era, tag)
        except ParcelError:
            continue
    request.position = start
    raise ParcelError(f"no token of {descriptor!r}")


def interface_named(request: Parcel) -> str:
    """Return the interface that a request is for, whichever era's token it has.

    Returns:
        An empty text if it has no token.
    """
    for era in (Era.TAGGED, Era.STRICT_MODE, Era.WORK_SOURCE):
        request.position = 0
        try:
            _read_words(request, era)
            name = request.read_string16()
        except (ParcelError, UnicodeDecodeError):
            continue
        if name and _NAME.fullmatch(name):
            return name
    return ""


def _read_words(request: Parcel, era: Era) -> int:
    request.read_uint32()  # strict mode policy: means nothing outside of a Java runtime
    if era is not Era.STRICT_MODE:
        request.read_int32()  # work source
    if era is not Era.TAGGED:
        return TAG_SYSTEM
    tag = request.read_uint32()
    if tag not in TAGS:
        raise ParcelError(f"{tag:#x} is no tag of a token")
    return tag
