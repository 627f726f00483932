# SPDX-License-Identifier: Apache-2.0
"""Which tests of this folder are for here: those with the real driver only run inside a machine.

The environment variable BINDERD_VM says where we are: "1" inside a machine (the agent sets it),
"host" where the machine itself is to be tested, otherwise neither is collected.
"""

from __future__ import annotations

import os

PLACE = os.environ.get("BINDERD_VM", "")
collect_ignore = [
    name
    for place, names in (
        ("1", ["test_machine.py"]),
        ("host", ["test_host.py", "test_hardened.py", "test_systemd.py"]),
    )
    for name in names
    if place != PLACE
]


def pytest_report_collectionfinish() -> list[str]:
    if PLACE:
        return []
    return ["tests/vm: the tests with the kernel's own binder driver are left to: make test-vm"]
