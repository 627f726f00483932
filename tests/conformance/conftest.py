# SPDX-License-Identifier: Apache-2.0
"""The backends that every scenario runs on.

BINDERD_EVERY=3 plays every third scenario only, where all of them take too long;
BINDERD_EVERY="private=3 bare=3" does so on those backends, and all of them on the others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from support.backends import BACKENDS
from support.device_world import DeviceWorld
from support.engine_world import EngineWorld
from support.fuse_daemon import (
    BareDaemon,
    BoundDaemon,
    CuseDaemon,
    FuseDaemon,
    missing_capability,
)
from support.kernel_driver import KernelDriver
from support.puppeteer import Puppet, start_zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.playbook import World

EVERY: Final = os.environ.get("BINDERD_EVERY", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what BINDERD_EVERY does not ask for; tests of other folders are not asked.

    A scenario with parameters is played with all of them: its outcome is that of all together.
    """
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    order = {name: number for number, name in enumerate(dict.fromkeys(map(_scenario, here)))}
    left_out = {item for item in here if order[_scenario(item)] % _every(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _every(item: pytest.Item) -> int:
    """Return which of its backend's scenarios are played: every so many."""
    if EVERY.isdecimal():
        return int(EVERY)
    of_backend = dict(word.split("=") for word in EVERY.split())
    called_with = getattr(item, "callspec", None)  # there is none without parameters
    backend = called_with.params.get("world") if called_with is not None else None
    return int(of_backend.get(backend, "1"))


def _scenario(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Puppet]:
    with start_zygote() as puppet:
        yield puppet


def _run(kind: type[FuseDaemon], places: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    directory = places.mktemp(kind.name)
    directory.chmod(0o755)
    for parent in directory.parents:
        if parent.owner() == directory.owner() and parent.name.startswith("pytest"):
            parent.chmod(0o755)  # clients of other users must get there
    daemon = kind(directory)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def fuse_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    yield from _run(FuseDaemon, tmp_path_factory)


@pytest.fixture(scope="session")
def private_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    yield from _run(BoundDaemon, tmp_path_factory)


@pytest.fixture(scope="session")
def bare_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    yield from _run(BareDaemon, tmp_path_factory)


@pytest.fixture(scope="session")
def cuse_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CuseDaemon]:
    daemon = CuseDaemon(tmp_path_factory.mktemp("cuse"))
    yield daemon
    daemon.stop()


BY_NAME = ("BINDER_", "BC_", "BR_")  # statements that are about something that can be seen


@pytest.fixture(scope="session")
def kernel_driver() -> KernelDriver:
    return KernelDriver()


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    backend: World
    if request.param == "engine":
        backend = EngineWorld()
        backend.pause_unnoticed()
    elif request.param == "kernel":
        zygote = request.getfixturevalue("zygote")
        backend = DeviceWorld(request.getfixturevalue("kernel_driver"), zygote)
    elif request.param == "cuse":
        zygote = request.getfixturevalue("zygote")
        backend = DeviceWorld(request.getfixturevalue("cuse_daemon"), zygote)
    else:
        reason = missing_capability()
        if reason is not None:
            pytest.skip(reason)
        daemon = request.getfixturevalue(f"{request.param}_daemon")
        backend = DeviceWorld(daemon, request.getfixturevalue("zygote"))
    properties = request.node.user_properties
    properties.append(("backend", backend.name))
    yield backend
    backend.close()
    backend.assert_empty()
    if backend.excuses:
        properties.append(("excuse", backend.excuses[0]))
    elif set(request.node.callspec.params) == {"world"}:
        named = {code for mark in request.node.iter_markers("statements") for code in mark.args}
        unseen = {code for code in named if code.startswith(BY_NAME)} - backend.seen
        assert not unseen, f"it names {', '.join(sorted(unseen))}, which it does not use"
