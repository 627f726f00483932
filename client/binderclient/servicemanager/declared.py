# SPDX-License-Identifier: Apache-2.0
"""``Declared``: an instance that is declared (``--declare``), as by a manifest of Android's."""

from __future__ import annotations

from typing import NamedTuple

from binderclient.servicemanager.values import ConnectionInfo

_PORT_MAX = 65535


class Declared(NamedTuple):
    """An instance that isDeclared knows: ``package.IInterface/instance``."""

    name: str
    apex: str | None = None  # the APEX package with which it is updated
    connection: ConnectionInfo | None = None

    @property
    def interface(self) -> str:
        """The name of its interface."""
        return self.name.rpartition("/")[0]

    @property
    def instance(self) -> str:
        """Its name among the instances of its interface."""
        return self.name.rpartition("/")[2]


def parse_declared(text: str) -> Declared:
    """Read ``NAME[,apex=APEX][,address=IP:PORT]``.

    Raises:
        ValueError: that is none; the message says why.
    """
    name, *rest = text.split(",")
    interface, _slash, instance = name.rpartition("/")
    if not interface or not instance:
        raise ValueError(f"{name[:128]!r} is not like package.IInterface/instance")
    declared = Declared(name)
    for word in rest:
        key, _equals, value = word.partition("=")
        if key == "apex" and value:
            declared = declared._replace(apex=value)
        elif key == "address":
            declared = declared._replace(connection=_parse_address(value))
        else:
            raise ValueError(f"{word[:128]!r} is neither apex=NAME nor address=IP:PORT")
    return declared


def _parse_address(text: str) -> ConnectionInfo:
    host, _colon, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or len(port) > len(str(_PORT_MAX)):
        raise ValueError(f"{text[:128]!r} is not like IP:PORT")
    if int(port) > _PORT_MAX:
        raise ValueError(f"{port} is no port")
    return ConnectionInfo(host, int(port))
