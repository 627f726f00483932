# SPDX-License-Identifier: Apache-2.0
"""``python -m binderclient.demo``: arguments to settings to stage, and the result to people."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys

if __name__ == "__main__":  # Ctrl-C while the rest is loaded is no traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from binderclient import tool
from binderclient.demo.daemon import DaemonError, running_daemon, why_not
from binderclient.demo.report import Progress, checks_text, size_text, table_text
from binderclient.demo.stage import KILLED_CLIENTS, Outcome, Settings, Stage, start_manager

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

DEFAULT_MOUNT: Final = "/dev/binderfs"  # where binderctl looks
USERS_MOUNT: Final = "~/binder"
DEVICES: Final = ("binder", "hwbinder", "vndbinder")  # with --serve, as on Android
_END_SECONDS: Final = 10.0
CLIENTS_MAX: Final = 256  # each is a Python process of its own
SECONDS_MAX: Final = 24 * 3600
_EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"  # only in a checkout
_R = TypeVar("_R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status, 0 only if every check held."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words
    return tool.guarded(lambda: _main(words, as_json=as_json), as_json=as_json)


def _main(words: Sequence[str], *, as_json: bool) -> int:
    chosen = _parse(words, as_json=as_json)
    missing = why_not()
    if missing is not None:
        tool.complain(missing, as_json=as_json)
        return tool.FAILED
    if chosen.serve:
        return trio.run(_serve, chosen.mount or _default_mount())
    return trio.run(_demo, chosen)


def _parse(arguments: Sequence[str], *, as_json: bool) -> argparse.Namespace:
    parser = tool.Parser(
        as_json=as_json,
        prog=tool.program_name(),
        description="Shows binder at work: starts a daemon on a directory of its own, a service\n"
        "manager, two servers and many clients; checks every payload at both ends; kills two\n"
        "clients and a server in the middle; proves that nothing is left. Takes root or\n"
        "fusermount3.",
    )

    def number(name: str, default: int, lowest: int, highest: int, text: str) -> None:
        text = f"{text}, {lowest} to {highest} (%(default)s)"
        kind = tool.whole_number(lowest, highest)
        parser.add_argument(name, type=kind, default=default, metavar="N", help=text)

    number("--seconds", 10, 1, SECONDS_MAX, "how long")
    # Some of the clients are killed, and some must live on.
    number("--clients", 8, max(KILLED_CLIENTS) + 2, CLIENTS_MAX, "how many")
    number("--seed", 0, 0, tool.U32_MAX, "of the clients' dice")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="no demo: keep a daemon and a service manager for your own programs, until Ctrl-C",
    )
    parser.add_argument(
        "--mount",
        metavar="DIR",
        type=lambda text: os.path.abspath(tool.path(text)),
        help=f"where; with --serve {DEFAULT_MOUNT} or, without root, {USERS_MOUNT}; "
        "else a new directory",
    )
    return parser.parse_args(arguments)


def _default_mount() -> str:
    return DEFAULT_MOUNT if os.geteuid() == 0 else os.path.expanduser(USERS_MOUNT)


async def _demo(chosen: argparse.Namespace) -> int:
    mount = chosen.mount or tempfile.mkdtemp(prefix="binderd-demo-")
    ending = Ending[Outcome](as_json=chosen.json)
    try:
        await ending.reach(lambda: _play(mount, chosen))
    finally:
        if not chosen.mount:
            with suppress(OSError):  # something is in there that is not ours to remove
                os.rmdir(mount)
    outcome = ending.result
    if outcome is None:
        return ending.status
    tool.show(_as_json(outcome) if chosen.json else _as_text(outcome))
    return 0 if all(check.held for check in outcome.checks) else tool.FAILED


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
                tool.say(_serving_text(daemon.device))
                await daemon.ended.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await manager.end(_END_SECONDS, signal.SIGTERM)
                    await manager.aclose()
            raise DaemonError("\n".join(daemon.said))

    ending = Ending[None]()
    await ending.reach(serve)
    return 0 if ending.signal else ending.status  # a signal is how it is meant to end


def _serving_text(device: str) -> str:
    """Return what to do with a device, in commands that work where the user is."""
    binderctl = Path(sys.executable).with_name("binderctl")
    if shutil.which("binderctl") == str(binderctl):
        command = "binderctl"
    elif binderctl.exists():
        command = _from_here(binderctl)
    else:
        command = f"{_from_here(Path(sys.executable))} -m binderclient"
    is_default = device == f"{DEFAULT_MOUNT}/{DEVICES[0]}"
    command += "" if is_default else f" --device {shlex.quote(device)}"
    lines = [f"  cd {shlex.quote(str(Path.cwd()))}"]
    service = _EXAMPLES / "echo_service.py"
    if service.exists():
        words = [_from_here(Path(sys.executable)), _from_here(service)]
        words += [] if is_default else [shlex.quote(device)]
        lines.append(f"  {' '.join(words)} &")
        lines.append(f"  {command} wait org.example.echo")
        lines.append(f"  {command} call org.example.echo 1 s16 hello")
    lines.append(f"  {command} list")
    return "\n".join(
        [
            f"{device} is there, with a service manager. Try in another terminal:",
            *lines,
            "Ctrl-C here ends it.",
        ]
    )


def _from_here(path: Path) -> str:
    """Return a path as short as it can be typed in the current directory."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


class Ending(Generic[_R]):
    """How something ends: with a result, with a signal, or because the daemon fails.

    Args:
        as_json: how to say why the daemon failed.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.result: _R | None = None
        self.signal = 0
        self._as_json = as_json

    @property
    def status(self) -> int:
        """The exit status of what has no result."""
        return 128 + self.signal if self.signal else tool.FAILED

    async def reach(self, action: Callable[[], Awaitable[_R]]) -> None:
        """Do something until it is done, SIGINT or SIGTERM comes, or the daemon fails, which is
        said.
        """
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_on, signals, nursery.cancel_scope)
                    self.result = await action()
                    nursery.cancel_scope.cancel()
            except* (DaemonError, OSError) as errors:
                text = "\n".join(map(str, _leaves(errors)))
                tool.complain(text, as_json=self._as_json)

    async def _cancel_on(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            tool.say(f"demo: {signal.Signals(number).name}: stopping everything")
            self.signal = number
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
        f"{tally.total('deaths')} deaths told to clients, {tally.total('refused')} calls refused "
        f"for lack of room and sent again, {len(tally.errors)} errors"
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
            "refused": tally.total("refused"),
            "errors": tally.errors,
            "rows": [row._asdict() for row in tally.rows(outcome.seconds)],
            "checks": [check._asdict() for check in outcome.checks],
            "passed": all(check.held for check in outcome.checks),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
