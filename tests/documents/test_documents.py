# SPDX-License-Identifier: Apache-2.0
"""What the documents show to paste does what it should: every code block is run, as it is there.

Shell: in order, as pastes into terminals in a fresh working copy; each must end with status 0. A
block that starts something in the background leaves it to those below. Python: each is a script.
C: those of a document are one program. ``text`` is nothing to paste.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.demo.stage import Settings
from client.drivers import missing_capability
from documents.blocks import DOCUMENTS, ROOT, Block, all_blocks, blocks_of
from documents.desk import GLANCE, Desk, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from documents.desk import Paste

BLOCKS: Final = all_blocks()

# What cannot be run here, by document and first line, and why. That is all: keep it short.
PIP_PACKAGES: Final = (
    "apt-get install python3-venv python3-dev gcc libc6-dev linux-libc-dev libfuse3-dev pkg-config"
)
NOT_RUN: Final = {
    ("README.md", "apt-get update && apt-get install --yes git make"): "needs a package mirror",
    ("README.md", "make deb"): "installs packages; make test-install does all of this section",
    ("README.md", PIP_PACKAGES): "needs a package mirror",
    (
        "README.md",
        "apt-get install python3-construct python3-pyfuse3 python3-trio",
    ): "needs a package mirror",
    ("README.md", "make test"): "would run itself; needs a virtual machine and minutes",
    ("CONTRIBUTING.md", "make setup"): "would install the copy into the environment of all tests",
    ("CONTRIBUTING.md", "make check"): "would run itself; needs a virtual machine and minutes",
}
# What runs until Ctrl-C, by a line of it, and what it says when it is ready.
KEEPS_RUNNING: Final = {
    "make run": "is there, with a service manager",
    "    device.join_thread_pool()": "",
    "        await device.serve_forever()": "",
}
SLOWER_SECONDS: Final = 15.0  # how much slower than we somebody may be who pastes
NUMBERS: Final = {4: "four", 6: "six", 8: "eight", 10: "ten", 12: "twelve"}


def named(block: Block) -> tuple[str, str]:
    return block.document, block.first


def test_the_list_of_what_is_not_run_is_true() -> None:
    found = {named(block) for block in BLOCKS}
    assert set(NOT_RUN) - found == set(), "not in the documents any more"
    assert len(NOT_RUN) <= 8


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda b: b.place)
def test_targets_exist(block: Block) -> None:
    """Also of what is not run: make knows the targets, bash the syntax."""
    checked = subprocess.run(["bash", "-n"], input=block.text, text=True, check=False)
    assert checked.returncode == 0
    for line in block.text.replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            command = [*words, "--question", "--no-print-directory", "CMD=true"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert "No rule to make target" not in done.stderr, f"{block.place}: {line}"


@pytest.mark.parametrize(
    "text",
    [
        "a\n\n    make run\n",
        "```\nmake run\n```\n",
        "```bash\nmake run\n```\n",
        "```sh\nmake run\n",
        "~~~\nmake run\n~~~\n",
    ],
)
def test_no_code_escapes(text: str) -> None:
    with pytest.raises(AssertionError, match=r"x\.md:[0-9]"):
        list(blocks_of("x.md", text))


def test_what_is_said_of_the_demo() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    settings = Settings()
    assert f"two servers and {NUMBERS[settings.clients]} clients" in text
    assert f"each other for {NUMBERS[settings.seconds]} seconds" in text


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in (part.partition(")")[0] for part in text.split("](")[1:]):
            path = target.partition("#")[0]
            if path and "://" not in path:
                assert ((ROOT / document).parent / path).exists(), f"{document}: {target}"


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_that_are_explained_exist() -> None:
    said = [
        text
        for folder in ("client/binderclient", "daemon/binderd")
        for path in (ROOT / folder).rglob("*.py")
        for text in literals(ast.parse(path.read_text(encoding="utf-8")))
    ]
    table = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8").split("| message |")[1]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(messages) > 10
    for message in messages:
        for fragment in message.split("…"):
            found = any(fragment in text for text in said)
            assert found, f"nobody says {fragment!r} any more"


# Following them


def run(desk: Desk, block: Block, program: Path) -> Paste | None:
    """Do what a reader does with a block; returns what goes on until Ctrl-C."""
    for line, ready in KEEPS_RUNNING.items():
        if any(each.startswith(line) for each in block.text.splitlines()):
            return start(desk, block, program, ready)
    deadline = time.monotonic() + SLOWER_SECONDS
    while True:
        paste = paste_block(desk, block, program)
        status = paste.wait()
        # What the one before has started may not be ready, and a reader is slower than we are.
        starts = block.text.rstrip().endswith("&")
        if status == 0 or starts or time.monotonic() > deadline:
            break
        time.sleep(GLANCE)
    assert status == 0, f"{block.place}: status {status}\n{paste.said}"
    assert "Traceback" not in paste.said, f"{block.place}\n{paste.said}"
    if starts:
        until(paste.is_serving, f"{block.place} serves")
        assert paste.members(), f"{block.place}: its service has ended\n{paste.said}"
    return None


def paste_block(desk: Desk, block: Block, program: Path) -> Paste:
    if block.language == "sh":
        return desk.shell(block.text)
    program.write_text(block.text, encoding="utf-8")
    return desk.paste(str(desk.copy / ".venv" / "bin" / "python"), str(program))


def start(desk: Desk, block: Block, program: Path, ready: str) -> Paste:
    paste = paste_block(desk, block, program)
    until(
        lambda: (
            paste.process.poll() is not None
            or (ready in paste.said if ready else paste.is_serving())
        ),
        f"{block.place} is ready",
    )
    assert paste.process.poll() is None, f"{block.place} has ended\n{paste.said}"
    return paste


@pytest.mark.skipif(missing_capability() is not None, reason="mounting needs root and /dev/fuse")
@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if any(b.document == d and b.language != "text" for b in BLOCKS)],
)
def test_following(document: str, tmp_path: Path) -> None:
    blocks = [b for b in BLOCKS if b.document == document and named(b) not in NOT_RUN]
    kept: list[tuple[Block, Paste]] = []
    with Desk(tmp_path) as desk:
        if any(block.language == "c" for block in blocks):
            follow_c(desk, [block for block in blocks if block.language == "c"])
        for number, block in enumerate(blocks):
            if block.language in {"sh", "python"}:
                paste = run(desk, block, tmp_path / f"{number}.py")
                kept += [(block, paste)] if paste is not None else []
        for block, paste in reversed(kept):
            paste.signal(signal.SIGINT)
            status = paste.wait()
            assert "Traceback" not in paste.said, f"{block.place}\n{paste.said}"
            if block.language == "python":
                assert status == 0, f"{block.place}: status {status}\n{paste.said}"
        left = desk.shell("ls /dev/binderfs 2>&1 || true")
        left.wait()
        assert "binder" not in left.said.replace("/dev/binderfs", ""), left.said
    assert untracked(desk.copy) == set()


def untracked(copy: Path) -> set[str]:
    """Return what following a document has left that git would not ignore."""
    ours = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    theirs = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()}
    ignored = (".venv", "build/", "__pycache__")
    return {name for name in ours - theirs if not any(part in name for part in ignored)}


# What is around the C of a document: the names that its text speaks of.
_C_HEAD: Final = """\
#include <fcntl.h>
#include <linux/android/binder.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "binderd_lane.h"

