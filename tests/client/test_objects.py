# SPDX-License-Identifier: Apache-2.0
"""Services without a device: the table of methods, what every object answers, errors as replies."""

from __future__ import annotations

import logging
import os

import pytest

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import (
    BinderError,
    DeadObject,
    DeviceError,
    FailedTransaction,
    MisuseError,
    ParcelError,
    RemoteException,
)
from binderclient.faults import answer_to
from binderclient.objects import (
    Caller,
    Service,
    call_flags,
    caller,
    check_status,
    dispatch,
    reset_caller,
    set_caller,
    transaction,
)
from binderclient.parcel import Parcel
from binderwire.binder_abi import TF_ACCEPT_FDS, TF_CLEAR_BUF, TF_ONE_WAY, TF_STATUS_CODE

CALLER = Caller(5, 6, False)


class Calculator(Service):
    descriptor = "org.example.ICalculator"

    @transaction(1)
    def add(self, data: Parcel, reply: Parcel) -> None:
        reply.write_int32(data.read_int32() + data.read_int32())

    @transaction(2)
    @transaction(3)
    def answer(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(42)


def run(service: Service, code: int, data: Parcel) -> Parcel:
    data.position = 0
    reply = Parcel()
    assert dispatch(service, code, data, reply, 0) is None
    reply.position = 0
    return reply


def test_methods_are_found_by_code() -> None:
    request = Parcel.for_interface("org.example.ICalculator")
    request.write_int32_array(None)
    request.position -= 4
    request.write_int32(20)
    request.write_int32(22)
    assert run(Calculator(), 1, request).read_int32() == 42
    for code in (2, 3):
        request = Parcel.for_interface("org.example.ICalculator")
        assert run(Calculator(), code, request).read_int32() == 42


def test_subclasses_inherit_and_replace() -> None:
    class Odd(Calculator):
        @transaction(2)
        def other(self, _data: Parcel, reply: Parcel) -> None:
            reply.write_int32(41)

    request = Parcel.for_interface("org.example.ICalculator")
    assert run(Odd(), 2, request).read_int32() == 41
    assert run(Odd(), 3, request).read_int32() == 42
    assert run(Calculator(), 2, request).read_int32() == 42


def test_one_code_has_one_method() -> None:
    with pytest.raises(TypeError, match="first and second both handle 1"):

        class Both(Service):
            @transaction(1)
            def first(self, data: Parcel, reply: Parcel) -> None: ...

            @transaction(1)
            def second(self, data: Parcel, reply: Parcel) -> None: ...


@pytest.mark.parametrize("code", [0, 0x1000000, android.PING_TRANSACTION])
def test_codes_of_methods_have_a_range(code: int) -> None:
    with pytest.raises(ValueError, match="no code"):
        transaction(code)


def test_what_every_object_answers() -> None:
    assert len(run(Calculator(), android.PING_TRANSACTION, Parcel())) == 0
    reply = run(Calculator(), android.INTERFACE_TRANSACTION, Parcel())
    assert reply.read_string16() == "org.example.ICalculator"
    for code in (99, android.DUMP_TRANSACTION):
        with pytest.raises(RemoteException) as caught:
            run(Calculator(), code, Parcel())
        assert caught.value.status == android.STATUS_UNKNOWN_TRANSACTION


def test_a_request_for_another_interface_is_not_handled() -> None:
    with pytest.raises(ParcelError):
        run(Calculator(), 1, Parcel.for_interface("org.example.IOther"))


def test_dump_gets_the_open_file_and_its_arguments() -> None:
    class Dumping(Service):
        accepts_descriptors = True

        def dump(self, descriptor: int, arguments: list[str]) -> None:
            os.write(descriptor, " ".join(arguments).encode())

    service, request = Dumping(), Parcel()
    with os.fdopen(os.memfd_create("a"), "rb") as file:
        request.write_file(file)
        request.write_string16_array(["-a", "-b"])
        before = len(os.listdir("/proc/self/fd"))
        run(service, android.DUMP_TRANSACTION, request)
        assert len(os.listdir("/proc/self/fd")) == before
        assert os.pread(file.fileno(), 100, 0) == b"-a -b"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ParcelError("x"), android.STATUS_BAD_VALUE),
        (DeadObject("x"), android.STATUS_DEAD_OBJECT),
        (FailedTransaction(), android.STATUS_FAILED_TRANSACTION),
        (RemoteException(status=-7), -7),
    ],
)
def test_faults_become_a_status(error: Exception, status: int) -> None:
    reply, flags = answer_to(error, Calculator(), 1, CALLER)
    assert flags == TF_STATUS_CODE
    reply.position = 0
    with pytest.raises(RemoteException) as caught:
        check_status(flags, reply)
    assert caught.value.status == status
    assert reply.closed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError("x"), android.EX_SECURITY),
        (ValueError("x"), android.EX_ILLEGAL_ARGUMENT),
        (NotImplementedError("x"), android.EX_UNSUPPORTED_OPERATION),
        (RemoteException(android.EX_ILLEGAL_STATE, "x"), android.EX_ILLEGAL_STATE),
    ],
)
def test_refusals_become_an_exception(error: Exception, code: int) -> None:
    reply, flags = answer_to(error, Calculator(), 1, CALLER)
    assert flags == 0
    reply.position = 0
    check_status(flags, reply)
    with pytest.raises(RemoteException, match="x") as caught:
        reply.read_exception()
    assert caught.value.exception_code == code


