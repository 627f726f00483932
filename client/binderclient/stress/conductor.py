# SPDX-License-Identifier: Apache-2.0
"""``Conductor``: a stress test from its beginning to its end.

It finds a device, starts the workers, injects faults, lets all calls come to their end, and checks
what was counted. It runs in one thread, which looks a few hundred times a second for ended workers
and for what is due. What the workers do meanwhile it only sees in the shared memory (``board``).
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from binderclient.blocking import Device
from binderclient.errors import BinderError, RemoteException
from binderclient.preload import with_library
from binderclient.servicemanager import ServiceManager
from binderclient.stress import audit
from binderclient.stress.accidents import Accidents
from binderclient.stress.board import DRAINING, RUNNING, STARTING, Board, read_layout
from binderclient.stress.crew import CLIENT, IDLE, REGISTRY, SERVER, Crew, Worker
from binderclient.stress.driver import Facts, Logs, Usage, ask_device
from binderclient.stress.errors import StressError
from binderclient.stress.latency import read_counts
from binderclient.stress.place import close_device, device_for_stress, open_device
from binderclient.stress.report import ALL, KINDS, Result, progress_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from binderclient.demo.report import Progress
    from binderclient.stress.options import Options

_TICK_SECONDS: Final = 0.005
_READY_SECONDS: Final = 60.0  # for a process; more processes have more time
_READY_SECONDS_EACH: Final = 0.5
_ASK_SECONDS: Final = 10.0
_SHOWN_MAX: Final = 3  # complaints of one kind
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Conductor:
    """One test.

    Args:
        options: its arguments.
        program: the worker program.
        progress: where to say how it goes.
    """

    def __init__(self, options: Options, program: Path, progress: Progress) -> None:
        self._options = options
        self._program = program
        self._progress = progress
        self._result = Result(options)
        self._signals = 0  # how many ending signals have come
        self._failures: list[str] = []  # processes that have ended by themselves

    def run(self) -> Result:
        """Do it all; what went wrong is in the result.

        Raises:
            StressError: it cannot be run.
            KeyboardInterrupt: a second signal came.
        """
        with ExitStack() as stack, self._handling_signals():
            device, is_own = stack.enter_context(device_for_stress(self._options.device))
            self._result.device = device
            facts = _ask(device)
            logs = Logs(device, is_kernel=facts.is_kernel)
            before = logs.counts()
            usage = Usage(facts.daemon)
            pids = self._play(device, facts, usage)
            self._check_driver(logs, before, pids, is_own=is_own)
            self._note_daemon(facts, usage)
        return self._result

    # Acts

    def _play(self, device: str, facts: Facts, usage: Usage) -> set[int]:
        """Do everything for which processes are needed; returns their ids."""
        options = self._options
        with ExitStack() as stack:
            self._board = Board(read_layout(self._program), self._settings())
            stack.callback(self._board.close)
            self._freezer = open_device(device)
            stack.callback(close_device, self._freezer)
            size = options.clients + options.servers + options.idle + 1
            self._crew = crew = Crew(
                self._program, device, self._board.fd, self._environment(facts), size
            )
            stack.callback(crew.close)
            self._accidents = Accidents(options, crew, self._freezer)
            self._find_manager(device)
            self._start_all(size)
            self._go(usage)
            self._drain()
            self._end()
            usage.look()
            self._collect()
            return crew.pids

    def _settings(self) -> dict[str, int]:
        options = self._options
        threads = options.clients * options.threads
        return {
            "phase": STARTING,
            "seed": options.seed,
            "run": os.getpid(),
            "servers": options.servers,
            "clients": options.clients,
            "threads": options.threads,
            "payload_min": options.payload[0],
            "payload_max": options.payload[1],
            "oneway": options.oneway,
            "nested": options.nested,
            "files": options.files,
            "interval_ns": round(threads * 1e9 / options.rate) if options.rate else 0,
            "limit": options.transactions,
        }

    def _environment(self, facts: Facts) -> dict[str, str]:
        """Workers know the kernel's driver alone: where that is not enough they get the library."""
        if facts.has_mmap and (facts.injects or not self._options.files):
            return dict(os.environ)
        self._result.notes.append("the workers run with the library of binderctl run")
        return with_library(os.environ)

    def _find_manager(self, device: str) -> None:
        registry = self._crew.start(REGISTRY, 0, 1)
        assert registry.popen.stdout is not None
        answer = registry.popen.stdout.readline()
        if not answer:
            raise StressError(f"{device}: the workers cannot use it, see above")
        number = int(answer)
        if not number:
            self._progress.say(f"{device} has no context manager: stress is it")
            return
        if number not in {errno.EBUSY, errno.EPERM, errno.EACCES}:
            raise StressError(f"{device}: cannot become context manager: {os.strerror(number)}")
        for _ in self._crew.ended(_ASK_SECONDS):
            pass
        if number != errno.EBUSY:
            raise StressError(
                f"{device}: may not become its context manager ({os.strerror(number)}): only the "
                "user that was the first one may; use another device"
            )
        _check_manager(device)
        self._progress.say(f"{device} has a service manager: the servers are entered there")

    def _start_all(self, size: int) -> None:
        options, crew, board = self._options, self._crew, self._board
        patience = _READY_SECONDS + _READY_SECONDS_EACH * size
        for number in range(options.idle):
            stdout = crew.start(IDLE, number, 1).popen.stdout
            assert stdout is not None
            if not stdout.readline():
                raise StressError("an idle process does not start, see above")
        for number in range(board.servers):
            crew.start(SERVER, number, 1)
        self._until("every server is ready", patience, lambda: self._are_ready(SERVER))
        for number in range(board.servers, board.workers):
            crew.start(CLIENT, number, 1)
        self._until("every client is ready", patience, lambda: self._are_ready(CLIENT))
        self._progress.say(
            f"{options.clients} clients with {options.threads} threads each call "
            f"{options.servers} servers; beside them {options.idle} idle processes"
        )

    def _go(self, usage: Usage) -> None:
        board, seconds = self._board, self._options.seconds
        board.set("phase", RUNNING)
        usage.look()
        usage.cpu_start = usage.cpu
        start = last = time.monotonic()
        calls = 0
        while not self._failures and not self._signals:
            now = time.monotonic()
            if now - start >= seconds or self._is_limit_reached():
                break
            self._accidents.happen(now - start)
            self._tick(_TICK_SECONDS)
            if now - last >= 1:
                usage.look()
                done = board.get("done")
                self._show(now - start, done, (done - calls) / (now - last))
                calls, last = done, now
        self._result.seconds = time.monotonic() - start
        usage.look()

    def _is_limit_reached(self) -> bool:
        limit = self._options.transactions
        return bool(limit) and self._board.get("done") >= limit

    def _drain(self) -> None:
        """Let everything come to an end that is under way; nothing may be missing then."""
        board = self._board
        self._accidents.end()
        self._until(
            "the last processes that were killed are replaced",
            _READY_SECONDS,
            lambda: self._are_ready(SERVER) and self._are_ready(CLIENT),
        )
        board.set("phase", DRAINING)
        threads = self._options.threads
        clients = range(board.servers, board.workers)
        self._until(
            "every client comes to the end of its calls",
            self._options.patience,
            lambda: all(board.field(number, "idle") == threads for number in clients),
        )
        lives = {w.number: w.life for w in self._crew.of(SERVER, CLIENT)}
        if len(lives) < board.workers:
            return  # some have ended by themselves, which is a failure already
        self._settle(
            "every call arrives, once",
            lambda: list(
                audit.missing_calls(board.cells(), board.servers, self._options.threads, lives)
            ),
        )
        self._settle(
            "every death is told to all who asked, once",
            lambda: list(audit.missing_deaths(board.links(), lives, lives)),
        )

    def _end(self) -> None:
        """End everybody, in order; the servers hear of the end of the clients as of a death."""
        board, crew = self._board, self._crew
        lives = {w.number: w.life for w in crew.of(SERVER, CLIENT)}
        bad = self._end_role(CLIENT)
        if len(lives) == board.workers:
            servers = [w.number for w in crew.of(SERVER)]
            self._settle(
                "the end of every client is told to all servers",
                lambda: list(audit.missing_deaths(board.links(), lives, servers)),
            )
        bad += self._end_role(SERVER)
        self._result.check("all clients and servers end cleanly", not bad, _listed(bad))
        servers_seen = ((number, board.worker(number)) for number in range(board.servers))
        kept = [] if bad or self._failures else list(audit.open_files(servers_seen))
        self._result.check("no server has a file left that was sent to it", not kept, _listed(kept))

    def _end_role(self, role: str) -> list[str]:
        ended = self._crew.end(role, time.monotonic() + self._options.patience)
        return [self._how_it_ended(worker) for worker in ended if worker.popen.returncode]

    def _how_it_ended(self, worker: Worker) -> str:
        text = f"{worker.name}: {_status(worker)}"
        if worker.role in {SERVER, CLIENT} and (why := self._board.complaint(worker.number)):
            text += f" ({why})"
        return text

    def _collect(self) -> None:
        board, result = self._board, self._result
        workers = [board.worker(number) for number in range(board.workers)]
        identity = {"pid", "life", "ready", "idle", "pool", "files_at_start", "files_at_end"}
        for name in board.layout.worker:
            if name not in identity:
                result.totals[name] = audit.faults(workers, name)
        complaints = [text for n in range(board.workers) if (text := board.complaint(n))]
        for name, what in audit.FAULTS.items():
            count = audit.faults(workers, name)
            found = f"{count}: {_listed(complaints)}" if count else ""
            result.check(f"no {what}", not count, found)
        result.check("no process ends by itself", not self._failures, _listed(self._failures))
        counts = [board.counts(kind) for kind in range(board.layout.kinds)]
        for name, each in zip(KINDS, counts, strict=True):
            result.latencies[name] = read_counts(board.layout, [each])
        result.latencies[ALL] = read_counts(board.layout, counts)
        result.accidents = dict(self._accidents.counts)
        result.check("there were calls", result.calls > 0)

    # The driver

    def _check_driver(
        self, logs: Logs, before: dict[str, int], pids: set[int], *, is_own: bool
    ) -> None:
        what = "nothing is left in the driver"
        if not before:
            self._result.notes.append(f"{what}? It could not be asked: no readable binder_logs")
            return
        deadline = time.monotonic() + self._options.patience
        while True:
            after = logs.counts()
            more = audit.leftovers(before, after)
            ours = logs.processes() & pids
            if not (more or ours) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if not after:
            self._result.check(what, False, f"{logs.place} cannot be read any more")
            return
        others = before.get("proc", 0) and not is_own
        if more and not ours and others:
            self._result.notes.append(f"the driver has more of {more}: others use it as well")
            more = {}
        found = ", ".join(f"{count} {kind}" for kind, count in more.items())
        self._result.check(what, not more and not ours, found or f"as before, by {logs.place}")

    def _note_daemon(self, facts: Facts, usage: Usage) -> None:
        if not facts.daemon:
            return
        usage.memory = usage.memory_start if not usage.memory else usage.memory
        seconds, calls = self._result.seconds, self._result.calls
        spent = usage.seconds
        self._result.daemon = {
            "pid": facts.daemon,
            "cpu_seconds": round(spent, 3),
            "cpu_percent": 100 * spent / seconds if seconds else 0.0,
            "cpu_us_per_call": 1e6 * spent / calls if calls else 0.0,
            "memory_start": usage.memory_start,
            "memory_max": usage.memory_max,
            "memory_end": usage.memory,
        }

    # Helpers

    def _tick(self, seconds: float) -> None:
        """Wait a little, and see to processes that have ended."""
        for worker in self._crew.ended(seconds):
            if not worker.was_killed:
                if worker.role != REGISTRY or worker.popen.returncode:
                    self._failures.append(self._how_it_ended(worker))
            elif worker.role in {SERVER, CLIENT}:
                self._board.clear(worker.number, "ready")
                self._crew.start(worker.role, worker.number, worker.life + 1)

    def _until(self, what: str, seconds: float, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not holds() and not self._failures and time.monotonic() < deadline:
            self._tick(_TICK_SECONDS)
        if not self._failures:
            self._result.check(what, holds())

    def _settle(self, what: str, missing: Callable[[], list[str]]) -> None:
        """Check that nothing is missing, soon."""
        deadline = time.monotonic() + self._options.patience
        while (left := missing()) and not self._failures and time.monotonic() < deadline:
            self._tick(0.05)
        self._result.check(what, not left, _listed(left))

    def _are_ready(self, role: str) -> bool:
        board = self._board
        count = board.servers if role == SERVER else board.clients
        workers = self._crew.of(role)
        return len(workers) == count and all(
            board.field(w.number, "ready") == w.life and not w.was_killed for w in workers
        )

    def _show(self, seconds: float, calls: int, rate: float) -> None:
        board, counts = self._board, self._accidents.counts
        workers = range(board.workers)
        refused = sum(board.field(number, "no_room") for number in workers)
        faults = sum(board.field(number, name) for number in workers for name in audit.FAULTS)
        extra = f"refused {refused:,}  killed {counts['killed']}  faults {faults}"
        self._progress.show(progress_text(self._options, seconds, calls, rate, extra))

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {
            number: signal.signal(number, self._handle_signal) for number in _ENDING_SIGNALS
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
        self._progress.say(f"{signal.Signals(number).name}: ending; once more ends it at once")


def _ask(device: str) -> Facts:
    fd = open_device(device)
    try:
        return ask_device(fd, device)
    finally:
        close_device(fd)


def _check_manager(device: str) -> None:
    """Make sure that the context manager is a service manager, and that it answers."""
    outcome: list[BinderError | None] = []

    def ask() -> None:
        try:
            with Device(device, max_threads=0) as opened:
                ServiceManager(opened).list()
            outcome.append(None)
        except RemoteException:
            outcome.append(None)  # it may not tell everybody, but it is one
        except BinderError as error:
            outcome.append(error)

    # In a thread, as a manager that does not answer is not waited for.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ASK_SECONDS)
    if outcome and outcome[0] is None:
        return
    why = outcome[0] if outcome else "it does not answer"
    raise StressError(
        f"{device} has a context manager that is no service manager ({why}): give stress a device "
        "of its own, as --device DIRECTORY with binder-control in it, or one that nobody uses"
    )


def _status(worker: Worker) -> str:
    status = worker.popen.returncode
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _listed(found: list[str]) -> str:
    more = f"; and {len(found) - _SHOWN_MAX} more" if len(found) > _SHOWN_MAX else ""
    return "; ".join(found[:_SHOWN_MAX]) + more