int main(int argc, char **argv)
{
	int fd = open(argv[argc - 1], O_RDWR | O_CLOEXEC);
	struct binderd_message message = { 0 };
	int32_t numbers[1] = { 0 };
	uint32_t n = 1;

"""
_C_TAIL = """\
	(void)message, (void)numbers, (void)n;
	return 0;
}
"""
# After these the ioctl fails, as nobody has sent us a file.
_FAILS: Final = "struct binderd_installed"


def follow_c(desk: Desk, blocks: list[Block]) -> None:
    text = _C_HEAD
    for block in blocks:
        text += f'#line {block.line + 1} "{block.document}"\n{block.text}'
        succeeds = "==" if block.text.startswith(_FAILS) else "!="
        text += f'\tif (status {succeeds} 0)\n\t\treturn perror("{block.place}"), 1;\n'
    source = desk.copy / "build" / "document.c"
    source.write_text(text + _C_TAIL, encoding="utf-8")
    compiling = [
        "cc",
        "-std=c11",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Iclient/include",
    ]
    paste = desk.paste(*compiling, "-o", "build/document", str(source))
    assert paste.wait() == 0, paste.said
    daemon = desk.paste(".venv/bin/binderd", "--mount", "/dev/binderfs", "--device", "binder")
    until(lambda: "ready" in daemon.said or daemon.process.poll() is not None, "a daemon")
    paste = desk.paste("build/document", "/dev/binderfs/binder")
    assert paste.wait() == 0, paste.said
    daemon.end(signal.SIGTERM)
    assert daemon.process.returncode == 0, os.fsdecode(daemon.said)
