# SPDX-License-Identifier: Apache-2.0
"""``ParcelableHolder``: a parcelable of a type that its interface does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from binderclient.aidl.travel import read_present, refuse
from binderclient.annotations import codec_of
from binderclient.errors import ParcelError
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.annotations import Place

__all__ = ["ParcelableHolder", "VintfParcelableHolder", "named"]

_T = TypeVar("_T")
_C = TypeVar("_C", bound=type)

_NOT_NULL: Final = 1
_STABILITY_LOCAL: Final = 0
_STABILITY_VINTF: Final = 1
_NAME: Final = "binder_parcelable_name"  # the attribute
_known: Final[dict[str, type]] = {}  # parcelables, by their names in AIDL


def named(name: str) -> Callable[[_C], _C]:
    """Give a parcelable or union the name that it has in AIDL, by which holders know it."""

    def make(cls: _C) -> _C:
        setattr(cls, _NAME, name)
        _known[name] = cls
        return cls

    return make


class ParcelableHolder:
    """A parcelable of any type, or nothing.

    One of a type that is not known here can be sent on, but not looked at.

    Args:
        value: a parcelable or union that was generated from AIDL.
    """

    stability: ClassVar[int] = _STABILITY_LOCAL

    def __init__(self, value: Any = None) -> None:  # noqa: ANN401 - of any parcelable
        if value is not None and not hasattr(type(value), _NAME):
            raise TypeError(f"{type(value).__name__} is no parcelable of AIDL's")
        self._value = value
        self._raw: Parcel | None = None
        self._name = "" if value is None else str(getattr(type(value), _NAME))

    @property
    def name(self) -> str:
        """The name in AIDL of what it holds; empty if that is nothing."""
        return self._name

    def get(self, kind: type[_T]) -> _T | None:
        """Return what it holds if that is of a type; None if not."""
        return self._value if isinstance(self._value, kind) else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParcelableHolder):
            return NotImplemented
        if self._raw is not None or other._raw is not None:
            return self is other
        return bool(self._value == other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        held = self._value if self._raw is None else f"a {self._name}"
        return f"{type(self).__name__}({held})"

    def write_held(self, parcel: Parcel, place: Place, interface_of: Any) -> None:  # noqa: ANN401
        """Write name and body of what it holds."""
        if self._raw is not None:
            parcel.append(self._raw)
        elif self._value is not None:
            parcel.write_string16(self._name)
            codec: Any = codec_of(type(self._value), interface_of)
            codec.write_body(parcel, self._value, (place, self._name))

    def read_held(self, parcel: Parcel, size: int, interface_of: Any) -> None:  # noqa: ANN401
        """Hold what the next ``size`` bytes are."""
        start = parcel.position
        self._name = parcel.read_string16() or ""
        kind = _known.get(self._name)
        if kind is None:
            self._raw = Parcel()
            self._raw.append(parcel, start, size)
            parcel.position = start + size
            return
        codec: Any = codec_of(kind, interface_of)
        self._value = codec.read_body(parcel)
        if parcel.position != start + size:
            raise ParcelError(f"the {self._name} at {start} has not {size} bytes")

    @classmethod
    def __binder_codec__(cls, interface_of: Any) -> _HolderCodec:  # noqa: ANN401
        return _HolderCodec(cls, interface_of)


class VintfParcelableHolder(ParcelableHolder):
    """One in a parcelable with @VintfStability."""

    stability = _STABILITY_VINTF


class _HolderCodec:
    """Stability, size, and if that is not 0 name and body of the parcelable."""

    def __init__(self, kind: type[ParcelableHolder], interface_of: Any) -> None:  # noqa: ANN401
        self._kind = kind
        self._interface_of = interface_of

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, ParcelableHolder):
            refuse(place, self._kind.__name__, value)
        parcel.write_int32(_NOT_NULL)
        parcel.write_int32(self._kind.stability)
        start = parcel.position
        parcel.write_int32(0)
        value.write_held(parcel, place, self._interface_of)
        end = parcel.position
        parcel.position = start
        parcel.write_int32(end - start - 4)
        parcel.position = end

    def read(self, parcel: Parcel) -> ParcelableHolder:
        read_present(parcel)
        start = parcel.position
        stability = parcel.read_int32()
        if stability != self._kind.stability:
            raise ParcelError(
                f"a holder of stability {stability} at {start}, not {self._kind.stability}"
            )
        size = parcel.read_int32()
        if not 0 <= size <= parcel.remaining:
            raise ParcelError(f"a holder of {size} bytes at {start} with {parcel.remaining} left")
        holder = self._kind()
        if size:
            holder.read_held(parcel, size, self._interface_of)
        return holder
