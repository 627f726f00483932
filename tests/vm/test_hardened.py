# SPDX-License-Identifier: Apache-2.0
"""On the host: machines of their own, hardened in ways that only a reboot undoes."""

from __future__ import annotations

from vm.machine import Buffer, Machine

PATIENCE = 120.0
SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
TRY = ".venv/bin/python -c 'from binderd import selftest; print(selftest.run(injects=True))'"
AS_USER = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all"
START = ".venv/bin/python -m binderd --transport fuse --mount /tmp/binderfs"
WITH = ".venv/bin/python -m binderclient with -- .venv/bin/python -m binderclient list"


def run(machine: Machine, command: str) -> tuple[int, str, str]:
    output, errors = Buffer(), Buffer()
    status = machine.run(command, timeout=PATIENCE, output=output, errors=errors)
    return status, output.read_all().decode(), errors.read_all().decode()


def refused(machine: Machine, command: str) -> str:
    """Return the one line of a command that cannot do what it is to do."""
    status, _, said = run(machine, command)
    assert (status, said.count("\n")) == (1, 1), said
    return said


def test_ptrace_scope() -> None:
    """Root's daemon works with 1 and 2, and so does what an ordinary user has in a namespace.

    With 3 nobody's does, and an ordinary user's without a namespace with 0 only: each says so.
    """
    with Machine() as machine:
        assert run(machine, "chmod 666 /dev/fuse")[0] == 0
        for scope in (1, 2):
            assert run(machine, f"echo {scope} >{SCOPE} && {TRY}") == (0, "[]\n", "")
            said = refused(machine, f"{AS_USER} {START}")
            assert f"as kernel.yama.ptrace_scope is {scope}, which keeps an ordinary" in said
            assert "or use 'binderctl with'" in said
            assert run(machine, f"{AS_USER} {WITH}") == (0, "manager\n", "")
        said = refused(machine, f"echo 3 >{SCOPE} && {START}")
        assert said.startswith("binderd: clients cannot be served: process_vm_readv, ")
        assert "denied (Operation not permitted), as kernel.yama.ptrace_scope is 3: " in said
        assert "/etc/sysctl.d" in said
        for command in (f"{AS_USER} {START}", f"{AS_USER} {WITH}"):
            assert "as kernel.yama.ptrace_scope is 3: " in refused(machine, command)
        assert run(machine, "ls /tmp/binderfs; pgrep -fc '[b]inderd --transport'")[:2] == (1, "0\n")
