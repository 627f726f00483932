# SPDX-License-Identifier: Apache-2.0
"""Programs of many kinds with the library, on every kind of device."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from binderwire.binder_abi import BINDER_THREAD_EXIT, BINDER_VERSION, BINDER_WRITE_READ
from binderwire.extension_abi import BINDERD_ATTACH, BINDERD_GET_INFO
from preload import toolbox

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from preload.conftest import Stage


def ioctls(log: Path) -> list[tuple[int, int, int, int]]:
    """Return thread id, request, result and errno of each ioctl that left a spied program."""
    rows = [line.split() for line in log.read_text().splitlines()]
    return [(int(tid), int(word, 16), int(rc), int(no)) for tid, _, word, rc, no in rows]


def test_the_echo_examples(stage: Stage) -> None:
    stage.start("echo_server")
    assert stage.run("echo_client", "hello") == "hello\n"
    large = "x" * 100_000
    assert stage.run("echo_client", large) == large + "\n"


def test_many_threads_a_duplicate_and_a_child(stage: Stage) -> None:
    stage.start("echo_server")
    printed = stage.run("busy", 8, 50).splitlines()
    assert Counter(line.split()[0] for line in printed) == {"ended": 4, "said": 4, "done": 1}


def test_threads_that_end_are_reported_once(our_stage: Stage, spied: Path) -> None:
    our_stage.start("echo_server")
    spied.unlink(missing_ok=True)
    printed = our_stage.run("busy", 6, 2).splitlines()
    wanted = {int(line.split()[1]): line.split()[0] for line in printed if " " in line}
    assert len(wanted) == 6
    seen = ioctls(spied)
    exits = Counter(tid for tid, word, rc, _ in seen if word == BINDER_THREAD_EXIT and rc == 0)
    assert exits == dict.fromkeys(wanted, 1)
    # Those that said it did so with NULL, which the kernel refuses where there is a FUSE file.
    refused = {tid for tid, word, rc, _ in seen if word == BINDER_THREAD_EXIT and rc < 0}
    said = {tid for tid, word in wanted.items() if word == "said"}
    assert refused == (set() if our_stage.name == "cuse" else said)


def test_a_call_is_what_it_was(
    our_stage: Stage, spied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a program's own ioctls there are a few for each file, and none with each call."""
    monkeypatch.setenv("BINDERCLIENT_LANES", "0")
    our_stage.start("echo_server")
    spied.unlink(missing_ok=True)
    printed = our_stage.run("busy", 1, 100).splitlines()
    thread = int(printed[0].split()[1])
    seen = Counter(word for tid, word, _, _ in ioctls(spied) if tid == thread)
    once = {BINDERD_GET_INFO, BINDERD_ATTACH}  # who comes first does it
    assert seen.keys() - once == {BINDER_WRITE_READ, BINDER_THREAD_EXIT}
    assert 300 <= seen[BINDER_WRITE_READ] <= 400  # write, read (twice, at times), write
    others = Counter(word for tid, word, _, _ in ioctls(spied) if tid != thread)
    assert others[BINDER_VERSION] == 1
    assert sum((others + seen)[word] for word in once) <= 8


def test_a_python_client_and_service(stage: Stage) -> None:
    """It knows the extension by itself, where the device has it; the two do not meet."""
    manager = (sys.executable, "-m", "binderclient.servicemanager", "--device", stage.path)
    service = (sys.executable, toolbox.EXAMPLES / "echo_service.py", stage.path)
    client = (sys.executable, toolbox.EXAMPLES / "echo_client.py", "grüß dich", stage.path)
    control = (sys.executable, "-m", "binderclient", "--device", stage.path)
    stage.start_command(*manager)
    toolbox.wait_for_success(*control, "list")
    stage.start_command(*service)
    toolbox.wait_for_success(*control, "check", "org.example.echo")
    assert toolbox.output_of(*toolbox.PRELOADED, *client) == "grüß dich\n"


def test_programs_without_binder(library: Path, spied: Path) -> None:
    """Nothing is asked, and nothing is changed."""
    code = "import mmap, os, termios, fcntl, struct; f = open('/proc/self/exe', 'rb'); "
    code += "m = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ); print(m[:4]); "
    code += "r, w = os.pipe(); os.write(w, b'12345'); "
    code += "print(struct.unpack('i', fcntl.ioctl(r, termios.FIONREAD, bytes(4))))"
    assert toolbox.output_of(*toolbox.PRELOADED, sys.executable, "-c", code) == (
        "b'\\x7fELF'\n(5,)\n"
    )
    assert library.exists()
    assert [word for _, word, _, _ in ioctls(spied) if word >> 8 & 0xFF == ord("b")] == []
