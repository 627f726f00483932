# SPDX-License-Identifier: Apache-2.0
"""Each attack in its short form, on whatever daemon is under test.

The figures of `make hostile` are for an idle machine and the compiled daemon. Here a busy machine
and an interpreted daemon must pass, and one without the cure must not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import needs_fuse
from hostile.play import END_SECONDS, play
from hostile.table import ATTACKS, END, LOAD, NONE, STALL, Attack
from hostile.victims import build

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse

QUIET: Final = 0.3  # seconds
LOAD_MS: Final = 250.0  # that a call may take
USUAL_MS: Final = 10.0  # that one usually may, beside twice what it takes on a machine as busy
STALL_MS: Final = 2000.0
STALL_SECONDS: Final = 4.0  # then the attacker is killed
END_TIMES: Final = 4


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("victims")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o711)
    return build(folder)


REAL: Final = [attack for attack in ATTACKS if attack.kind != NONE]


@pytest.mark.parametrize("attack", REAL, ids=lambda attack: attack.name)
def test_victims_go_on(tmp_path: Path, victims: Path, attack: Attack) -> None:
    tmp_path.chmod(0o711)
    if attack.kind == STALL:
        attack = attack._replace(seconds=STALL_SECONDS)
    found = play(attack, victims, tmp_path / "attack", attack.short, QUIET)
    print(found)
    assert found.complaints == []
    if attack.kind == END:
        assert found.end_seconds is not None
        assert found.end_seconds < END_TIMES * END_SECONDS
        return
    assert found.under.calls > 0
    assert found.under.failed == 0
    if attack.kind == STALL:
        assert found.under.held < STALL_MS
        return
    assert found.under.p50 < USUAL_MS + 2 * found.quiet.p50
    if attack.kind == LOAD:
        assert found.under.max < LOAD_MS
