# SPDX-License-Identifier: Apache-2.0
"""The commands behind ``make vm`` and ``make test-vm``.

    run COMMAND   start a machine, run the command, bring back its output and its exit status
    session       start a machine and run each line of standard input in it
    prepare       only fetch what is needed
    usage         explain make vm
    measure       the figures of README.md

The exit status is the command's own, or 125: no machine (or it died), 124: the command took longer
than VM_TIMEOUT. Lines that begin with "vm: " are ours, on standard error.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Final

from vm import kernel
from vm.errors import CommandTimeoutError, MachineError
from vm.machine import REPOSITORY, Machine

if TYPE_CHECKING:
    from types import FrameType

TIMEOUT_STATUS: Final = 124
MACHINE_STATUS: Final = 125
USAGE: Final = """\
make vm runs a shell command as root in a machine with Linux's own binder driver:

  make vm CMD="ls -l /dev/binder /dev/cuse; cat /sys/kernel/debug/binder/state"
  make vm CMD=".venv/bin/python -m pytest tests/vm"
  make vm CMD="./measure >results/out" VM_RESULTS=$PWD/results

It sees the host's files; what it writes is lost, but for the folder VM_RESULTS. Its standard input
is empty. It is some 12 times slower than the host. Settings, with their defaults:
  KERNEL=6.12 (the beginning of a version: 6.1 is Debian 12's, 7 comes from trixie-backports)
  VM_TIMEOUT=600 VM_BOOT_TIMEOUT=120 VM_CPUS=1 VM_MEMORY=1G VM_RESULTS= VM_ARGUMENTS=
  VM_ACCEL=tcg,thread=multi
tests/vm/README.md says more."""


def say(text: str) -> None:
    for line in text.splitlines():
        print(f"vm: {line}", file=sys.stderr, flush=True)


def run(command: str) -> int:
    prepare()
    with Machine() as machine:
        say(f"ready after {machine.boot_seconds:.1f} s")
        return machine.run(command, output=sys.stdout.buffer, errors=sys.stderr.buffer)


def session() -> int:
    """Return the status of the last command."""
    prepare()
    status = 0
    with Machine() as machine:
        say(f"ready after {machine.boot_seconds:.1f} s; a command per line")
        for line in sys.stdin:
            try:
                status = machine.run(line, output=sys.stdout.buffer, errors=sys.stderr.buffer)
                say(f"exit status {status}")
            except CommandTimeoutError as error:
                status = TIMEOUT_STATUS
                say(str(error))
    return status


def prepare() -> int:
    """Fetch the kernel; compile the repository's modules, which is slow inside."""
    kernel.obtain()
    for folder in ("protocol", "daemon", "client", "tests"):
        with contextlib.suppress(OSError):  # somebody else's working copy, perhaps
            compileall.compile_dir(REPOSITORY / folder, quiet=2)
    return 0


def measure() -> int:
    from vm import measure as figures

    prepare()
    figures.main()
    return 0


def usage() -> int:
    print(USAGE)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vm", description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("run").add_argument("command")
    for action in ("session", "prepare", "measure", "usage"):
        actions.add_parser(action)
    return parser.parse_args()


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)  # so that the machine is switched off
    arguments = parse_arguments()
    try:
        if arguments.action == "run":
            return run(arguments.command)
        plain = {"session": session, "prepare": prepare, "measure": measure, "usage": usage}
        return plain[arguments.action]()
    except CommandTimeoutError as error:
        say(str(error))
        return TIMEOUT_STATUS
    except MachineError as error:
        say(str(error))
        return MACHINE_STATUS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
