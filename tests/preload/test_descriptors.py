# SPDX-License-Identifier: Apache-2.0
"""Descriptors that arrive through the library, in programs that do their worst (O7, O8)."""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import socket
import time
from typing import TYPE_CHECKING, Self

import pytest

from binderwire import binder_abi as abi
from binderwire import extension_abi as ext
from preload import toolbox
from preload.test_programs import ioctls

if TYPE_CHECKING:
    from pathlib import Path

    from preload.conftest import Stage

FIRST = 3  # the lowest number that a program with one open file is free to have, plus one
MANY = 300  # comes in several messages
TOO_MANY = 600  # for a socket: flights_per_attachment


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("one", "two", "three")]
    for path in made:
        path.write_text(path.name)
    return made


def test_they_get_the_lowest_free_numbers(stage: Stage, files: list[Path]) -> None:
    stage.start("porter", "serve")
    for _ in range(3):  # each time the same, as the library keeps away from there
        assert stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    assert stage.run("porter", "ask", "k", *files[:2]) == "4:one 5:two\n"
    assert stage.run("porter", "ask", "r", files[2]) == "6:three\n"


def test_they_come_through_the_socket(our_stage: Stage, files: list[Path], spied: Path) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    reported = [(rc, no) for _, word, rc, no in ioctls(spied) if word == ext.BINDERD_INSTALLED]
    assert reported == [(0, 0)]


