# SPDX-License-Identifier: Apache-2.0
"""The command lines of ``binderctl`` (or ``python -m binderclient``) and of the service manager.

Arguments in, text or JSON out; ``tool`` has the exit statuses. ``run`` becomes another program.

A subcommand is a function that adds its parser to the others, named in ``_SUBCOMMANDS``, and sets
``start``: what does it, with the chosen arguments, and returns the exit status.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import signal
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from binderclient import stress, tool
from binderclient.blocking import DEFAULT_PATH, Device
from binderclient.errors import CallTimeout, DeadObject
from binderclient.notify import notify
from binderclient.objects import Proxy
from binderclient.parcel import Parcel
from binderclient.preload import RunError, library_path, run
from binderclient.private import command as private
from binderclient.servicemanager import ServiceManager, ServiceManagerService, ServiceNotFound
from binderclient.servicemanager.declared import Declared, parse_declared
from binderclient.servicemanager.hardware import SERVING_THREADS, HardwareServiceManager
from binderclient.servicemanager.hardware_client import HardwareManager, HardwareService
from binderclient.servicemanager.names import is_hidl_name, is_service_name
from binderclient.version import add_version
from binderwire.service_manager import DEFAULT_ANDROID, dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_Manager = ServiceManager | HardwareManager

_TIMEOUT_SECONDS: Final = 30.0
_SLICE_SECONDS: Final = 1.0  # of 'wait'
_GRACE_SECONDS: Final = 3.0  # for 'wait' to end by itself, and tell why

HIDL: Final = "hidl"
_LOOK_SECONDS: Final = 5.0  # between looks at the holders of lazy services

_ANDROID_HELP: Final = (
    "which Android the service manager is of: 8 to 16, its API level, or what libgbinder calls "
    "its protocol, aidl to aidl6; %(default)s. Older clients (8 to 10) are known by themselves. "
    f"'{HIDL}': android.hidl.manager, as clients of hwbinder expect it"
)

_DESCRIPTION: Final = """\
Looks around on a binder device, calls what it finds there, and starts programs that were written
for Linux's own driver."""

_EPILOG: Final = """\
examples:
  {manager} &    services are found through this one
  %(prog)s list                      what is there
  %(prog)s wait org.example.echo     ... until it is there
  %(prog)s call org.example.echo 1 s16 hello i32 42
  %(prog)s --device /dev/binderfs/hwbinder --android hidl --json list
  %(prog)s run -- ./service_manager /dev/binderfs/binder
  %(prog)s with -- make check        devices of its own for one program, gone with it
  %(prog)s stress --kill 2           many processes under load; see its --help

exit status: 0 done, 1 it could not be done, 2 the arguments are wrong, 130 interrupted.
With --json errors are JSON as well, on standard output: {{"error": "what is wrong"}}."""

_CALL_EPILOG: Final = """\
Each argument of the request is a type and a value; there may be none:
  i32 N  i64 N  f X  d X  bool true|false  s16 TEXT  s8 TEXT  hex BYTES  null
Before values that begin with "-" and are no plain numbers there must be a "--":
  %(prog)s org.example.echo 1 -- s16 -hello

Requests start with the token of the interface that the service says it has, as those of services
generated from AIDL must; --raw leaves it out."""

_RUN_DESCRIPTION: Final = """\
Starts a program with libbinderd-preload.so: for programs that were written for Linux's own driver
and cannot be changed. With it

  - mmap of a device works where the kernel has none: on CUSE, and on FUSE before Linux 6.9
  - ioctl(fd, BINDER_SET_CONTEXT_MGR, 0) and other arguments of 0 work on FUSE
  - descriptors arrive without the program being stopped for it by ptrace
  - threads that end are reported at once (BINDER_THREAD_EXIT)
  - small calls of threads that call often take two fifths less time, through memory that they
    share with binderd; BINDERCLIENT_LANES=0 in the environment switches that off

Files that are not binderd's, Linux's own driver included, are left alone. Programs that are
statically linked, or that gain privileges when they start, cannot be helped: there is a warning."""

_RUN_EPILOG: Final = """\
examples:
  %(prog)s -- ./service_manager /dev/binder
  LD_PRELOAD=libother.so %(prog)s -- PROGRAM      both are loaded, this one first

It is the same as LD_PRELOAD=LIBRARY PROGRAM ARGUMENT...; "%(prog)s --library" prints LIBRARY.
exit status: the program's; 127 no such program, 126 it cannot be executed, 1 there is no library"""


