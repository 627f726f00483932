# SPDX-License-Identifier: Apache-2.0
"""The parts of the daemon know each other from the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.config import Settings
from binderd.service import Service
from binderd.start import Findings, open_doors
from channel.helpers import needs_fuse

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@needs_fuse
async def test_a_channel_that_lingers_hears_the_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise whoever is given a file by ptrace waits until the channel has lingered."""
    settings = Settings(str(tmp_path / "binderfs"))
    doors = open_doors(settings, "fuse", Findings(warnings=[], has_private_pages=True))
    service = Service(settings, lambda: settings, doors)
    try:
        heard: list[str] = []
        helper, [channel] = service._injector, service._channels
        monkeypatch.setattr(helper, "receive", lambda: heard.append("end"))
        assert helper._process is not None
        helper._process.kill()
        helper._process.wait()
        channel.linger()
        assert heard == ["end"]
    finally:
        doors.close()
        service.close()
