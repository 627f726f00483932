# SPDX-License-Identifier: Apache-2.0
"""The readable form of frames: fixed examples, and that nothing at all makes it fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from binderwire import binder_abi as abi
from binderwire import fuse_abi as fuse
from binderwire.commands import message
from binderwire.describe import (
    describe_commands,
    describe_ioctl,
    describe_objects,
    describe_reply,
    describe_request,
    describe_returns,
)


def request(opcode: int, body: bytes = b"", **fields: int) -> bytes:
    size = fuse.fuse_in_header.size + len(body)
    header = {"unique": 5, "nodeid": 1, "pid": 4711, **fields}
    return fuse.fuse_in_header.build(len=size, opcode=opcode, **header) + body


def reply(error: int, body: bytes = b"", unique: int = 5) -> bytes:
    size = fuse.fuse_out_header.size + len(body)
    return fuse.fuse_out_header.build(len=size, error=error, unique=unique) + body


def test_commands() -> None:
    stream = message(abi.COMMANDS, abi.BC_ENTER_LOOPER)
    stream += message(
        abi.COMMANDS, abi.BC_TRANSACTION, target=3, code=1, flags=17, data_size=8, buffer=0x7F0000
    )
    stream += message(abi.COMMANDS, abi.BC_FREE_BUFFER, value=0x7000)
    assert describe_commands(stream) == (
        "BC_ENTER_LOOPER, "
        "BC_TRANSACTION binder_transaction_data"
        "{target=3 code=1 flags=17 data_size=8 buffer=0x7f0000}, "
        "BC_FREE_BUFFER binder_uintptr_t{value=0x7000}"
    )


def test_returns() -> None:
    stream = message(abi.RETURNS, abi.BR_NOOP) + message(abi.RETURNS, abi.BR_TRANSACTION_COMPLETE)
    stream += message(abi.RETURNS, abi.BR_INCREFS, ptr=0x1000, cookie=2)
    assert describe_returns(stream) == (
        "BR_NOOP, BR_TRANSACTION_COMPLETE, BR_INCREFS binder_ptr_cookie{ptr=0x1000 cookie=2}"
    )


def test_the_rest_of_a_stream_that_cannot_be_read_is_shown_as_hex() -> None:
    stream = message(abi.COMMANDS, abi.BC_ENTER_LOOPER)
    cut = message(abi.COMMANDS, abi.BC_ACQUIRE, value=3)[:6]
    assert describe_commands(stream + cut) == (
        "BC_ENTER_LOOPER, <BC_ACQUIRE at offset 4 is cut short: 056304400300>"
    )
    assert describe_returns(b"\x01\x02\x03\x04") == "<unknown word 0x4030201 at offset 0: 01020304>"


def test_ioctls() -> None:
    argument = abi.binder_write_read.build(read_size=256)
    assert describe_ioctl(abi.BINDER_WRITE_READ, argument) == (
        "BINDER_WRITE_READ binder_write_read{read_size=256}"
    )
    assert describe_ioctl(abi.BINDER_VERSION) == "BINDER_VERSION"
    assert describe_ioctl(0x1234, b"\x01") == "ioctl 0x1234 01"


def test_objects() -> None:
    data = bytes(8) + abi.flat_binder_object.build(type=abi.BINDER_TYPE_HANDLE, binder=7)
    assert describe_objects(data, [8, 0, 28]) == (
        "8: flat_binder_object{type=0x73682a85 binder=7}, 0: not an object, 28: not an object"
    )


def test_fuse_requests() -> None:
    body = fuse.fuse_ioctl_in.build(fh=2, cmd=abi.BINDER_VERSION, in_size=4, out_size=4)
    assert describe_request(request(fuse.FUSE_IOCTL, body + bytes(4))) == (
        "rx 5: IOCTL n1 p4711 fuse_ioctl_in{fh=2 cmd=0xc0046209 in_size=4 out_size=4}"
        " BINDER_VERSION binder_version{}"
    )
    assert describe_request(request(fuse.FUSE_LOOKUP, b"binder\0")) == (
        "rx 5: LOOKUP n1 p4711 62696e64657200"
    )
    assert describe_request(request(999)) == "rx 5: opcode 999 n1 p4711"
    assert describe_request(request(fuse.FUSE_OPEN, b"\x01")) == "rx 5: OPEN n1 p4711 01"
    assert describe_request(b"\x01\x02") == "rx: cut short 0102"


def test_fuse_replies() -> None:
    assert describe_reply(reply(0)) == "tx 5: OK"
    assert describe_reply(reply(-22, b"\x01")) == "tx 5: errno 22 01"
    assert describe_reply(reply(1, b"\xff", unique=0)) == "tx notify 1: ff"
    assert describe_reply(b"\x00") == "tx: cut short 00"


def test_a_request_of_every_opcode_can_be_shown() -> None:
    for opcode, name in fuse.OPCODES.items():
        shown = describe_request(request(opcode, bytes(256)))
        assert shown.startswith(f"rx 5: {name.removeprefix('FUSE_')} n1 p4711")


@given(
    opcode=st.one_of(st.sampled_from(sorted(fuse.OPCODES)), st.integers(0, 0xFFFF_FFFF)),
    body=st.binary(max_size=200),
    cut=st.integers(0, 240),
)
def test_no_frame_makes_it_fail(opcode: int, body: bytes, cut: int) -> None:
    assert describe_request(request(opcode, body)[:cut]).startswith("rx")
    assert describe_reply(body).startswith("tx")
    assert isinstance(describe_commands(body), str)
    assert isinstance(describe_returns(body), str)
    assert isinstance(describe_ioctl(opcode, body), str)
    assert isinstance(describe_objects(body, [0, 3, opcode]), str)