# Values of call


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("is neither true nor false")
    return text == "true"


def _whole(bits: int) -> Callable[[str], int]:
    return tool.whole_number(-(1 << bits - 1), (1 << bits - 1) - 1)


def _single(text: str) -> float:
    number = float(text)
    try:
        struct.pack("=f", number)
    except OverflowError:
        raise ValueError("is too large for 32 bits") from None
    return number


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    return text


# Type -> how its text is read, and the method of Parcel that writes it.
_TYPES: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "i32": (_whole(32), "write_int32"),
    "i64": (_whole(64), "write_int64"),
    "f": (_single, "write_float"),
    "d": (float, "write_double"),
    "bool": (_truth, "write_bool"),
    "s16": (_text, "write_string16"),
    "s8": (_text, "write_string8"),
    "hex": (bytes.fromhex, "write_bytes"),
}


class _Values(argparse.Action):
    """Turns the words behind CODE into (method of Parcel, value) for each argument of a call."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - as argparse has it
        _option: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, list(self._converted(iter(values))))

    def _converted(self, words: Iterator[str]) -> Iterator[tuple[str, Any]]:
        for kind in words:
            if kind == "null":
                yield "write_strong_binder", None
                continue
            if kind not in _TYPES:
                raise argparse.ArgumentError(
                    self, f"{tool.quoted(kind)} is no type: {', '.join(_TYPES)}, null"
                )
            convert, method = _TYPES[kind]
            text = next(words, None)
            if text is None:
                hint = "if it begins with '-', put '--' before the first type"
                raise argparse.ArgumentError(self, f"{kind} needs a value; {hint}")
            try:
                yield method, convert(text)
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentError(self, f"{kind}: {error}") from None
            except ValueError as error:
                raise argparse.ArgumentError(
                    self, f"{kind}: {tool.quoted(text)}: {error}"
                ) from None


def _service_name(text: str) -> str:
    if not is_service_name(text) and not is_hidl_name(text):
        raise argparse.ArgumentTypeError(
            f"{tool.quoted(text)} is no service name: 1 to 127 letters, digits, "
            "'_', '.', '-', '/', or of HIDL package@1.0::IInterface/instance"
        )
    return text


def _android(text: str) -> str:
    if text == HIDL:
        return text
    try:
        dialect_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _declared(text: str) -> Declared:
    try:
        return parse_declared(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# The parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``binderctl``; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words

    def act() -> int:
        chosen = _parser(as_json=as_json).parse_args(words)
        return int(chosen.start(chosen))

    return tool.guarded(act, as_json=as_json)


def _parser(*, as_json: bool) -> tool.Parser:
    program = tool.program_name()
    manager = "python -m binderclient.servicemanager"
    parser = tool.Parser(
        as_json=as_json,
        prog=program,
        description=_DESCRIPTION,
        epilog=_EPILOG.format(manager=manager),
    )
    _add_common(parser, hidden=False)
    add_version(parser)
    kind: Any = functools.partial(tool.Parser, as_json=as_json)  # argparse would say: a class
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=kind)
    for add in _SUBCOMMANDS:
        add(commands)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, hidden: bool) -> None:
    """Add what all commands take, also behind the command: that is where people put it."""

    def add(name: str, default: object, text: str, **options: Any) -> None:  # noqa: ANN401
        text, default = (argparse.SUPPRESS,) * 2 if hidden else (text, default)
        parser.add_argument(name, default=default, help=text, **options)

    add("--device", DEFAULT_PATH, "%(default)s", metavar="PATH", type=tool.path)
    add("--android", DEFAULT_ANDROID, _ANDROID_HELP, metavar="N", type=_android)
    add("--json", False, "print JSON", action="store_true")
    text = f"give up after so long; {_TIMEOUT_SECONDS:g}, 'infinity' for never"
    add("--timeout", _TIMEOUT_SECONDS, text, metavar="SECONDS", type=tool.seconds)


def _command(
    commands: Any,  # noqa: ANN401 - argparse does not name its type
    run: Callable[[_Manager, argparse.Namespace], object],
    text: str,
    **options: Any,  # noqa: ANN401
) -> argparse.ArgumentParser:
    """Add a command that asks the device's service manager, named like its function."""
    parser: argparse.ArgumentParser = commands.add_parser(
        run.__name__.strip("_"), help=text, description=text, **options
    )
    _add_common(parser, hidden=True)
    parser.set_defaults(start=lambda chosen: _ask(run, chosen))
    return parser


