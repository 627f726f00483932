# SPDX-License-Identifier: Apache-2.0
"""What Python that was generated from AIDL imports: bases and types beside ``annotations``.

Its interfaces are classes with ``@interface``, as people write them by hand; here is how the rest
of AIDL travels.  Nothing here may know the compiler: this must work where ``lark`` is not.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

# "as": what is to be had from here, for strict type checkers.
from binderclient.aidl import travel
from binderclient.aidl.holder import ParcelableHolder as ParcelableHolder
from binderclient.aidl.holder import VintfParcelableHolder as VintfParcelableHolder
from binderclient.aidl.holder import named as named
from binderclient.annotations import Byte as Byte
from binderclient.annotations import Char as Char
from binderclient.annotations import Float as Float
from binderclient.annotations import Long as Long
from binderclient.files import ReceivedFile as ReceivedFile
from binderclient.ibinder import IBinder as IBinder
from binderclient.interfaces import interface as interface
from binderclient.interfaces import oneway as oneway
from binderclient.objects import Service as Service
from binderclient.objects import transaction as transaction

if TYPE_CHECKING:
    from typing import Self

    from binderclient.annotations import Codec

_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.IntEnum)

FixedSize = travel.FixedSize
FileDescriptor: TypeAlias = Annotated[ReceivedFile, travel.BareFile()]
"""An open file without what goes before a ParcelFileDescriptor."""
OutSize: TypeAlias = Annotated[int, travel.OutSize()]
"""How many items an ``out`` array is to have."""
NullableOutSize: TypeAlias = Annotated[int, travel.OutSize(nullable=True)]
"""The same, or -1 for null."""
ByteEnums: TypeAlias = Annotated[list[_E], travel.Packed()]
"""An array of an enum of bytes: one byte each."""
Map: TypeAlias = Annotated[dict[str, _T], travel.StringMap()]
"""A Map, as Java has it."""


class _Enum(enum.IntEnum):
    """Base of AIDL's enums.

    A number that is no enumerator is a value all the same, without a name of its own: a newer
    version of the interface may have more of them.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if type(value) is not int:
            return None
        member = int.__new__(cls, value)
        member._name_ = str(value)
        member._value_ = value
        return member


class ByteEnum(_Enum):
    """Base of enums of type byte."""

    @classmethod
    def __binder_codec__(cls, _interface_of: object) -> Codec:
        return travel.Enumeration(cls, "byte", 8)


class IntEnum(_Enum):
    """Base of enums of type int."""

    @classmethod
    def __binder_codec__(cls, _interface_of: object) -> Codec:
        return travel.Enumeration(cls, "int32", 32)


class LongEnum(_Enum):
    """Base of enums of type long."""

    @classmethod
    def __binder_codec__(cls, _interface_of: object) -> Codec:
        return travel.Enumeration(cls, "int64", 64)


def _choice(kind: type[Union]) -> str:
    return f"{kind.__name__} is one of {', '.join(kind.Tag.__members__)}"


class Union:
    """Base of AIDL's unions, which are one of their members.

    A subclass has its members as annotations, and their names in the same order as ``Tag``.
    ``tag`` says which member a union is; the others cannot be read.  To assign to one makes the
    union that.

    Args:
        member: the name of a member and its value.

    Raises:
        TypeError: there is not one of these, or no member has that name.
    """

    Tag: ClassVar[type[enum.IntEnum]]
    tag: enum.IntEnum
    _value: Any

    def __init__(self, member: dict[str, Any]) -> None:
        kind = type(self)
        if len(member) != 1:
            raise TypeError(_choice(kind))
        ((name, value),) = member.items()
        if name not in kind.Tag.__members__:
            raise TypeError(f"{kind.__name__} has no member {name}: {_choice(kind)}")
        setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self)
        if name not in kind.Tag.__members__:
            raise AttributeError(f"{kind.__name__} has no member {name}: {_choice(kind)}")
        object.__setattr__(self, "tag", kind.Tag[name])
        object.__setattr__(self, "_value", value)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the member's type
        kind = type(self)
        if name.startswith("__") or name not in kind.Tag.__members__:
            raise AttributeError(f"{kind.__name__} has no {name}")
        if name != self.tag.name:
            raise AttributeError(f"this {kind.__name__} is {self.tag.name}, not {name}")
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Union) or type(other) is not type(self):
            return NotImplemented
        return bool(self.tag == other.tag and self._value == other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tag.name}={self._value!r})"

    @classmethod
    def __binder_codec__(cls, interface_of: Any) -> Codec:  # noqa: ANN401
        return travel.UnionCodec(cls, interface_of)
