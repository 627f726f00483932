# SPDX-License-Identifier: Apache-2.0
"""On the host: machines of their own, hardened in ways that only a reboot undoes."""

from __future__ import annotations

from vm.machine import Buffer, Machine

PATIENCE = 120.0
SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
TRY = ".venv/bin/python -c 'from binderd import selftest; print(selftest.run(injects=True))'"
AS_USER = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all"
START = ".venv/bin/python -m binderd --transport fuse --mount /tmp/binderfs"


def run(machine: Machine, command: str) -> tuple[int, str, str]:
    output, errors = Buffer(), Buffer()
    status = machine.run(command, timeout=PATIENCE, output=output, errors=errors)
    return status, output.read_all().decode(), errors.read_all().decode()


def test_ptrace_scope() -> None:
    """With 2 everything works that is tried at the start, with 3 the daemon says what to do.

    An ordinary user's says so with 1 already.
    """
    with Machine() as machine:
        assert run(machine, f"echo 2 >{SCOPE} && {TRY}") == (0, "[]\n", "")
        status, _, said = run(
            machine, f"echo 1 >{SCOPE} && chmod 666 /dev/fuse && {AS_USER} {START}"
        )
        assert (status, said.count("\n")) == (1, 1)
        assert "as kernel.yama.ptrace_scope is 1, which keeps an ordinary user's programs" in said
        status, _, said = run(machine, f"echo 3 >{SCOPE} && {START}")
        assert (status, said.count("\n")) == (1, 1)
        assert said.startswith("binderd: clients cannot be served: process_vm_readv, ")
        assert "denied (Operation not permitted), as kernel.yama.ptrace_scope is 3: " in said
        assert "/etc/sysctl.d" in said
        assert run(machine, "ls /tmp/binderfs; pgrep -fc '[b]inderd --transport'")[:2] == (1, "0\n")
