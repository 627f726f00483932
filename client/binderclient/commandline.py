# SPDX-License-Identifier: Apache-2.0
"""The command lines of ``binderctl`` (or ``python -m binderclient``) and of the service manager.

Arguments in, text or JSON out, exit status: 0 done, 1 it could not be done (one line on stderr says
why), 2 the arguments are wrong. ``run`` becomes another program.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from binderclient.blocking import DEFAULT_PATH, Device
from binderclient.errors import BinderError
from binderclient.notify import notify
from binderclient.parcel import Parcel
from binderclient.preload import RunError, library_path, run
from binderclient.servicemanager import ServiceManager, ServiceManagerService
from binderclient.version import add_version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderclient.objects import Proxy

_DESCRIPTION: Final = """\
Looks around on a binder device, calls what it finds there, and starts programs that were written
for Linux's own driver."""

_EPILOG: Final = """\
examples:
  python -m binderclient.servicemanager &    services are found through this one
  %(prog)s list                      what is there
  %(prog)s wait org.example.echo     ... until it is there
  %(prog)s call org.example.echo 1 s16 hello i32 42
  %(prog)s --device /dev/binderfs/hwbinder --json list
  %(prog)s run -- ./service_manager /dev/binderfs/binder

arguments of call, each a type and a value:
  i32 N  i64 N  f X  d X  bool true|false  s16 TEXT  s8 TEXT  hex BYTES  null
Requests start with the token of the interface that the service says it has, as those of services
generated from AIDL must; --raw leaves it out."""

_RUN_DESCRIPTION: Final = """\
Starts a program with libbinderd-preload.so: for programs that were written for Linux's own driver
and cannot be changed. With it

  - mmap of a device works where the kernel has none: on CUSE, and on FUSE before Linux 6.9
  - ioctl(fd, BINDER_SET_CONTEXT_MGR, 0) and other arguments of 0 work on FUSE
  - descriptors arrive without the program being stopped for it by ptrace
  - threads that end are reported at once (BINDER_THREAD_EXIT)

Files that are not binderd's, Linux's own driver included, are left alone. Programs that are
statically linked, or that gain privileges when they start, cannot be helped: there is a warning."""

_RUN_EPILOG: Final = """\
examples:
  %(prog)s -- ./service_manager /dev/binder
  LD_PRELOAD=libother.so %(prog)s -- PROGRAM      both are loaded, this one first

It is the same as LD_PRELOAD=LIBRARY PROGRAM ARGUMENT...; "%(prog)s --library" prints LIBRARY.
exit status: the program's; 127 no such program, 126 it cannot be executed, 1 there is no library"""


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


# Type -> how its text is read, and the method of Parcel that writes it.
_TYPES: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "i32": (lambda text: int(text, 0), "write_int32"),
    "i64": (lambda text: int(text, 0), "write_int64"),
    "f": (float, "write_float"),
    "d": (float, "write_double"),
    "bool": (_truth, "write_bool"),
    "s16": (str, "write_string16"),
    "s8": (str, "write_string8"),
    "hex": (bytes.fromhex, "write_bytes"),
}


