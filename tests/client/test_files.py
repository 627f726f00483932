# SPDX-License-Identifier: Apache-2.0
"""Files in parcels; what processes have left of them is tested in ``tests/integration/client``."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from binderclient.errors import ParcelError
from binderclient.files import ReceivedFile
from client import peer as p
from client.test_device import connected, request
from support.waiting import eventually

if TYPE_CHECKING:
    from binderclient.objects import Proxy
    from client.conftest import Bench


def own_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def peer_count(peer: Proxy) -> int:
    with peer.call(p.COUNT, request()) as reply:
        return reply.read_int32()


def lend(peer: Proxy, count: int) -> list[ReceivedFile]:
    parcel = request()
    parcel.write_int32(count)
    with peer.call(p.LEND, parcel) as reply:
        return [reply.read_file() for _ in range(count)]


def test_files_there_and_back(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        theirs, ours = peer_count(peer), own_count()
        with (
            os.fdopen(os.memfd_create("a"), "w+b") as a,
            os.fdopen(os.memfd_create("b"), "w+b") as b,
        ):
            parcel = request()
            parcel.write_int32(2)
            parcel.write_file(a)
            parcel.write_file(b.fileno())
            with peer.call(p.SWAP, parcel) as reply, reply.read_file() as c, reply.read_file() as d:
                assert os.path.sameopenfile(c.fileno(), b.fileno())
                assert os.path.sameopenfile(d.fileno(), a.fileno())
                os.lseek(c.fileno(), 7, os.SEEK_SET)
                assert os.lseek(b.fileno(), 0, os.SEEK_CUR) == 7
        del parcel, reply
        eventually(lambda: own_count() == ours)  # the peer may be in this very process
        eventually(lambda: peer_count(peer) == theirs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "r", "encoding": "nonsense"},  # found out behind the built-in open's own check
        {"mode": "r", "buffering": 0},
        {"mode": "nonsense"},
        {"mode": "rb", "newline": ""},
    ],
    ids=str,
)
def test_a_file_that_cannot_be_opened_so_is_closed_once(wrong: dict[str, Any]) -> None:
    received = ReceivedFile(os.open("/dev/null", os.O_RDONLY))
    number = received.fileno()
    with pytest.raises((ValueError, LookupError)):
        received.open(**wrong)
    if received.closed:  # then its number is somebody else's
        assert os.open("/dev/null", os.O_RDONLY) == number
        received.close()
        os.close(number)
    else:
        received.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_a_file_is_read_once_and_from_where_it_is(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        parcel = request()
        parcel.write_int32(1)
        with peer.call(p.LEND, parcel) as reply, reply.read_file():
            with pytest.raises(ParcelError):
                reply.read_file()
            reply.position = 0
            with pytest.raises(ParcelError):
                reply.read_file()


def test_several_threads_receive_at_once(bench: Bench) -> None:
    with connected(bench, "--threads", "4") as (_device, peer):
        ours = own_count()
        failures = []

        def work() -> None:
            for _ in range(40):
                for number, file in enumerate(lend(peer, 3)):
                    if os.pread(file.fileno(), 10, 0) != b"%d" % number:
                        failures.append(number)
                    file.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        eventually(lambda: own_count() == ours)
