# SPDX-License-Identifier: Apache-2.0
"""``binderd --check``: what this machine allows is tried, and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from channel.helpers import needs_fuse
from channel.namespaces import binderd, command, run
from support.patience import patience
from support.rights import confined, denying, only

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = patience(60.0)


def said(*arguments: str, before: Sequence[str] = ()) -> tuple[int, str]:
    words = [*before, sys.executable, "-m", "binderd", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout + done.stderr


def found(*arguments: str, before: Sequence[str] = ()) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit status and the findings by name."""
    status, text = said("--check", "--json", *arguments, before=before)
    told = json.loads(text)
    assert told["serves"] == (status == 0)
    return status, {one["name"]: one for one in told["findings"]}


@needs_fuse
def test_a_machine_that_has_it_all_but_perhaps_cuse() -> None:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    status, findings = found(before=confined("unit"))
    assert status == 0
    missing = [name for name, one in findings.items() if not one["works"]]
    assert missing == [*([] if os.path.exists("/dev/cuse") else ["CUSE"]), "CAP_MKNOD"]
    assert {"FUSE", "passthrough", "private pages", "process_vm_readv"} <= set(findings)
    assert Path("/proc/self/mounts").read_text(encoding="utf-8") == mounts


@needs_fuse
def test_the_table_has_a_line_for_each() -> None:
    _, findings = found()
    status, text = said("--check")
    *lines, last = text.splitlines()
    assert (status, last) == (0, "clients can be served")
    assert [line.split("  ")[0] for line in lines] == list(findings)


@needs_fuse
def test_a_call_that_is_denied() -> None:
    status, findings = found(before=[*confined("unit"), *denying("process_vm_readv")])
    one = findings["process_vm_readv"]
    assert (status, one["works"], one["needed"]) == (1, False, True)
    assert "by the seccomp filter that the daemon runs under" in one["text"]


@needs_fuse
def test_where_nothing_can_be_mounted() -> None:
    """What cannot be tried is not there, and the reason is the one that matters."""
    status, findings = found(before=[*confined("unit"), *denying("mount")])
    assert not findings["FUSE"]["works"]
    assert "it cannot be tried" in findings["FUSE"]["text"]
    assert status == int(not findings["CUSE"]["works"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_without_rights() -> None:
    status, findings = found(before=only(set()))
    assert status == 1
    assert "start as root" in findings["CAP_SYS_PTRACE"]["text"]
    assert "process_vm_readv" not in findings, "which the missing right forbids anyway"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_user_who_cannot_mount() -> None:
    """What else an ordinary user can is in tests/integration/test_rootless.py."""
    who = ["setpriv", "--reuid", "1000", "--clear-groups", "--inh-caps=-all"]
    status, findings = found(before=[*who, "env", "PATH=/nowhere"])
    assert status == 1
    assert "fuse3" in findings["FUSE"]["text"]
    assert findings["process_vm_readv"]["works"]


@needs_fuse
def test_a_machine_without_fuse(tmp_path: Path) -> None:
    status, text = run(command(tmp_path, (), "", *binderd("--check")))
    assert status == 1
    assert "there is no /dev/fuse ('modprobe fuse'" in text
    assert text.endswith("clients cannot be served\n")


def test_json_alone_is_a_mistake() -> None:
    assert said("--json") == (2, "binderd: --json says how --check prints: give both\n")
