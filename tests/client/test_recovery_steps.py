# SPDX-License-Identifier: Apache-2.0
"""``Recovery`` step by step: sessions that fail where and when a test wants it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from binderclient import recovery
from binderclient.deaths import Obituary
from binderclient.errors import DeadObject, DeviceError, DeviceGone, RemoteException
from binderclient.objects import Caller, Proxy, Service, reset_caller, set_caller
from binderclient.parcel import Parcel
from binderclient.recovery import Recovery, pauses
from binderclient.servicemanager import ServiceManagerService, formats
from binderclient.servicemanager.entries import Entry
from binderclient.servicemanager.values import Offered
from binderwire.service_manager import DEFAULT_ANDROID, DUMP_PRIORITY_ALL, dialect_of
from client.drivers import PATIENCE
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    OnGone = Callable[[Any, list[Obituary]], None]

GONE = DeviceGone(107, "gone", "/dev/x")


class FakeSession:
    """A session whose driver, and whose service manager, are the test's."""

    path = "/dev/x"

    def __init__(self, world: FakeWorld, on_gone: OnGone) -> None:
        self.world = world
        self.gone = self.closed = False
        self.served = 0
        self.manager_died: Callable[[object], object] | None = None
        self.driver = SimpleNamespace(lifeline=-1, gone_error=lambda: GONE)
        self.pool = SimpleNamespace(start=self._serve)
        self._on_gone = on_gone

    def _serve(self) -> None:
        self.served += 1

    def end(self, *deaths: Obituary) -> None:
        self.gone = True
        self._on_gone(self, list(deaths))

    def transact(self, handle: int, _code: int, _data: Parcel, _flags: int) -> Parcel:
        assert handle == 0
        if not self.world.has_manager:
            raise DeadObject("no manager")
        self.world.pings += 1
        return Parcel()

    def proxy(self, _handle: int) -> object:
        return object()

    def link_to_death(self, proxy: object, callback: Callable[[object], object]) -> None:
        self.manager_died = lambda _proxy: callback(proxy)

    def become_context_manager(self, service: object) -> None:
        if self.world.refuses_manager:
            raise DeviceError(16, "there is a context manager already", self.path)
        self.world.managers.append(service)

    def close(self) -> None:
        self.closed = True


class FakeWorld:
    def __init__(self) -> None:
        self.is_there = True
        self.has_manager = True
        self.refuses_manager = False
        self.pings = 0
        self.attempts = 0
        self.sessions: list[FakeSession] = []
        self.managers: list[object] = []

    def open(self, on_gone: OnGone) -> Any:  # noqa: ANN401 - stands for a Session
        self.attempts += 1
        if not self.is_there:
            raise DeviceError(2, "no such device", "/dev/x")
        self.sessions.append(FakeSession(self, on_gone))
        return self.sessions[-1]


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LONGEST_PAUSE_SECONDS", 0.02)


def test_pauses_grow_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LONGEST_PAUSE_SECONDS", 1.0)
    waits = pauses()
    found = [next(waits) for _ in range(12)]
    assert found == sorted(found)
    assert found[0] < 0.05
    assert found[-3:] == [1.0] * 3


def test_who_does_not_reconnect_has_no_thread_and_no_return(world: FakeWorld) -> None:
    before = threading.active_count()
    kept = Recovery(world.open, reconnect=False)
    assert threading.active_count() == before
    world.sessions[0].end()
    with pytest.raises(DeviceGone):
        kept.wait_back(None)
    assert kept.next_session(kept.session, lambda: True) is None
    assert world.attempts == 1
    kept.close()


def test_deaths_come_before_the_end_and_the_end_before_the_return(world: FakeWorld) -> None:
    told: list[str] = []
    kept = Recovery(world.open, reconnect=True)
    kept.on_gone(lambda: told.append("gone"))
    kept.on_back(lambda: told.append("back"))

    def bad(_proxy: object) -> None:
        told.append("bad")
        raise KeyError("why")

    world.sessions[0].end(Obituary(None, [bad, lambda _proxy: told.append("dead")]))
    world.sessions[0].end()  # another thread notices, too
    eventually(lambda: told == ["bad", "dead", "gone", "back"])
    kept.close()


