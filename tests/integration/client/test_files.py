# SPDX-License-Identifier: Apache-2.0
"""Files in parcels, between real processes: what each has of them, and when it has none left."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from binderclient import deliveries
from binderclient.errors import FailedTransaction
from client import peer as p
from client.test_device import connected, request
from client.test_files import lend, own_count, peer_count

if TYPE_CHECKING:
    from client.conftest import Bench


@pytest.fixture(params=["through the socket", "as any program"])
def bench(bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """With and without the extension, on our side; the peer always has it where there is one."""
    if request.param == "as any program":
        monkeypatch.setattr(deliveries, "attach", lambda _control: None)
    return bench


@pytest.mark.parametrize("count", [1, 3, 260])
def test_a_reply_brings_files(bench: Bench, count: int) -> None:
    with connected(bench) as (_device, peer):
        theirs, ours = peer_count(peer), own_count()
        files = lend(peer, count)
        assert [os.pread(file.fileno(), 10, 0) for file in files] == [
            b"%d" % number for number in range(count)
        ]
        assert not any(os.get_inheritable(file.fileno()) for file in files)
        assert [file.fileno() for file in files] == sorted(file.fileno() for file in files)
        assert own_count() == ours + count
        for file in files:
            file.close()
        assert own_count() == ours
        assert peer_count(peer) == theirs


def test_what_nobody_reads_is_closed_with_the_parcel(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        ours = own_count()
        parcel = request()
        parcel.write_int32(4)
        with peer.call(p.LEND, parcel) as reply:
            assert own_count() == ours + 4
            kept = reply.read_file()
        assert own_count() == ours + 1
        assert os.pread(kept.fileno(), 10, 0) == b"0"
        with kept.open("rb") as file:
            assert kept.closed
            assert file.read() == b""  # the peer has written: the position is shared
        assert own_count() == ours


def test_a_received_file_is_owned(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        ours = own_count()
        (file,) = lend(peer, 1)
        number = file.detach()
        assert file.closed
        with pytest.raises(ValueError, match="closed"):
            file.fileno()
        file.close()
        os.close(number)
        (file,) = lend(peer, 1)
        assert str(file.fileno()) in repr(file)
        del file
        assert own_count() == ours


def test_no_number_left(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lend(peer, 1)
        spare = os.dup(0)
        os.close(spare)
        ours = own_count()
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 2, hard))
        try:
            with pytest.raises(FailedTransaction):
                lend(peer, 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert own_count() == ours
        assert len(lend(peer, 3)) == 3
