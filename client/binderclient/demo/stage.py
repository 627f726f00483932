# SPDX-License-Identifier: Apache-2.0
"""``Stage``: the course of the demo: which processes start and die when, and what must hold then.

Everything that two processes of the demo have to do with each other is decided here.
"""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from binderclient.demo.daemon import Daemon, DaemonError
from binderclient.demo.processes import Child
from binderclient.demo.report import Check, Progress, Tally, progress_text, size_text
from binderclient.trio import AsyncServiceManager, open_device

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE_A: Final = "org.binderd.demo.threads"  # served by many threads, lives through it all
SERVICE_B: Final = "org.binderd.demo.single"  # served by one thread, is killed and replaced
THREADS_OF_A: Final = 4
KILLED_CLIENTS: Final = (1, 2)
_CLIENTS_DIE_AT: Final = 0.35  # of the time
_SERVER_DIES_AT: Final = 0.6
_SOON_SECONDS: Final = 10.0
_SOON_SECONDS_EACH: Final = 0.5  # more for each client
_PAGES_SECONDS: Final = 4.0  # counts must be zero at once, pages within two seconds


@dataclass(frozen=True)
class Settings:
    """How long the demo is, in seconds, how many clients it has, and their random seed."""

    seconds: int = 10
    clients: int = 8
    seed: int = 0


@dataclass
class Outcome:
    """The result of the demo."""

    seconds: float = 0.0  # from the first call to the last
    tally: Tally = field(default_factory=Tally)
    checks: list[Check] = field(default_factory=list)

    def check(self, what: str, held: bool, found: str = "") -> None:
        """Note down whether something held."""
        self.checks.append(Check(what, bool(held), found))


