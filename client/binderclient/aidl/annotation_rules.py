# SPDX-License-Identifier: Apache-2.0
"""The annotations of AIDL: where each may be, and what becomes of it in Python.

Which types may be @nullable or @utf8InCpp is in ``resolve``, what @FixedSize allows in
``containment``.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, NamedTuple

from binderclient.aidl.errors import AidlNameError, AidlTypeError, Problems
from binderclient.aidl.syntax import (
    Enum,
    Interface,
    Literal,
    Parcelable,
    Union,
)

if TYPE_CHECKING:
    from binderclient.aidl.syntax import Annotation, Declaration

TYPE: Final = "a type"
METHOD: Final = "a method"
DECLARATION: Final = "a declaration"
ANYWHERE: Final = frozenset({TYPE, METHOD, DECLARATION, "an enumerator"})


class Known(NamedTuple):
    """An annotation: where it may be, which arguments it takes, why it is ignored if it is."""

    places: frozenset[str]
    arguments: frozenset[str] = frozenset()
    ignored: str = ""


def _on(*places: str) -> frozenset[str]:
    return frozenset(places)


_JAVA: Final = "it is for Java"
_VALUES: Final = _on("value", "allOf", "anyOf")
KNOWN: Final = {
    "nullable": Known(_on(TYPE), _on("heap")),
    "utf8InCpp": Known(_on(TYPE)),
    "Backing": Known(_on("an enum"), _on("type")),
    "FixedSize": Known(_on("a parcelable", "a union")),
    "Descriptor": Known(_on("an interface", "a parcelable", "a union"), _on("value")),
    "VintfStability": Known(
        _on(DECLARATION),
        ignored="objects travel with the system's stability; of a ParcelableHolder it is heeded",
    ),
    "SensitiveData": Known(
        _on("an interface"), ignored="requests are not wiped: proxy.call(…, clear=True) does that"
    ),
    "EnforcePermission": Known(
        _on(METHOD, "an interface"), _VALUES, "nothing checks permissions: use caller()"
    ),
    "PermissionManuallyEnforced": Known(_on(METHOD, "an interface"), ignored=_JAVA),
    "RequiresNoPermission": Known(_on(METHOD, "an interface"), ignored=_JAVA),
    "PropagateAllowBlocking": Known(_on(TYPE, METHOD), ignored="blocking calls are not watched"),
    "Hide": Known(ANYWHERE, ignored="it is for Java's documentation"),
    "SystemApi": Known(ANYWHERE, ignored="it is for Java's documentation"),
    "UnsupportedAppUsage": Known(
        ANYWHERE,
        _on(
            "expectedSignature",
            "implicitMember",
            "maxTargetSdk",
            "publicAlternatives",
            "trackingBug",
            "overrideSourcePosition",
        ),
        _JAVA,
    ),
    "JavaPassthrough": Known(ANYWHERE, _on("annotation"), _JAVA),
    "JavaSuppressLint": Known(ANYWHERE, _on("value"), _JAVA),
    "SuppressWarnings": Known(ANYWHERE, _on("value"), "there are no warnings"),
    "JavaDerive": Known(_on(DECLARATION), _on("equals", "toString"), "dataclasses have these"),
    "JavaDefault": Known(_on("an interface"), ignored=_JAVA),
    "JavaDelegator": Known(_on("an interface"), ignored=_JAVA),
    "JavaOnlyImmutable": Known(_on(DECLARATION), ignored=_JAVA),
    "JavaOnlyStableParcelable": Known(_on(DECLARATION), ignored=_JAVA),
    "NdkOnlyStableParcelable": Known(_on(DECLARATION), ignored="it is for the NDK"),
    "RustOnlyStableParcelable": Known(_on(DECLARATION), ignored="it is for Rust"),
    "RustDerive": Known(
        _on(DECLARATION),
        _on("Copy", "Clone", "PartialOrd", "Ord", "PartialEq", "Eq", "Hash"),
        "it is for Rust",
    ),
}


def place_of(declared: Declaration) -> str:
    """Return which kind of place a declaration is."""
    for kind, place in (
        (Interface, "an interface"),
        (Union, "a union"),
        (Parcelable, "a parcelable"),
        (Enum, "an enum"),
    ):
        if isinstance(declared, kind):
            return place
    return "a parcelable"


def check(annotations: tuple[Annotation, ...], places: tuple[str, ...], problems: Problems) -> None:
    """Check the annotations of something, and note which are ignored.

    Args:
        annotations: what it has.
        places: what it is, in all ways that count.
        problems: gets the errors and the notes.
    """
    seen: set[str] = set()
    for each in annotations:
        known = KNOWN.get(each.name)
        if known is None:
            near = difflib.get_close_matches(each.name, KNOWN, 1)
            hint = f"; did you mean @{near[0]}?" if near else ""
            problems.add(
                AidlNameError(each.position, f"@{each.name} is no annotation of AIDL{hint}")
            )
            continue
        if each.name in seen:
            problems.add(AidlTypeError(each.position, f"@{each.name} is there twice"))
        seen.add(each.name)
        if known.places.isdisjoint(places):
            where = " or ".join(sorted(known.places))
            problems.add(AidlTypeError(each.position, f"@{each.name} belongs to {where}"))
        for name, _ in each.arguments:
            if name not in known.arguments:
                problems.add(AidlTypeError(each.position, f"@{each.name} takes no {name!r}"))
        if known.ignored:
            problems.note(each.position, f"@{each.name} is ignored: {known.ignored}")


def text_argument(annotation: Annotation, name: str) -> str:
    """Return an argument of an annotation that is a string.

    Raises:
        AidlTypeError: it has none.
    """
    value = dict(annotation.arguments).get(name)
    if not isinstance(value, Literal) or value.kind != "STRING":
        raise AidlTypeError(
            annotation.position, f'write @{annotation.name}({name}="…"), with a string'
        )
    return value.text[1:-1]
