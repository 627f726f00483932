# SPDX-License-Identifier: Apache-2.0
"""Plays a transcript: what clients of one Android write, and what its service manager answers.

A transcript knows nothing of ``binderclient``'s own formats: each line has the words of a parcel.

::

    # a comment
    a> 3 WORDS         client a makes a call with code 3
    <  WORDS           its reply, to the byte
    !  -1              instead: the bare status (TF_STATUS_CODE)
    a@ cb 1 WORDS      the object cb of client a gets the one-way call 1

Words are int32s (``-1``, ``0x400000``), a String16 (``"text"``), ``'SYST'`` (four letters as an
int32), ``*name`` (a flat_binder_object for the object of that name) and ``*0`` (a null one).  An
object belongs to the client that writes it first; its interface is its name, by which other
clients know it.  ``T`` stands for the token that the line ``token WORDS`` gave.
"""

from __future__ import annotations

import queue
import re
import struct
from typing import TYPE_CHECKING, Any, Final

from binderclient.blocking import Device
from binderclient.errors import RemoteException
from binderclient.objects import Proxy, Service
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE: Final = 10.0
_WORD: Final = re.compile(r"""\s*("[^"]*"|'....'|\*\S+|\S+)""")
_OBJECT_SIZE: Final = 24
_NULL_OBJECT: Final = struct.pack("=IIQQ", 0x73622A85, 0, 0, 0)


class Thing(Service):
    """An object of a transcript: keeps the one-way calls that it gets."""

    def __init__(self, name: str) -> None:
        self.descriptor = name  # type: ignore[misc]
        self.calls: queue.Queue[tuple[int, Parcel]] = queue.Queue()

    def on_transact(self, code: int, data: Parcel, _reply: Parcel, _flags: int) -> None:
        kept = Parcel()
        kept.append(data)
        self.calls.put((code, kept))


class Player:
    """Plays transcripts against the service manager of a device.

    Args:
        device: the device file.
    """

    def __init__(self, device: Path) -> None:
        self._path = device
        self._clients: dict[str, Device] = {}
        self._things: dict[str, Thing] = {}
        self._token: list[str] = []
        self._outcome: Parcel | int | None = None

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def play(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            words = _WORD.findall(line)
            if not words or words[0].startswith("#"):
                continue
            try:
                self._line(words[0], words[1:])
            except Exception as error:
                error.add_note(f"line {number}: {line}")
                raise
        assert self._outcome is None, "a reply that the transcript does not look at"

    def _line(self, sign: str, words: list[str]) -> None:
        if sign == "token":
            self._token = words
        elif sign == "<":
            outcome, self._outcome = self._outcome, None
            assert isinstance(outcome, Parcel), f"status {outcome}"
            with outcome:
                self._compare(outcome, self._expand(words))
        elif sign == "!":
            outcome, self._outcome = self._outcome, None
            assert outcome == int(words[0]), bytes(outcome) if outcome else outcome
        elif sign.endswith(">"):
            assert self._outcome is None
            self._call(self._client(sign[:-1]), int(words[0], 0), self._expand(words[1:]))
        else:
            assert sign.endswith("@"), sign
            code, data = self._things[words[0]].calls.get(timeout=PATIENCE)
            assert code == int(words[1], 0)
            self._compare(data, self._expand(words[2:]))

    def _client(self, name: str) -> Device:
        if name not in self._clients:
            self._clients[name] = Device(self._path)
            self._clients[name].start_thread_pool()
        return self._clients[name]

    def _expand(self, words: list[str]) -> list[str]:
        return [each for word in words for each in (self._token if word == "T" else [word])]

    def _call(self, client: Device, code: int, words: list[str]) -> None:
        request = Parcel()
        for word in words:
            if word == "*0" or not word.startswith("*"):
                request.write_raw(encoded(word))
            else:
                request.write_bare_binder(self._things.setdefault(word[1:], Thing(word[1:])))
        try:
            self._outcome = client.context_manager.call(code, request)
        except RemoteException as error:
            self._outcome = error.status

    def _compare(self, parcel: Parcel, words: list[str]) -> None:
        """Compare all bytes; objects by what they are, as their numbers are the driver's."""
        offsets = set(parcel.object_offsets())
        parcel.position = 0
        for place, word in enumerate(words):
            if word == "*0" or not word.startswith("*"):
                expected = encoded(word)
                found = bytes(parcel.read_raw(len(expected)))
                assert found == expected, f"word {place}: {word} wanted, {found.hex(' ', 4)} found"
            else:
                offsets.remove(parcel.position)
                self._check_object(word[1:], parcel.read_bare_binder())
        assert not parcel.remaining, bytes(parcel)[parcel.position :].hex(" ", 4)
        assert not offsets

    def _check_object(self, name: str, found: Any) -> None:  # noqa: ANN401
        if isinstance(found, Proxy):
            assert found.interface() == name
        else:
            assert found is self._things[name]


def encoded(word: str) -> bytes:
    """Return the bytes of one word, padded."""
    if word.startswith('"'):
        units = word[1:-1].encode("utf-16-le") + b"\0\0"
        return struct.pack("=i", len(word) - 2) + units + bytes(-len(units) % 4)
    if word.startswith("'"):
        return struct.pack("=I", int.from_bytes(word[1:-1].encode("ascii"), "big"))
    if word == "*0":
        return _NULL_OBJECT
    return struct.pack("=I", int(word, 0) & 0xFFFFFFFF)
