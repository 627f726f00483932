# SPDX-License-Identifier: Apache-2.0
"""The demo's clients send again what found no room, and nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from binderclient import Device, FailedTransaction, Parcel
from binderclient.demo.patience import Patience
from client.peer import DESCRIPTOR, SLEEP

if TYPE_CHECKING:
    from client.conftest import Bench

MOST = 700 << 10  # bytes of the peer's receive area, of which it has less than 1 MiB
TOO_MUCH = 2 << 20


def sleep_request(milliseconds: int, size: int) -> Parcel:
    request = Parcel.for_interface(DESCRIPTOR)
    request.write_int32(milliseconds)
    request.write_bytes(bytes(size))
    return request


def test_it_sends_again_until_there_is_room(bench: Bench) -> None:
    """Two threads with requests of which only one fits at a time: none fails."""
    bench.peer()
    patience, start = Patience(), threading.Barrier(2)
    answered: list[int] = []
    with Device(bench.device) as device:

        def call() -> None:
            start.wait()
            for _ in range(5):
                request = sleep_request(50, MOST)
                with patience.call(device.context_manager, SLEEP, request) as reply:
                    answered.append(reply.read_int32())

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answered) == 10
    assert patience.refused > 0


def test_what_never_fits_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.peer()
    monkeypatch.setattr("binderclient.demo.patience._PATIENCE_SECONDS", 0.05)
    with Device(bench.device) as device, pytest.raises(FailedTransaction, match="no room"):
        Patience().call(device.context_manager, SLEEP, sleep_request(0, TOO_MUCH))
