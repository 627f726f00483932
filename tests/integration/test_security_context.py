# SPDX-License-Identifier: Apache-2.0
"""What services that ask for security contexts are told where no security module gives any."""

from __future__ import annotations

from contextlib import contextmanager
from errno import EOPNOTSUPP
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_SEC_CTX,
)
from channel.helpers import needs_fuse
from support import bc
from support.device_world import DeviceWorld
from support.fuse_daemon import FuseDaemon
from support.puppeteer import start_zygote
from support.scenes import curious
from support.transcript import assert_br

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.scenes import Scene

LABEL = "u:r:untrusted_app:s0"


def own_context() -> str:
    try:
        return Path("/proc/self/attr/current").read_text().rstrip("\n\0")
    except OSError:
        return ""


pytestmark = [
    needs_fuse,
    pytest.mark.skipif(own_context() != "", reason=f"processes have one here: {own_context()}"),
]


@contextmanager
def curious_manager(folder: Path, *arguments: str) -> Iterator[Scene]:
    """Yield a manager that asks for its callers' contexts, as Android's, and a client."""
    folder.chmod(0o755)
    daemon = FuseDaemon(folder, *arguments)
    try:
        with start_zygote() as zygote:
            world = DeviceWorld(daemon, zygote)
            yield curious(world)
            world.close()
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), b"kernel\0"), (("--security-context", LABEL), LABEL.encode() + b"\0")],
    ids=["default", "label"],
)
def test_a_service_is_told_the_label(
    tmp_path: Path, arguments: tuple[str, ...], told: bytes
) -> None:
    with curious_manager(tmp_path, *arguments) as scene:
        assert_br(scene.client.write_read(bc.oneway(0)), BR_NOOP, BR_TRANSACTION_COMPLETE)
        call = assert_br(scene.server.read(), BR_NOOP, (BR_TRANSACTION_SEC_CTX, {}))[0]
        assert scene.manager.peek(call.secctx, len(told)) == told
        scene.server.write(bc.free(call.buffer))


def test_without_a_label_its_calls_fail(tmp_path: Path) -> None:
    with curious_manager(tmp_path, "--security-context", "") as scene:
        assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)
        assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EOPNOTSUPP)
