# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``binderctl stress``: what they mean, and the bounds of each. Pure."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PAYLOAD_MAX: Final = 1 << 20  # bytes: four of them fit into the largest receive area
DURATION_SECONDS: Final = 10.0  # unless something else ends it
_DURATION_MAX: Final = 30 * 86400.0
_PAIRS_MAX: Final = 4_000_000  # client threads times servers: each has an entry on the board
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_QUOTED_MAX: Final = 60  # characters

DESCRIPTION: Final = """\
Loads a binder device with servers and clients, kills, stops and freezes them if told to, and checks
everything: payloads at both ends, the order of one-way calls, that no call is lost or doubled, that
every death is told to everybody who asked, and that nothing is left in the driver. Works on any
binder device: FUSE, CUSE, Linux's own.

Without --device it takes the usual one, {device}; as root it rather adds a device of
its own beside that, through binder-control, and removes it in the end. Where a device has no
context manager it becomes that; else it finds its servers through the service manager there."""

EPILOG: Final = """\
examples:
  %(prog)s                                      ten seconds, 2 servers, 8 clients
  %(prog)s --kill 2 --stop --freeze             the same, with accidents
  %(prog)s --servers 50 --clients 150 --transactions 10M --kill 1
  %(prog)s --rate 5000 --histogram latency.svg  how long calls take at 5000 a second
  %(prog)s --payload 0 --oneway 0 --nested 0 --files 0 --idle 1000
  %(prog)s --device /dev/hwbinder --duration 1h --json

Payload sizes are spread over their range so that each doubling is as likely as the next. With
--rate the time of a call counts from when it was due, so that waiting in line counts as well.
The same --seed gives the same calls and accidents; when they happen to meet is up to the machine.
What the driver refuses for lack of room is sent again later, and counted.

exit status: 0 if every check held, 1 if one did not or it could not be run, 2 wrong arguments.
SIGINT or SIGTERM end it early, with all checks; a second one at once."""


@dataclass(frozen=True)
class Options:
    """The arguments of one test."""

    device: str | None = None
    clients: int = 8
    servers: int = 2
    threads: int = 2
    idle: int = 0
    payload: tuple[int, int] = (0, 16 << 10)  # bytes
    oneway: int = 25  # percent
    nested: int = 5
    files: int = 1
    rate: float = 0.0  # calls a second, 0: as many as possible
    duration: float | None = None  # seconds
    transactions: int = 0  # 0: no such limit
    seed: int = 1
    patience: float = 60.0  # seconds
    kill: float = 0.0  # a second
    stop: float = 0.0
    freeze: float = 0.0
    json: bool = False
    histogram: str | None = None
    worker: str | None = None

    @property
    def seconds(self) -> float:
        """How many seconds calls are made at most."""
        if self.duration is not None:
            return self.duration
        return math.inf if self.transactions else DURATION_SECONDS

    def complaint(self) -> str | None:
        """Return what is wrong with all of it together, None if nothing is."""
        if self.oneway + self.nested + self.files > 100:
            return "--oneway, --nested and --files are more than 100 % together"
        if self.clients * self.threads * self.servers > _PAIRS_MAX:
            return f"--clients x --threads x --servers is more than {_PAIRS_MAX}"
        return None


# Types of arguments


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_MAX else f"{text[:_QUOTED_MAX]}…")


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """Return an argument type: whole numbers in a range; ``10M`` is ten million."""
    thousands = {"": 1, "K": 1000, "M": 1000_000, "G": 1000_000_000}

    def convert(text: str) -> int:
        match = re.fullmatch(r"(\d{1,19})([KMG]?)", text, re.ASCII)
        number = int(match[1]) * thousands[match[2]] if match else -1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(
                f"{_quoted(text)} is no whole number from {lowest} to {highest}"
            )
        return number

    return convert


def per_second(highest: float) -> Callable[[str], float]:
    """Return an argument type: how often in a second, from 0 on."""

    def convert(text: str) -> float:
        match = re.fullmatch(r"(\d{1,12}(\.\d{1,12})?)(/s)?", text, re.ASCII)
        number = float(match[1]) if match else -1.0
        if not 0 <= number <= highest:
            raise argparse.ArgumentTypeError(
                f"{_quoted(text)} is no number from 0 to {highest:g}, of times in a second"
            )
        return number

    return convert


