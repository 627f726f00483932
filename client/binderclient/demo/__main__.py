# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient.demo``: arguments to settings to stage, and the result to people."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

if __name__ == "__main__":  # Ctrl-C while the rest is loaded is no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from binderclient.demo.daemon import DaemonError, running_daemon, why_not
from binderclient.demo.report import Progress, checks_text, size_text, table_text
from binderclient.demo.stage import KILLED_CLIENTS, Outcome, Settings, Stage, start_manager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

DEFAULT_MOUNT: Final = "/dev/binderfs"
DEVICES: Final = ("binder", "hwbinder", "vndbinder")  # with --serve, as on Android
_END_SECONDS: Final = 10.0
_SERVING: Final = """\
{device} is there, with a service manager. Try:
  python -m binderclient --device {device} list
Ctrl-C ends it."""
_R = TypeVar("_R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status, 0 only if every check held."""
    chosen = _parse(arguments)
    missing = why_not()
    if missing is not None:
        print(f"demo: {missing}", file=sys.stderr)
        return 1
    try:
        if chosen.serve:
            return trio.run(_serve, chosen.mount or DEFAULT_MOUNT)
        return trio.run(_demo, chosen)
    except (DaemonError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m binderclient.demo",
        description="Shows binder at work: starts a daemon on a directory of its own, a service "
        "manager, two servers and many clients; checks every payload at both ends; kills two "
        "clients and a server in the middle; proves that nothing is left. Needs root.",
    )
    parser.add_argument("--seconds", type=int, default=10, help="how long (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the clients' dice (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="no demo: keep a daemon and a service manager for your own programs, until Ctrl-C",
    )
    parser.add_argument(
        "--mount", metavar="DIR", help=f"where; with --serve {DEFAULT_MOUNT}, else a new directory"
    )
    chosen = parser.parse_args(arguments)
    if chosen.seconds < 1:
        parser.error("--seconds: at least 1")
    if chosen.clients <= max(KILLED_CLIENTS) + 1:
        parser.error(f"--clients: at least {max(KILLED_CLIENTS) + 2}, as some of them are killed")
    return chosen


async def _demo(chosen: argparse.Namespace) -> int:
    mount = chosen.mount or tempfile.mkdtemp(prefix="binderd-demo-")
    try:
        outcome = await _until_signal(lambda: _play(mount, chosen))
    finally:
        if not chosen.mount:
            with suppress(OSError):  # something is in there that is not ours to remove
                os.rmdir(mount)
    if outcome is None:
        return 1
    print(_as_json(outcome) if chosen.json else _as_text(outcome))
    return 0 if all(check.held for check in outcome.checks) else 1


async def _play(mount: str, chosen: argparse.Namespace) -> Outcome:
    progress = Progress()
    async with running_daemon(mount) as daemon:
        await daemon.wait_ready()
        progress.say(f"binderd serves {daemon.device}")
        settings = Settings(chosen.seconds, chosen.clients, chosen.seed)
        return await Stage(daemon, settings, progress).run()


async def _serve(mount: str) -> int:
    async def serve() -> None:
        async with running_daemon(mount, DEVICES) as daemon, trio.open_nursery() as nursery:
            await daemon.wait_ready()
            manager = await start_manager(daemon, nursery)
            try:
                print(_SERVING.format(device=daemon.device), file=sys.stderr)
                await daemon.ended.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await manager.end(_END_SECONDS, signal.SIGTERM)
                    await manager.aclose()
            raise DaemonError("\n".join(daemon.said))

    await _until_signal(serve)
    return 0


async def _until_signal(action: Callable[[], Awaitable[_R]]) -> _R | None:
    """Do something until it is done or SIGINT or SIGTERM comes; None if that was earlier.

    Raises:
        DaemonError: what failed, or what the system has refused.
    """
    result: _R | None = None
    failures: list[BaseException] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
                result = await action()
                nursery.cancel_scope.cancel()
        except* (DaemonError, OSError) as errors:
            failures.extend(_leaves(errors))
    if failures:
        raise DaemonError("\n".join(map(str, failures)))
    return result


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        print(f"demo: {signal.Signals(number).name}: stopping everything", file=sys.stderr)
        scope.cancel()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _as_text(outcome: Outcome) -> str:
    tally = outcome.tally
    rate = tally.calls / outcome.seconds
    total = (
        f"{tally.calls:,} calls ({rate:,.0f}/s), {size_text(tally.bytes)}, "
        f"{tally.total('deaths')} deaths told to clients, {len(tally.errors)} errors"
    )
    table = table_text(tally.rows(outcome.seconds))
    return f"\n{table}\n\n{total}\n\n{checks_text(outcome.checks)}"


def _as_json(outcome: Outcome) -> str:
    tally = outcome.tally
    return json.dumps(
        {
            "seconds": round(outcome.seconds, 3),
            "calls": tally.calls,
            "bytes": tally.bytes,
            "deaths": tally.total("deaths"),
            "errors": tally.errors,
            "rows": [row._asdict() for row in tally.rows(outcome.seconds)],
            "checks": [check._asdict() for check in outcome.checks],
            "passed": all(check.held for check in outcome.checks),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
