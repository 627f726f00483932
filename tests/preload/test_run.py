# SPDX-License-Identifier: Apache-2.0
"""``binderctl run``: how it starts programs, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import preload as binderctl_preload
from binderclient.preload import LIBRARY, RunError, library_path, warnings_about, with_library
from preload import toolbox

if TYPE_CHECKING:
    from pathlib import Path

SHOW = 'echo "$0 $* $LD_PRELOAD"'
CALLER: Final = "python -m binderclient"


def run(*arguments: object, **environment: str) -> tuple[int, str, str]:
    command = [*toolbox.PRELOADED[:-1], *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=toolbox.PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def test_it_becomes_the_program(library: Path) -> None:
    assert run("--", "sh", "-c", SHOW, "name", "--help", "--", "x") == (
        0,
        f"name --help -- x {library}\n",
        "",
    )
    assert run("sh", "-c", "exit 7")[0] == 7
    assert run("sh", "-c", "kill -TERM $$")[0] == -15


def test_what_is_preloaded_already_stays(library: Path) -> None:
    libraries = {"LD_PRELOAD": "libm.so.6 libdl.so.2"}
    assert run("sh", "-c", SHOW, "x", **libraries)[1] == f"x  {library}:libm.so.6:libdl.so.2\n"
    twice = with_library(with_library({"LD_PRELOAD": "libm.so.6", "A": "b"}))
    assert twice == {"LD_PRELOAD": f"{library}:libm.so.6", "A": "b"}


def test_where_the_library_is(library: Path) -> None:
    assert run("--library") == (0, f"{library}\n", "")


def test_programs_that_are_not_there(library: Path, tmp_path: Path) -> None:
    assert library.exists()
    assert run("no-such-program") == (127, "", f"{CALLER}: no-such-program: no such program\n")
    assert run(tmp_path / "none")[0] == 127
    file = tmp_path / "file"
    file.write_text("text")
    assert run(file) == (126, "", f"{CALLER}: {file}: not an executable file\n")
    file.chmod(0o755)
    status, _, said = run(file)
    assert (status, said) == (126, f"{CALLER}: {file}: Exec format error\n")


def test_no_program(library: Path) -> None:
    assert library.exists()
    status, _, said = run("--")
    assert status == 2
    assert "which program?" in said
    status, said, _ = run("--help")
    assert status == 0
    assert "cannot be changed" in said


def test_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(binderctl_preload, "files", lambda _: tmp_path)
    with pytest.raises(RunError, match="make preload") as caught:
        library_path()
    assert caught.value.status == 1
    odd = tmp_path / "a directory:with signs"
    odd.mkdir()
    (odd / LIBRARY).touch()
    monkeypatch.setattr(binderctl_preload, "files", lambda _: odd)
    with pytest.raises(RunError, match="spaces or colons"):
        library_path()


def test_statically_linked_programs(library: Path, tmp_path: Path) -> None:
    assert library.exists()
    source = tmp_path / "static.c"
    source.write_text("int main(void) { return 3; }\n")
    program = toolbox.compiled(source, tmp_path, "-static")
    status, _, said = run(program)
    assert status == 3
    assert said == (
        f"{CALLER}: warning: {program}: it is statically linked, "
        "so nothing can be preloaded into it\n"
    )
    script = tmp_path / "script"
    script.write_text(f"#!{program} argument\n")
    script.chmod(0o755)
    assert list(warnings_about(script)) == list(warnings_about(program))


def test_programs_that_only_the_kernel_can_refuse(library: Path, tmp_path: Path) -> None:
    assert library.exists()
    fifo, own = tmp_path / "fifo", tmp_path / "own"
    os.mkfifo(fifo, 0o755)  # opening it would wait for a writer
    own.write_text(f"#!{own}\n")  # its interpreter is itself
    own.chmod(0o755)
    assert run(fifo) == (126, "", f"{CALLER}: {fifo}: Permission denied\n")
    status, _, said = run(own)
    assert (status, said) == (126, f"{CALLER}: {own}: Too many levels of symbolic links\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a program to somebody else")
def test_programs_that_gain_privileges(tmp_path: Path) -> None:
    program = tmp_path / "true"
    shutil.copy("/bin/true", program)
    assert list(warnings_about(program)) == []
    for mode in (0o4755, 0o2755):
        os.chown(program, 1234, 1234)
        program.chmod(mode)
        (warning,) = warnings_about(program)
        assert "gains privileges" in warning


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    for content in (b"", b"#!", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 60, b"#!/none\n"):
        path = tmp_path / "odd"
        path.write_bytes(content)
        assert list(warnings_about(path)) == []


def test_programs_of_another_loader(tmp_path: Path) -> None:
    program = (tmp_path / "other").resolve()
    content = bytearray(toolbox.Path(sys.executable).resolve().read_bytes())
    start = content.index(b"/lib")
    content[start : start + 4] = b"/odd"
    program.write_bytes(content)
    (warning,) = warnings_about(program)
    assert warning.startswith("it is loaded by /odd")