class _UsageError(Exception):
    """The arguments of ``call`` make no request."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``binderctl``; returns the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command is not None:
            return _run(chosen)
        with Device(chosen.device) as device:
            result: Any = chosen.run(ServiceManager(device), chosen)
    except RunError as error:
        print(f"binderctl: {error}", file=sys.stderr)
        return error.status
    except _UsageError as error:
        parser.error(str(error))
    except BinderError as error:
        print(f"binderclient: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(result) if chosen.json else _as_text(result))
    return 0


def serve_manager(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m binderclient.servicemanager``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m binderclient.servicemanager",
        description="Serves the service manager of a binder device in the foreground, until "
        "SIGTERM or SIGINT. Says on stderr, and through $NOTIFY_SOCKET, when it is ready.",
    )
    parser.add_argument("--device", default=DEFAULT_PATH, help="default: %(default)s")
    add_version(parser)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, format="servicemanager: %(message)s")
    try:
        with Device(chosen.device, max_threads=0) as device:
            device.become_context_manager(ServiceManagerService())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda _number, _frame: device.stop())
            print(f"servicemanager: ready on {chosen.device}", file=sys.stderr, flush=True)
            notify("READY=1", f"STATUS=Serving {chosen.device}")
            device.join_thread_pool()
            notify("STOPPING=1")
    except BinderError as error:
        print(f"servicemanager: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    called = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog=called if called == "binderctl" else "python -m binderclient",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", metavar="PATH", default=DEFAULT_PATH, help="%(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_version(parser)
    parser.set_defaults(command=None)  # of run
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., object], text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        # Also behind the command, which is where people put them.
        hidden = argparse.SUPPRESS
        found.add_argument("--device", metavar="PATH", default=hidden, help=hidden)
        found.add_argument("--json", action="store_true", default=hidden, help=hidden)
        found.set_defaults(run=run)
        return found

    command("list", _list, "print the names of all services")
    checking = command("check", _check, "say whether a service is there, and its interface")
    pinging = command("ping", _ping, "make a service answer")
    waiting = command("wait", _wait, "wait until a service is there")
    calling = command("call", _call, "send a request and print the reply")
    for each in (checking, pinging, waiting, calling):
        each.add_argument("name", metavar="NAME")
    waiting.add_argument("--timeout", metavar="SECONDS", type=float, help="default: for ever")
    calling.add_argument("--raw", action="store_true", help="no interface token")
    calling.add_argument("--oneway", action="store_true", help="do not wait for a reply")
    calling.add_argument("code", metavar="CODE", type=lambda text: int(text, 0))
    calling.add_argument("values", metavar="TYPE VALUE", nargs="*", help="see --help of all")
    _add_run(commands)
    return parser


def _add_run(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type
    running = commands.add_parser(
        "run",
        help="start a program that was written for Linux's own driver",
        usage="%(prog)s [--library] [--] PROGRAM [ARGUMENT ...]",
        description=_RUN_DESCRIPTION,
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument("--library", action="store_true", help="print where the library is")
    # Everything from the program's name on is the program's.
    running.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    running.set_defaults(parser=running)


def _run(chosen: argparse.Namespace) -> int:
    words = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if chosen.library:
        print(library_path())
        return 0
    if not words:
        chosen.parser.error("which program?")
    return run(words)


# Commands: each returns what is to be printed


def _list(manager: ServiceManager, _chosen: argparse.Namespace) -> list[str]:
    return manager.list()


def _check(manager: ServiceManager, chosen: argparse.Namespace) -> dict[str, object]:
    return _describe(chosen.name, manager.get(chosen.name))


def _wait(manager: ServiceManager, chosen: argparse.Namespace) -> dict[str, object]:
    return _describe(chosen.name, manager.wait(chosen.name, chosen.timeout))


def _ping(manager: ServiceManager, chosen: argparse.Namespace) -> dict[str, object]:
    manager.get(chosen.name).ping()
    return {"name": chosen.name, "alive": True}


def _call(manager: ServiceManager, chosen: argparse.Namespace) -> dict[str, object]:
    values = _values(chosen.values)
    service = manager.get(chosen.name)
    request = Parcel() if chosen.raw else Parcel.for_interface(service.interface())
    for method, value in values:
        getattr(request, method)(value)
    with service.call(chosen.code, request, oneway=chosen.oneway) as reply:
        return {"size": len(reply), "hex": bytes(reply).hex()}


def _describe(name: str, service: Proxy) -> dict[str, object]:
    return {"name": name, "interface": service.interface(), "handle": service.handle}


def _values(words: list[str]) -> list[tuple[str, Any]]:
    """Return (method of Parcel, value) for each argument of a call."""
    found: list[tuple[str, Any]] = []
    rest = iter(words)
    for kind in rest:
        if kind == "null":
            found.append(("write_strong_binder", None))
            continue
        if kind not in _TYPES:
            raise _UsageError(f"{kind!r} is no type: {', '.join(_TYPES)}, null")
        convert, method = _TYPES[kind]
        text = next(rest, None)
        if text is None:
            raise _UsageError(f"{kind} needs a value")
        try:
            found.append((method, convert(text)))
        except ValueError as error:
            raise _UsageError(f"{kind} {text}: {error}") from None
    return found


def _as_text(result: Any) -> str:  # noqa: ANN401 - what a command returned
    if isinstance(result, list):
        return "\n".join(result)
    if "hex" in result:
        return _dump(bytes.fromhex(result["hex"])) or "(an empty reply)"
    return "  ".join(f"{key}: {value}" for key, value in result.items())


def _dump(data: bytes) -> str:
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{offset:06x}  {row.hex(' ', 4):<35}  {shown}")
    return "\n".join(lines)