def size(text: str) -> int:
    """Argument type: a size in bytes, such as 100, 64K or 1M."""
    match = re.fullmatch(r"(\d{1,12})([KMG]?)i?B?", text, re.ASCII)
    number = int(match[1]) * _UNITS[match[2]] if match else -1
    if not 0 <= number <= PAYLOAD_MAX:
        raise argparse.ArgumentTypeError(
            f"{_quoted(text)} is no size from 0 to 1M, such as 100 or 64K"
        )
    return number


def sizes(text: str) -> tuple[int, int]:
    """Argument type: a size, or two with a colon between them."""
    first, colon, second = text.partition(":")
    low = size(first)
    high = size(second) if colon else low
    if low > high:
        raise argparse.ArgumentTypeError(f"{_quoted(text)}: the smaller size comes first")
    return low, high


def seconds(text: str) -> float:
    """Argument type: a time above 0, such as 10, 10s, 5m or 1h."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh]?)", text, re.ASCII)
    number = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < number <= _DURATION_MAX:
        raise argparse.ArgumentTypeError(
            f"{_quoted(text)} is no time above 0 and up to 30 days, such as 10s, 5m or 1h"
        )
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all of them, with the defaults of ``Options``."""
    defaults = Options()

    def add(name: str, metavar: str, kind: Callable[[str], Any], text: str, **more: Any) -> None:  # noqa: ANN401
        default = getattr(defaults, name)
        shown = " (%(default)s)" if default is not None and not text.endswith(")") else ""
        parser.add_argument(
            f"--{name}", metavar=metavar, type=kind, default=default, help=text + shown, **more
        )

    text = "a device, or a directory with binder-control: for a device of its own (root)"
    # Not "device": that is what comes before the command, with a default of its own.
    parser.add_argument("--device", dest="stress_device", metavar="PATH", help=text)
    add("clients", "N", whole(1, 2000), "processes that call")
    add("servers", "N", whole(1, 500), "processes that answer")
    add("threads", "N", whole(1, 64), "threads of each: callers, and at most so many that serve")
    add("idle", "N", whole(0, 4000), "processes that have the device open and wait")
    add("payload", "A[:B]", sizes, "bytes of each call and reply, at most 1M (0:16K)")
    percent = whole(0, 100)
    add("oneway", "PERCENT", percent, "share of one-way calls")
    add("nested", "PERCENT", percent, "share of calls during which the server calls back")
    add("files", "PERCENT", percent, "share of calls with a file descriptor")
    add("rate", "CALLS/S", per_second(1e7), "calls a second, of all clients; 0: as many as go")
    text = "how long to wait in the end for what is missing (60s)"
    add("patience", "T", seconds, text)
    text = f"how long, such as 10s, 5m, 1h ({DURATION_SECONDS:g}s; without end if --transactions)"
    add("duration", "T", seconds, text)
    add("transactions", "N", whole(0, 10**15), "end after so many calls; 0: no limit")
    add("seed", "N", whole(0, 2**62), "of all dice")
    often = per_second(1000)
    add("kill", "N/S", often, "processes killed and replaced in a second")
    once = {"nargs": "?", "const": 1.0}
    add("stop", "N/S", often, "processes stopped and continued (SIGSTOP) in a second", **once)
    add("freeze", "N/S", often, "servers frozen and thawed (BINDER_FREEZE) in a second", **once)
    add("histogram", "FILE.svg", str, "draw the latencies into this file")
    add("worker", "FILE", str, "another build of the program that does the work")
    # Here, too: it is what people expect. The one before the command counts as well.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON"
    )


def from_namespace(chosen: argparse.Namespace, default_device: str) -> Options:
    """Return what was chosen; a device that was named before the command counts, too."""
    values = {name: getattr(chosen, name) for name in Options.__dataclass_fields__}
    values["device"] = chosen.stress_device
    if chosen.stress_device is None and chosen.device != default_device:
        values["device"] = chosen.device
    return Options(**values)