def test_an_end_in_the_middle_of_the_return_is_told_once(world: FakeWorld) -> None:
    told: list[str] = []
    kept = Recovery(world.open, reconnect=True)
    kept.on_gone(lambda: told.append("gone"))
    kept.context_manager = None
    opened = world.open

    def open_and_lose(on_gone: OnGone) -> Any:  # noqa: ANN401 - stands for a Session
        session = opened(on_gone)
        if len(world.sessions) == 2:
            session.end()  # before anybody has it
        return session

    kept._open_session = open_and_lose
    world.sessions[0].end()
    eventually(lambda: len(world.sessions) == 3 and kept.session is world.sessions[2])
    eventually(lambda: told == ["gone", "gone"])
    kept.close()


def test_what_it_was_is_restored_or_tried_again(world: FakeWorld) -> None:
    kept = Recovery(world.open, reconnect=True)
    manager: Any = object()
    kept.context_manager = manager
    kept.is_serving = True
    world.refuses_manager = True
    world.sessions[0].end()
    eventually(lambda: len(world.sessions) > 3)
    assert kept.session is world.sessions[0]
    assert not kept.wait_back(0.01)
    world.refuses_manager = False
    assert kept.wait_back(PATIENCE)
    eventually(lambda: world.sessions[-1].served == 1)
    assert world.managers == [manager]
    assert all(session.closed for session in world.sessions[1:-1])
    kept.close()


def test_offers_wait_for_a_manager_and_are_refused_so_many_times(world: FakeWorld) -> None:
    made: list[str] = []
    kept = Recovery(world.open, reconnect=True)

    def good(_session: object) -> None:
        made.append("good")

    def refused(_session: object) -> None:
        made.append("refused")
        raise RemoteException(-1, "may not")

    with kept.offering("good", good), kept.offering("refused", refused):
        pass
    eventually(lambda: world.sessions[0].manager_died)
    assert made == []  # the block has made them
    world.has_manager = False
    world.sessions[0].end()
    assert kept.wait_back(PATIENCE)
    world.has_manager = True
    eventually(lambda: made.count("refused") == recovery.REFUSALS_MAX)
    eventually(lambda: not kept._due)
    assert made.count("good") == 1
    # Each new manager is asked anew.
    eventually(lambda: world.sessions[1].manager_died)
    died = world.sessions[1].manager_died
    assert died is not None
    died(None)
    eventually(lambda: made.count("refused") == 2 * recovery.REFUSALS_MAX)
    assert made.count("good") == 2
    kept.close()


def test_an_offer_that_fails_is_not_repeated(world: FakeWorld) -> None:
    kept = Recovery(world.open, reconnect=True)
    with pytest.raises(KeyError), kept.offering("name", lambda _session: None):
        raise KeyError("why")
    assert kept._offers == {}
    with kept.offering("name", lambda _session: None):
        pass
    earlier = kept._offers["name"]
    with pytest.raises(KeyError), kept.offering("name", lambda _session: None):
        raise KeyError("why")
    assert kept._offers == {"name": earlier}
    kept.close()


def test_closing_ends_the_thread_wherever_it_is(world: FakeWorld) -> None:
    for is_away in (False, True):
        kept = Recovery(world.open, reconnect=True)
        if is_away:
            world.is_there = False
            world.sessions[-1].end()
            eventually(lambda: world.attempts > 4)
        kept.close()
        eventually(lambda: not any(t.name == "binder-recovery" for t in threading.enumerate()))


def test_a_service_whose_death_is_not_told_yet_is_not_handed_out() -> None:
    """Between the end of a session and the telling of its deaths, the next one may ask."""
    manager = ServiceManagerService()
    dead: Any = Proxy(7, SimpleNamespace())
    for name, service in (("dead", dead), ("living", Service())):
        entry = Entry(Offered(service), False, DUMP_PRIORITY_ALL, 1, 1)
        manager._services.put(name, entry)
    dead.dead = True
    assert ask(manager, "listServices", DUMP_PRIORITY_ALL) == ["living", "manager"]
    assert ask(manager, "checkService", "dead") is None


def ask(manager: ServiceManagerService, method: str, *values: object) -> object:
    call = formats.call(dialect_of(DEFAULT_ANDROID), method, *values)
    reply = Parcel()
    call.request.position = 0
    token = set_caller(Caller(1, 1, False))
    try:
        manager.on_transact(call.code, call.request, reply, 0)
    finally:
        reset_caller(token)
    reply.position = 0
    return call.result(reply)
