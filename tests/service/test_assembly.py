# SPDX-License-Identifier: Apache-2.0
"""The parts of the daemon know each other from the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.config import Settings
from binderd.service import Service
from binderd.start import Findings, open_transport
from channel.helpers import needs_fuse

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@needs_fuse
async def test_a_channel_that_polls_hears_the_processes_that_work_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever waits for a file, or for memory, waits until the channel has polled."""
    settings = Settings(str(tmp_path / "binderfs"))
    transport = open_transport(settings, "fuse", Findings(warnings=[], has_private_pages=True))
    service = Service(settings, lambda: settings, transport)
    try:
        heard: list[str] = []
        parts = service.parts
        helper, [channel] = parts.delivery.helper, parts.pumps.channels
        monkeypatch.setattr(helper, "receive", lambda: heard.append("end"))
        assert helper._process is not None
        helper._process.kill()
        helper._process.wait()
        channel.readiness.look()
        assert heard == ["end"]
        fetcher = parts.fetcher
        monkeypatch.setattr(fetcher, "receive", lambda: heard.append("fetched"))
        assert fetcher._process is not None
        fetcher._process.kill()
        fetcher._process.wait()
        channel.readiness.look()
        assert "fetched" in heard
    finally:
        transport.close()
        service.close()