class Stage:
    """The demo, with a daemon that is ready.

    Args:
        daemon: the daemon, ready.
        settings: see there.
        progress: where to say what is going on.
    """

    def __init__(self, daemon: Daemon, settings: Settings, progress: Progress) -> None:
        self._daemon = daemon
        self._settings = settings
        self._progress = progress
        self._outcome = Outcome()
        self._servers: dict[str, dict[str, Any]] = {}  # name -> its last report
        self._changed = trio.Event()
        self._soon = _SOON_SECONDS + _SOON_SECONDS_EACH * settings.clients

    async def run(self) -> Outcome:
        """Do it all; what went wrong is in the outcome.

        Raises:
            DaemonError: it could not even be started.
        """
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            manager = await start_manager(self._daemon, nursery)
            stack.push_async_callback(manager.aclose)
            async with open_device(self._daemon.device) as device:
                names = AsyncServiceManager(device)
                await self._play(names, stack, nursery)
            status = await manager.end(self._soon, signal.SIGTERM)
            self._outcome.check("the service manager ends cleanly", status == 0, _status(status))
        await self._check_empty()
        return self._outcome

    # Acts

    async def _play(
        self, names: AsyncServiceManager, stack: AsyncExitStack, nursery: trio.Nursery
    ) -> None:
        def server(name: str, threads: int) -> Child:
            arguments = [f"--name={name}", f"--threads={threads}"]
            return self._start("server", arguments, stack, nursery, lambda r: self._heard(name, r))

        server_a, server_b = server(SERVICE_A, THREADS_OF_A), server(SERVICE_B, 0)
        for name in (SERVICE_A, SERVICE_B):
            with trio.fail_after(self._soon):
                await names.wait(name)
        clients = {n: self._start_client(n, stack, nursery) for n in range(self._settings.clients)}
        tally = self._outcome.tally
        await self._until("every client works", lambda: tally.clients == len(clients))
        self._progress.say(
            f"{len(clients)} clients call 2 servers for {self._settings.seconds} s; "
            f"clients {KILLED_CLIENTS} and one server will be killed"
        )
        start = trio.current_time()
        async with trio.open_nursery() as background:
            background.start_soon(self._show_progress)
            await trio.sleep_until(start + self._settings.seconds * _CLIENTS_DIE_AT)
            await self._kill_clients(clients)
            await trio.sleep_until(start + self._settings.seconds * _SERVER_DIES_AT)
            server_b = await self._replace_server(server_b, names, lambda: server(SERVICE_B, 0))
            await trio.sleep_until(start + self._settings.seconds)
        self._outcome.seconds = trio.current_time() - start
        await self._stop(clients, {SERVICE_A: server_a, SERVICE_B: server_b})
        self._judge()

    async def _kill_clients(self, clients: dict[int, Child]) -> None:
        for number in KILLED_CLIENTS:
            clients[number].kill()
        self._progress.say(f"killed clients {KILLED_CLIENTS} in the middle of their calls")
        await self._until(
            "both servers are told of the clients' deaths",
            lambda: all(r["deaths"] == len(KILLED_CLIENTS) for r in self._servers.values()),
        )

    async def _replace_server(
        self, server: Child, names: AsyncServiceManager, start: Callable[[], Child]
    ) -> Child:
        server.kill()
        self._progress.say("killed a server in the middle of its calls")
        with trio.move_on_after(self._soon) as scope:
            while SERVICE_B in await names.list():  # noqa: ASYNC110 - nobody reports a removal
                await trio.sleep(0.02)
        self._outcome.check(
            "the service manager forgets the killed server", not scope.cancelled_caught
        )
        survivors = self._survivors()
        await self._until(
            "every surviving client gets DeadObject and a death notification",
            lambda: all(r["dead_objects"] == 1 == r["deaths"] for r in survivors()),
        )
        replacement = start()
        self._progress.say("started another one in its place")
        await self._until(
            "every surviving client finds the new server without polling",
            lambda: all(r["reunions"] == 1 for r in survivors()),
        )
        return replacement

    async def _stop(self, clients: dict[int, Child], servers: dict[str, Child]) -> None:
        statuses: dict[str, int | None] = {}

        async def end(name: str, child: Child) -> None:
            statuses[name] = await child.end(self._soon)

        async with trio.open_nursery() as nursery:
            for number, child in clients.items():
                if number not in KILLED_CLIENTS:
                    nursery.start_soon(end, f"client {number}", child)
        async with trio.open_nursery() as nursery:
            for name, child in servers.items():
                nursery.start_soon(end, name, child)
        bad = {name: _status(status) for name, status in statuses.items() if status != 0}
        self._outcome.check("all clients and servers end cleanly", not bad, _listed(bad))

    # Judgement

    def _judge(self) -> None:
        tally, check = self._outcome.tally, self._outcome.check
        errors = tally.errors + [e for r in self._servers.values() for e in r["errors"]]
        check(
            "every payload arrives as it was sent, no one-way call is lost or overtaken",
            not errors,
            "; ".join(errors[:3]) or f"{tally.calls:,} calls, {size_text(tally.bytes)}",
        )
        threads = self._servers[SERVICE_A]["threads"]
        check("the driver makes a busy server use more threads", threads > 1, f"{threads} threads")

    def _survivors(self) -> Callable[[], list[dict[str, Any]]]:
        numbers = [n for n in range(self._settings.clients) if n not in KILLED_CLIENTS]
        return lambda: [self._outcome.tally.of(n) for n in numbers]

    async def _check_empty(self) -> None:
        try:
            left = await self._daemon.wait_empty(_PAGES_SECONDS)
            self._outcome.check("nothing is left in the daemon", not left, _listed(left))
        except DaemonError as error:
            self._outcome.check("nothing is left in the daemon", False, str(error))
        status = await self._daemon.end()
        self._outcome.check("the daemon ends cleanly", status == 0, _status(status))
        self._outcome.check("no mount is left", not self._daemon.is_mounted())

    # Helpers

    def _start_client(self, number: int, stack: AsyncExitStack, nursery: trio.Nursery) -> Child:
        arguments = [f"--number={number}", f"--seed={self._settings.seed}", SERVICE_A, SERVICE_B]
        return self._start("client", arguments, stack, nursery, self._heard_client)

    def _start(
        self,
        module: str,
        arguments: list[str],
        stack: AsyncExitStack,
        nursery: trio.Nursery,
        heard: Callable[[dict[str, Any]], None],
    ) -> Child:
        child = Child(
            [f"binderclient.demo.{module}", f"--device={self._daemon.device}", *arguments],
            listen_to="stdout",
        )
        stack.push_async_callback(child.aclose)

        async def listen() -> None:
            async for report in child.reports():
                heard(report)
                self._changed.set()
                self._changed = trio.Event()

        nursery.start_soon(listen)
        return child

    def _heard(self, name: str, report: dict[str, Any]) -> None:
        self._servers[name] = report

    def _heard_client(self, report: dict[str, Any]) -> None:
        self._outcome.tally.add(report)

    async def _until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds by the children's reports, and note whether it did."""
        with trio.move_on_after(self._soon):
            while not holds():
                await self._changed.wait()
        self._outcome.check(what, holds())

    async def _show_progress(self) -> None:
        tally = self._outcome.tally
        calls, size = tally.calls, tally.bytes
        start = trio.current_time()
        for second in range(1, self._settings.seconds + 1):
            await trio.sleep_until(start + second)
            text = progress_text(
                second, self._settings.seconds, tally, tally.calls - calls, tally.bytes - size
            )
            calls, size = tally.calls, tally.bytes
            self._progress.show(text)


async def start_manager(daemon: Daemon, nursery: trio.Nursery) -> Child:
    """Start the service manager; returns when it is ready.

    Raises:
        DaemonError: it does not get ready.
    """
    arguments = ["binderclient.servicemanager", "--device", daemon.device]
    manager = Child(arguments, listen_to="stderr")
    ready = trio.Event()
    said: list[str] = []

    async def listen() -> None:
        async for line in manager.lines():
            said.append(line)
            if "ready" in line:
                ready.set()
        ready.set()

    nursery.start_soon(listen)
    with trio.move_on_after(_SOON_SECONDS):
        await ready.wait()
    if not any("ready" in line for line in said):
        await manager.aclose()
        raise DaemonError("\n".join(said) or "the service manager did not get ready")
    return manager


def _status(status: int | None) -> str:
    if status is None:
        return "had to be killed"
    return "" if status == 0 else f"exit status {status}"


def _listed(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())