def _add_queries(commands: Any) -> None:  # noqa: ANN401
    _command(commands, _list, "print the names of all services")
    for query, text in (
        (_check, "say whether a service is there, and its interface"),
        (_ping, "make a service answer"),
        (_wait, "wait until a service is there, 30 s unless --timeout says otherwise"),
    ):
        each = _command(commands, query, text)
        each.add_argument("name", metavar="NAME", type=_service_name)


def _add_call(commands: Any) -> None:  # noqa: ANN401
    text = "send a request and print the reply"
    calling = _command(commands, _call, text, epilog=_CALL_EPILOG)
    calling.add_argument("--raw", action="store_true", help="no interface token")
    calling.add_argument("--oneway", action="store_true", help="do not wait for a reply")
    calling.add_argument("name", metavar="NAME", type=_service_name)
    code = tool.whole_number(0, tool.U32_MAX)
    calling.add_argument("code", metavar="CODE", type=code, help="which call")
    calling.add_argument("values", metavar="TYPE VALUE", nargs="*", action=_Values, default=[])


def _add_run(commands: Any) -> None:  # noqa: ANN401
    running = commands.add_parser(
        "run",
        as_json=False,
        help="start a program that was written for Linux's own driver",
        usage="%(prog)s [--library] [--] PROGRAM [ARGUMENT ...]",
        description=_RUN_DESCRIPTION,
        epilog=_RUN_EPILOG,
    )
    running.add_argument("--library", action="store_true", help="print where the library is")
    # Everything from the program's name on is the program's.
    running.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    running.set_defaults(start=_run, parser=running)


def _add_with(commands: Any) -> None:  # noqa: ANN401
    private.add_command(commands, _android)


_SUBCOMMANDS: Final = (_add_queries, _add_call, _add_run, _add_with, stress.add_command)


def _run(chosen: argparse.Namespace) -> int:
    words = chosen.command
    if chosen.library:
        if words:
            chosen.parser.error("--library takes no program")
        tool.show(str(library_path()))
        return 0
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        chosen.parser.error(
            f"no such option: {tool.quoted(words[0])}; a program of that name comes behind --"
        )
    if not words:
        chosen.parser.error("which program?")
    try:
        return run(words, tool.program_name())
    except RunError as error:
        tool.complain(str(error))
        return error.status


def _ask(run: Callable[[_Manager, argparse.Namespace], object], chosen: argparse.Namespace) -> int:
    """Do a command of the service manager, and print what it returns."""
    limit = chosen.timeout + (_GRACE_SECONDS if run is _wait else 0)
    expired = f"{chosen.device}: no answer within {limit:g} s: is its daemon, the service manager \
or the service stopped or busy? --timeout SECONDS waits longer"
    with tool.time_limit(limit, expired, as_json=chosen.json), Device(chosen.device) as device:
        try:
            device.context_manager.ping()
        except DeadObject:
            hint = (
                f"start one with 'python -m binderclient.servicemanager --device {chosen.device}'"
            )
            raise DeadObject(f"no service manager is running on {chosen.device}: {hint}") from None
        try:
            result = run(_manager_of(device, chosen.android), chosen)
        except ServiceNotFound as error:
            hint = f"{error}; '{tool.program_name()} list' prints the names that there are"
            raise ServiceNotFound(hint) from None
    text = json.dumps(result) if chosen.json else _as_text(result)
    if text:
        tool.show(text)
    return 0


def _manager_of(device: Device, android: str) -> _Manager:
    return HardwareManager(device) if android == HIDL else ServiceManager(device, android)


# Commands: each returns what is to be printed


def _list(manager: _Manager, _chosen: argparse.Namespace) -> list[str]:
    return manager.list()


def _check(manager: _Manager, chosen: argparse.Namespace) -> dict[str, object]:
    return _describe(manager, chosen.name)


def _wait(manager: _Manager, chosen: argparse.Namespace) -> dict[str, object]:
    """Wait in slices, between which one sees that time passes, and that there still is a daemon."""
    limit = "for ever" if math.isinf(chosen.timeout) else f"for at most {chosen.timeout:g} s"
    start = time.monotonic()
    with tool.Status() as status:
        while True:
            passed = time.monotonic() - start
            left = chosen.timeout - passed
            try:
                manager.wait(chosen.name, max(0.0, min(left, _SLICE_SECONDS)))
                break
            except ServiceNotFound as error:
                if left <= _SLICE_SECONDS:
                    raise ServiceNotFound(f"{error} after {chosen.timeout:g} s") from None
            except CallTimeout:  # the manager is slow, and there is time
                if left <= _SLICE_SECONDS:
                    raise
            status.show(f"waiting {limit} for {chosen.name}: {passed + _SLICE_SECONDS:.0f} s")
    return _describe(manager, chosen.name)


