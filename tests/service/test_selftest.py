# SPDX-License-Identifier: Apache-2.0
"""Whom the self-test asks of: who is like a client, and what it says of Yama."""

from __future__ import annotations

import ctypes
import os
import time
from errno import EPERM
from pathlib import Path

import pytest

from binderd import selftest
from binderd.linux import proc, rights

PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid"))


def is_gone(pid: int) -> bool:
    try:
        return b") Z" in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_an_ordinary_users_child_is_like_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yama lets everybody trace descendants: with one of them the trial would prove nothing."""
    monkeypatch.setattr(rights, "is_ordinary_user", lambda: True)
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0
    with selftest._child() as child:
        assert parent_of(child.pid) != os.getpid()
        assert not is_gone(child.pid)
        pid = child.pid
    deadline = time.monotonic() + PATIENCE
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_roots_child_is_like_another_users() -> None:
    if rights.is_ordinary_user():
        pytest.skip("needs root")
    with selftest._child() as child:
        assert parent_of(child.pid) == os.getpid()
        assert os.stat(f"/proc/{child.pid}/mem").st_uid == 0
        pid = child.pid
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize(
    ("scope", "text"),
    [(1, "ptrace_scope=0'"), (2, "'binderctl with'"), (3, "it cannot be lowered")],
)
def test_an_ordinary_user_and_yama(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scope: int, text: str
) -> None:
    (tmp_path / "scope").write_text(f"{scope}\n", encoding="ascii")
    monkeypatch.setattr(rights, "is_ordinary_user", lambda: True)
    monkeypatch.setattr(proc, "_PTRACE_SCOPE", str(tmp_path / "scope"))
    said = selftest.explain([selftest.Denial(selftest.TRIALS[0], EPERM)])
    assert f"kernel.yama.ptrace_scope is {scope}" in said
    assert text in said


def test_what_takes_root_is_denied_without_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "is_ordinary_user", lambda: True)
    denials = {one.trial.call: one for one in selftest.run(injects=True, missing={"CAP_SYS_NICE"})}
    one = denials.pop("PTRACE_O_SUSPEND_SECCOMP")
    assert selftest.explain([one]).endswith("which takes root")
    assert not denials