def test_more_than_one_message_takes(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    wanted = " ".join(f"{number}:one" for number in range(4, 4 + MANY))
    assert our_stage.run("porter", "ask", "r", *[files[0]] * MANY) == wanted + "\n"
    assert our_stage.run("porter", "ask", "r", files[1]) == "4:two\n"


def test_what_no_socket_takes_comes_by_stopping(fuse_stage: Stage, files: list[Path]) -> None:
    fuse_stage.start("porter", "serve")
    wanted = " ".join(f"{number}:one" for number in range(4, 4 + TOO_MANY))
    assert fuse_stage.run("porter", "ask", "r", *[files[0]] * TOO_MANY) == wanted + "\n"


def test_who_must_not_be_stopped_gets_no_more(bare_stage: Stage, files: list[Path]) -> None:
    bare_stage.start("porter", "serve")
    assert bare_stage.run("porter", "ask", "r", *[files[0]] * TOO_MANY) == "failed\n"
    assert bare_stage.run("porter", "ask", "r", files[0]) == "4:one\n"


def test_nothing_is_left_open(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    our_stage.run("porter", "ask", "r", *files)
    before = our_stage.run("porter", "ask", "n")
    for _ in range(5):
        our_stage.run("porter", "ask", "r", *files)
    assert our_stage.run("porter", "ask", "n") == before


def test_a_program_that_closes_everything(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"
    assert our_stage.run("porter", "ask", "c") == "ok\n"
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"


def test_a_socket_of_the_program_s_at_our_number(our_stage: Stage, files: list[Path]) -> None:
    """The library neither reads from it nor closes it, and finds another number."""
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    assert our_stage.run("porter", "ask", "o") == "ok\n"
    count = int(our_stage.run("porter", "ask", "n"))
    said = our_stage.run("porter", "ask", "r", files[1])
    assert said.split(":")[1] == "two\n"
    assert int(our_stage.run("porter", "ask", "n")) == count
    assert our_stage.run("porter", "ask", "t") == "mine\n"


def test_a_full_table_of_descriptors(our_stage: Stage, files: list[Path]) -> None:
    """The call fails as it does with the driver; when there is room again it works again."""
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    before = our_stage.run("porter", "ask", "n")
    assert our_stage.run("porter", "ask", "l") == "ok\n"
    assert our_stage.run("porter", "ask", "r", *files) == "failed\n"
    assert our_stage.run("porter", "ask", "u") == "ok\n"
    assert our_stage.run("porter", "ask", "n") == before
    assert our_stage.run("porter", "ask", "r", *files) == "4:one 5:two 6:three\n"


def test_a_child_takes_its_own(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "serve")
    assert our_stage.run("porter", "ask", "r", files[0]) == "4:one\n"
    assert our_stage.run("porter", "ask", "f") == "ok\n"
    assert our_stage.run("porter", "ask", "r", files[1]) == "child 4:two\n"
    assert our_stage.run("porter", "ask", "r", files[2]) == "4:three\n"


def test_many_threads_take_them(our_stage: Stage, files: list[Path]) -> None:
    our_stage.start("porter", "pool", "quiet")
    before = our_stage.run("porter", "ask", "n")
    callers = [our_stage.begin("porter", "repeat", 200, files[0]) for _ in range(4)]
    assert [caller.rest() for caller in callers] == ["200\n"] * 4
    assert our_stage.run("porter", "ask", "n") == before


def test_sockets_that_are_closed_behind_our_back(fuse_stage: Stage, files: list[Path]) -> None:
    """By direct system calls, all the time: what is under way may fail, nothing hangs or leaks."""
    fuse_stage.start("porter", "pool", "close")
    callers = [fuse_stage.begin("porter", "repeat", 200, files[0]) for _ in range(4)]
    for caller in callers:
        assert int(caller.rest()) > 20
    deadline = time.monotonic() + toolbox.PATIENCE
    while fuse_stage.run("porter", "ask", "n") not in {"4\n", "5\n"}:  # with a socket, or without
        assert time.monotonic() < deadline


def test_deliveries_are_lost_with_their_socket(bare_stage: Stage, files: list[Path]) -> None:
    """A client that could not report attaches again: the call fails, and the next one works."""
    with LateReceiver(bare_stage.path) as receiver:
        receiver.attach()
        first = bare_stage.begin("porter", "ask", "r", files[0])
        receiver.wait_for_delivery()
        receiver.attach()  # without having looked into the socket
        second = bare_stage.begin("porter", "ask", "r", files[0])
        receiver.wait_for_delivery()
        assert first.rest() == "failed\n"
        receiver.take_and_answer()
        assert second.rest() == "late\n"


class LateReceiver:
    """A context manager that uses the extension by itself, without the library."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._socket: socket.socket | None = None
        self._map_area()
        node = abi.flat_binder_object.build(
            type=abi.BINDER_TYPE_BINDER, flags=abi.FLAT_BINDER_FLAG_ACCEPTS_FDS
        )
        fcntl.ioctl(self._fd, abi.BINDER_SET_CONTEXT_MGR_EXT, node)
        self._write_read(abi.BC_ENTER_LOOPER.to_bytes(4, "little"))

    def _map_area(self) -> None:
        self.attach(ext.BINDERD_ATTACH_AREA)
        assert self._socket is not None
        _, (memory,), _, _ = socket.recv_fds(self._socket, 64, 1)
        self._area = mmap.mmap(memory, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(memory)

    def attach(self, flags: int = ext.BINDERD_ATTACH_FILES) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = ext.binderd_attach.build(socket=theirs.fileno(), flags=flags)
            fcntl.ioctl(self._fd, ext.BINDERD_ATTACH, request)
        if self._socket is not None:
            self._socket.close()
        self._socket = ours

    def _write_read(self, commands: bytes = b"", read_size: int = 0) -> bytes:
        written = ctypes.create_string_buffer(commands, len(commands) or 1)
        read = ctypes.create_string_buffer(read_size or 1)
        request = bytearray(
            abi.binder_write_read.build(
                write_size=len(commands),
                write_buffer=ctypes.addressof(written),
                read_size=read_size,
                read_buffer=ctypes.addressof(read),
            )
        )
        fcntl.ioctl(self._fd, abi.BINDER_WRITE_READ, request)
        return read.raw[: abi.binder_write_read.read(request).read_consumed]

    def wait_for_delivery(self) -> None:
        nothing = abi.BR_NOOP.to_bytes(4, "little")  # somebody has closed a copy of our descriptor
        with pytest.raises(OSError, match="Remote I/O"):
            assert set(iter(lambda: self._write_read(read_size=256), b"")) == {nothing}

    def take_and_answer(self) -> None:
        assert self._socket is not None
        octets, numbers, _, _ = socket.recv_fds(self._socket, 64, 8)
        report = array.array("i", numbers)
        number = ext.binderd_message.read(octets).value
        address, count = report.buffer_info()
        installed = ext.binderd_installed.build(id=number, count=count, numbers=address)
        fcntl.ioctl(self._fd, ext.BINDERD_INSTALLED, installed)
        assert abi.BR_TRANSACTION.to_bytes(4, "little") in self._write_read(read_size=256)
        text = ctypes.create_string_buffer(b"late", 4)
        answer = abi.binder_transaction_data.build(data_size=4, buffer=ctypes.addressof(text))
        self._write_read(abi.BC_REPLY.to_bytes(4, "little") + answer)
        for each in numbers:
            os.close(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._socket is not None
        self._socket.close()
        os.close(self._fd)