def _ping(manager: _Manager, chosen: argparse.Namespace) -> dict[str, object]:
    manager.get(chosen.name).ping()
    return {"name": chosen.name, "alive": True}


def _call(manager: _Manager, chosen: argparse.Namespace) -> dict[str, object]:
    service = manager.get(chosen.name)
    request = Parcel() if chosen.raw else _request_for(service)
    for method, value in chosen.values:
        getattr(request, method)(value)
    with service.call(chosen.code, request, oneway=chosen.oneway) as reply:
        return {"size": len(reply), "hex": bytes(reply).hex()}


def _request_for(service: Proxy | HardwareService) -> Parcel:
    """Return a parcel that begins with the token of a service's interface."""
    if isinstance(service, Proxy):
        return Parcel.for_interface(service.interface())
    request = Parcel()
    request.write_cstring(service.interface())
    return request


def _describe(manager: _Manager, name: str) -> dict[str, object]:
    service = manager.get(name)
    return {"name": name, "interface": service.interface(), "handle": service.handle}


def _as_text(result: Any) -> str:  # noqa: ANN401 - what a command returned
    if isinstance(result, list):
        return "\n".join(map(tool.printable, result))
    if "hex" in result:
        return _dump(bytes.fromhex(result["hex"])) or "(an empty reply)"
    return tool.printable("  ".join(f"{key}: {value}" for key, value in result.items()))


def _dump(data: bytes) -> str:
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{offset:06x}  {row.hex(' ', 4):<35}  {shown}")
    return "\n".join(lines)


# The service manager


def serve_manager(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m binderclient.servicemanager``; returns the exit status."""
    parser = tool.Parser(
        prog=tool.program_name(),
        description="Serves the service manager of a binder device in the foreground, until "
        "SIGTERM or SIGINT. Says on stderr, and through $NOTIFY_SOCKET, when it is ready. When the "
        "daemon goes it waits for the device to come back, and serves again.",
    )
    parser.add_argument(
        "--device", metavar="PATH", type=tool.path, default=DEFAULT_PATH, help="%(default)s"
    )
    parser.add_argument(
        "--no-reconnect",
        action="store_true",
        help="end with status 1 when the daemon goes, for a supervisor that starts this again",
    )
    parser.add_argument(
        "--android",
        metavar="N",
        type=_android,
        default=DEFAULT_ANDROID,
        help=_ANDROID_HELP,
    )
    parser.add_argument(
        "--declare",
        metavar="NAME[,apex=APEX][,address=IP:PORT]",
        type=_declared,
        action="append",
        default=[],
        help="an instance, package.IInterface/instance, that clients are told is declared, as a "
        "manifest of Android's would; may be repeated",
    )
    add_version(parser)

    def act() -> int:
        chosen = parser.parse_args(arguments)
        reconnect = not chosen.no_reconnect
        if chosen.android == HIDL:
            hardware = HardwareServiceManager(chosen.declare)
            return _serve_manager(chosen.device, hardware, SERVING_THREADS, reconnect=reconnect)
        service = ServiceManagerService(chosen.android, chosen.declare)
        return _serve_manager(chosen.device, service, 0, reconnect=reconnect)

    return tool.guarded(act)


_Served = ServiceManagerService | HardwareServiceManager


def _look_for_clients(service: _Served, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        service.look_for_clients()


def _serve_manager(path: str, service: _Served, max_threads: int, *, reconnect: bool) -> int:
    logging.basicConfig(stream=sys.stderr, format="servicemanager: %(message)s")
    with Device(path, max_threads=max_threads, reconnect=reconnect) as device:
        device.become_context_manager(service)
        device.on_gone(lambda _device: notify(f"STATUS=Waiting for {path} to come back"))
        device.on_back(lambda _device: notify(f"STATUS=Serving {path}"))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: device.stop())
        tool.say(f"servicemanager: ready on {path}")
        notify("READY=1", f"STATUS=Serving {path}")
        ended = threading.Event()
        looks = (service, ended)
        threading.Thread(target=_look_for_clients, args=looks, name="lazy", daemon=True).start()
        device.join_thread_pool()
        ended.set()
        notify("STOPPING=1")
    return 0