def test_the_fault_of_a_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        reply, flags = answer_to(ZeroDivisionError("oops"), Service(), 1, CALLER)
    assert flags == TF_STATUS_CODE
    assert bytes(reply) == android.STATUS_UNKNOWN_ERROR.to_bytes(4, "little", signed=True)
    assert "Service, code 0x1, called by process 5 of user 6, failed" in caplog.text
    assert "oops" in caplog.text
    caplog.clear()
    reply, flags = answer_to(ZeroDivisionError("oops"), Calculator(), 1, CALLER)
    reply.position = 0
    with pytest.raises(RemoteException, match="EX_ILLEGAL_STATE: ZeroDivisionError: oops"):
        reply.read_exception()
    assert "org.example.ICalculator.add(), called by process 5 of user 6, failed" in caplog.text


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_whatever_is_raised_has_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    for error, text in (
        (Mute(), "Mute"),
        (KeyError(), "KeyError"),
        (KeyError("x" * 10**6), "KeyError: 'xxx"),
        (SystemExit(3), "SystemExit: 3"),
    ):
        reply, flags = answer_to(error, Calculator(), 1, CALLER)
        assert flags == 0
        assert len(reply) < 10_000
        reply.position = 0
        with pytest.raises(RemoteException, match=f"EX_ILLEGAL_STATE: {text}"):
            reply.read_exception()


def test_nobody_but_the_log_hears_what_is_wrong_with_a_one_way_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer_to(ValueError("odd"), Calculator(), 1, Caller(0, 6, True))
    assert "org.example.ICalculator.add(), called one-way by user 6, refused it" in caplog.text
    assert "ValueError: odd" in caplog.text


def test_the_caller_is_known_inside_a_handler_only() -> None:
    with pytest.raises(MisuseError):
        caller()
    token = set_caller(Caller(12, 1000, one_way=False))
    assert caller().sender_pid == 12
    reset_caller(token)
    with pytest.raises(MisuseError):
        caller()


def test_call_flags() -> None:
    assert call_flags(oneway=False, clear=False) == TF_ACCEPT_FDS
    assert call_flags(oneway=True, clear=True) == TF_ACCEPT_FDS | TF_ONE_WAY | TF_CLEAR_BUF


def test_errors_say_what_they_are() -> None:
    assert "ENOSPC: no room" in str(FailedTransaction(28))
    assert str(RemoteException(-8, "m", service_specific=3)) == "EX_SERVICE_SPECIFIC 3: m"
    assert str(RemoteException(status=-32)) == "STATUS_DEAD_OBJECT"
    error = DeviceError(2, "gone", "/dev/x")
    assert isinstance(error, OSError)
    assert isinstance(error, BinderError)
    assert (error.errno, error.filename) == (2, "/dev/x")
    assert not hasattr(Device, "__del__")
