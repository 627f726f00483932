# SPDX-License-Identifier: Apache-2.0
"""Whoever reads long logs, again and again, does not keep others from calling."""

from __future__ import annotations

import mmap
import statistics
import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from channel.helpers import SECONDS_MAX, client, needs_fuse, running
from integration.test_logs import CALLER, MANAGER, check_state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse

OBJECTS_COUNT: Final = 2000  # of each: calls, buffers, nodes, refs
READS_COUNT: Final = 20
CALLS_MIN: Final = 3  # that are answered while one file is opened and read, on the median

# A manager that reads nothing; each one-way call brings a node and waits, with its buffer.
HOARD: Final = (
    MANAGER.partition('commands = b""')[0].replace("/binder", "/hoard")
    + """
wait_for_line()
"""
)
HOARDER: Final = (
    CALLER.partition("def call")[0]
    + f"""
device = Device(DIR + "/hoard")
for number in range({OBJECTS_COUNT}):
    data = bytes(8) + abi.flat_binder_object.pack(abi.BINDER_TYPE_BINDER, 0, 16 * number + 16, 0)
    payload = ctypes.create_string_buffer(data, len(data))
    body = abi.binder_transaction_data.build(
        flags=abi.TF_ONE_WAY, data_size=len(data), buffer=ctypes.addressof(payload),
        offsets_size=8, offsets=ctypes.addressof(offsets))
    device.write_read(word(abi.BC_TRANSACTION) + body, 256)
say("up")
wait_for_line()
"""
)
# Counts its calls, and notes the longest in microseconds, where the test can see it.
COUNTING: Final = (
    CALLER
    + """
import mmap, time
file = os.open(PLACE, os.O_RDWR)
counts = mmap.mmap(file, 16)
count = 0
say("up")
while True:
    began = time.monotonic()
    call(device, 16)
    count += 1
    longest = max(int((time.monotonic() - began) * 1e6), struct.unpack_from("=Q", counts, 8)[0])
    struct.pack_into("=QQ", counts, 0, count, longest)
"""
)


def test_calls_go_on_while_long_logs_are_read(tmp_path: Path) -> None:
    place, shared = tmp_path / "binderfs", tmp_path / "counts"
    shared.write_bytes(bytes(16))
    with (
        running(place, "--device", "binder", "--device", "hoard") as daemon,
        shared.open("r+b") as file,
        mmap.mmap(file.fileno(), 16) as counts,
    ):
        with ExitStack() as stack:
            counting = f"PLACE = {str(shared)!r}\n{COUNTING}"
            for code in (HOARD, HOARDER, MANAGER, counting):  # a manager before who calls it
                assert stack.enter_context(client(place, code)).line() == "up"
            answered, seconds = [], []
            for _ in range(READS_COUNT):
                before, began = struct.unpack_from("=Q", counts)[0], time.monotonic()
                text = (place / "binder_logs/state").read_text()
                seconds.append(time.monotonic() - began)
                answered.append(struct.unpack_from("=Q", counts)[0] - before)
                assert check_state(text) >= OBJECTS_COUNT
            calls, longest = struct.unpack("=QQ", counts)
            print(
                f"{len(text) >> 10} KiB in {statistics.median(seconds) * 1e3:.1f} ms (median),"
                f" {statistics.median(answered):g} calls meanwhile;"
                f" of {calls} calls the longest {longest / 1e3:.1f} ms"
            )
            assert statistics.median(answered) >= CALLS_MIN
            assert longest < SECONDS_MAX * 1e6
        assert daemon.end() == 0
