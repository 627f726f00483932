# SPDX-License-Identifier: Apache-2.0
"""One round: every system that was started, in each way in which it is measured.

In every round all systems are measured one after the other, so that a disturbance hits all columns.
The long-lived processes of the others idle meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from bench.errors import BenchError
from bench.processes import confine, family, memory_kib, running, wait_for_line
from bench.results import ROLES, Crowd, Load, Results, Sample
from bench.systems import BY_NAME, FLOOR_SIZE, SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.systems import Peer

CLIENTS: Final = 8  # at once
SMALL: Final = 16  # bytes: what many clients send, and what is sent beside idle processes
CLIENT_SECONDS_EXTRA: Final = 30.0  # beyond its nominal time, before a client counts as stuck
TOGETHER_SECONDS: Final = 0.3  # from the start of the first client to when all are measured
CROWD_SECONDS_MAX: Final = 60.0


def measure(peer: Peer, size: int, seconds: float, *, pinned: bool) -> Sample:
    """One client run. The cores are the ones that `confine` set last."""
    roles, numbers = _others(peer)
    with running([*peer.calls[0], f"{size}", f"{seconds}"], environment=numbers) as client:
        said = _report(client, seconds, f"{peer.name} at {size} bytes")
    calls = said["calls"]
    # What a client has started by itself, the other side of a socket for example, comes last.
    cpu_us = dict.fromkeys(ROLES, 0.0)
    for role, spent_us in zip(["client", *roles], said["cpu_us"], strict=False):
        cpu_us[role] += spent_us / calls
    cpu_us["server"] += sum(said["cpu_us"][1 + len(roles) :]) / calls
    return Sample(
        peer.name,
        said["size"],
        pinned,
        calls,
        said["p50_us"],
        said["p99_us"],
        said["mean_us"],
        said["calls_per_s"],
        _rounded(cpu_us),
    )


def measure_load(peer: Peer, seconds: float, *, pinned: bool) -> Load:
    """Many clients at once, which share the servers; all are measured in the same span."""
    roles, numbers = _others(peer)
    begin_us = time.monotonic() * 1e6 + TOGETHER_SECONDS * 1e6
    numbers["BENCH_BEGIN_US"] = f"{begin_us:.0f}"
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                running(
                    [*peer.calls[number % len(peer.calls)], f"{SMALL}", f"{seconds}"],
                    environment=numbers,
                )
            )
            for number in range(CLIENTS)
        ]
        said = [_report(client, seconds, f"one of many on {peer.name}") for client in clients]
    calls_per_s = sum(one["calls"] / one["span_us"] * 1e6 for one in said)
    cpu_us = dict.fromkeys(ROLES, 0.0)
    cpu_us["client"] = sum(one["cpu_us"][0] for one in said) / sum(one["calls"] for one in said)
    # Each client saw the same daemon, in a span that is its own by a call or so.
    for place, role in enumerate(roles, 1):
        busy = statistics.fmean(one["cpu_us"][place] / one["span_us"] for one in said)
        cpu_us[role] += busy * 1e6 / calls_per_s
    p50_us, p99_us = (statistics.median(one[key] for one in said) for key in ("p50_us", "p99_us"))
    return Load(
        peer.name,
        CLIENTS,
        len(peer.calls),
        pinned,
        round(calls_per_s, 1),
        p50_us,
        p99_us,
        _rounded(cpu_us),
    )


def measure_crowd(peer: Peer, processes: int, seconds: float) -> Crowd:
    """Calls without idle processes, beside them, and without them again."""

    def call_us() -> float:
        return measure(peer, SMALL, seconds, pinned=True).p50_us

    before_us = call_us()
    before_kib = memory_kib(peer.daemons)
    with running([*peer.idle, f"{processes}"]) as crowd:
        wait_for_line(crowd, f"the crowd on {peer.name}", CROWD_SECONDS_MAX)
        kib = (memory_kib(peer.daemons) - before_kib) / processes
        beside_us = call_us()
        members = family(crowd.pid)
    _wait_for_end(members)
    alone_us = (before_us + call_us()) / 2
    return Crowd(peer.name, processes, round(kib, 2), round(alone_us, 3), beside_us)


def run_round(
    peers: list[Peer],
    parts: Iterable[str],
    seconds: float,
    processes: int,
    cpus: set[int],
    results: Results,
) -> None:
    """Every system in every way, on one core and on all; the systems alternate inside a size.

    Args:
        peers: in the order in which they are measured.
        parts: keys of PARTS.
        seconds: of each measurement.
        processes: how many idle ones.
        cpus: those that may be used.
        results: where everything is added to.
    """
    daemons = [pid for peer in peers for pid in (*peer.daemons, *peer.servers)]
    for pinned in (True, False):
        confine(daemons, {min(cpus)} if pinned else cpus)
        for part in parts:
            PARTS[part](peers, seconds, processes, pinned, results)


def _calls(
    peers: list[Peer], seconds: float, _processes: int, pinned: bool, results: Results
) -> None:
    for size in (*SIZES, FLOOR_SIZE):
        for peer in peers:
            if size in BY_NAME[peer.name].sizes:
                results.samples.append(measure(peer, size, seconds, pinned=pinned))


def _load(
    peers: list[Peer], seconds: float, _processes: int, pinned: bool, results: Results
) -> None:
    for peer in peers:
        if BY_NAME[peer.name].is_loaded:
            results.loads.append(measure_load(peer, seconds, pinned=pinned))


def _idle(
    peers: list[Peer], seconds: float, processes: int, pinned: bool, results: Results
) -> None:
    for peer in peers:
        if pinned and BY_NAME[peer.name].is_loaded:
            results.crowds.append(measure_crowd(peer, processes, seconds))


PARTS: Final[dict[str, Callable[[list[Peer], float, int, bool, Results], None]]] = {
    "calls": _calls,
    "load": _load,
    "idle": _idle,
}


def _others(peer: Peer) -> tuple[list[str], dict[str, str]]:
    """The roles of processes whose processor time a client is to look at, and their numbers."""
    found = [("daemon", member) for pid in peer.daemons for member in family(pid)]
    found += [("server", pid) for pid in peer.servers]
    numbers = " ".join(str(pid) for _, pid in found)
    return [role for role, _ in found], {"BENCH_PROCESSES": numbers}


def _rounded(cpu_us: dict[str, float]) -> dict[str, float]:
    """To nanoseconds, which is more than the clocks mean."""
    return {role: round(spent_us, 3) for role, spent_us in cpu_us.items()}


def _report(client: subprocess.Popen[bytes], seconds: float, who: str) -> dict[str, Any]:
    """What a client says in the end."""
    try:
        output, _ = client.communicate(timeout=2 * seconds + CLIENT_SECONDS_EXTRA)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{who} does not come to an end") from None
    if client.returncode != 0:
        raise BenchError(f"{who} failed (status {client.returncode})")
    said: dict[str, Any] = json.loads(output)
    return said


def _wait_for_end(pids: Iterable[int]) -> None:
    """Until none of the processes is left."""
    give_up = time.monotonic() + CROWD_SECONDS_MAX
    for pid in pids:
        while os.path.exists(f"/proc/{pid}"):
            if time.monotonic() > give_up:
                raise BenchError("idle processes do not come to an end")
            time.sleep(0.01)
