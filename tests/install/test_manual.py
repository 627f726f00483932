# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completion say what --help says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "binderd": 8,
    "mount.binder": 8,
    "binderctl": 1,
    "binder-servicemanager": 1,
    "binderclient-aidl": 1,
}
COLUMNS = "96"
every_command = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("manual")
    subprocess.run([sys.executable, ROOT / "docs/manual", directory], check=True)
    return directory / "share"


def command(name: str) -> Path:
    """Return the installed command, as users call it."""
    return Path(sys.executable).with_name(name)


def help_of(*words: object) -> str:
    done = subprocess.run(
        [*map(str, words), "--help"],
        env={"COLUMNS": COLUMNS, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def subcommands(text: str) -> list[str]:
    """Return the subcommands that a --help lists."""
    return re.findall(r"^    (\w+) ", text, re.MULTILINE) if "COMMAND" in text else []


def shown(source: str) -> str:
    """Return what roff shows of a page, words separated by one space."""
    lines = [
        re.sub(r"^\.(SH|SS|B|TP|PP) ?", "", line)
        for line in source.splitlines()
        if not line.startswith((".nf", ".fi", ".nh", ".ad", ".TH", '.\\"'))
    ]
    text = "\n".join(lines)
    for escape, plain in (("\\-", "-"), ("\\(aq", "'"), ("\\(ha", "^"), ("\\(ti", "~")):
        text = text.replace(escape, plain)
    return words(text.replace("\\(ga", "`").replace("\\&", "").replace("\\e", "\\"))


def words(text: str) -> str:
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Return what --help says, but for headings and usage: a piece per argument, paragraph."""
    body = text.partition("\n\n")[2]
    pieces = re.split(r"\n\n|\n(?=  \S)", body)
    headings = {"options:", "positional arguments:"}
    return [piece for piece in pieces if piece.strip() and piece.strip() not in headings]


@every_command
def test_the_page_says_all_that_help_says(share: Path, name: str) -> None:
    page = shown((share / f"man/man{PAGES[name]}/{name}.{PAGES[name]}").read_text()).lower()
    general = help_of(command(name))
    texts = [general, *(help_of(command(name), sub) for sub in subcommands(general))]
    for text in texts:
        for piece in sentences(text):
            for line in re.split(r"\n|  +", piece):  # an option and its help; a heading
                line = line.strip().removesuffix(":")
                if line not in {"options", "positional arguments", "COMMAND"}:
                    assert words(line).lower() in page, f"{name}: {line!r}"


@every_command
def test_the_page_has_nothing_that_help_does_not_have(share: Path, name: str) -> None:
    source = (share / f"man/man{PAGES[name]}/{name}.{PAGES[name]}").read_text()
    general = help_of(command(name))
    texts = words(general + " ".join(help_of(command(name), sub) for sub in subcommands(general)))
    for option in re.findall(r"--[a-z][a-z-]+", shown(source)):
        assert option in texts


@pytest.mark.skipif(shutil.which("man") is None, reason="no man")
@every_command
def test_the_page_can_be_shown(share: Path, name: str) -> None:
    page = share / f"man/man{PAGES[name]}/{name}.{PAGES[name]}"
    done = subprocess.run(
        ["man", "--warnings", "-l", page], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.stderr == ""
    assert f"{name} - " in done.stdout


def completed(share: Path, line: str) -> list[str]:
    name, *rest = line.split(" ")
    script = f"""
. {share}/bash-completion/completions/{name}
COMP_WORDS=({" ".join(map(repr, (name, *rest)))}) COMP_CWORD={len(rest)}
_{name.replace("-", "_")} 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("binderd --tr", ["--transport"]),
        ("binderd --transport ", ["auto", "fuse", "cuse", "both"]),
        ("binderd --transport = c", ["cuse"]),
        ("binderd --owner nobod", ["nobody"]),
        ("binderd --mount /us", ["/usr"]),
        ("binderctl li", ["list"]),
        ("binderctl --json call --on", ["--oneway"]),
        ("binderctl run -- tru", ["true", "truncate"]),
        ("binder-servicemanager --dev", ["--device"]),
        ("binderclient-aidl --dep", ["--depfile"]),
    ],
)
def test_bash_completes(share: Path, line: str, wanted: list[str]) -> None:
    assert set(wanted) <= set(completed(share, line))


@every_command
def test_every_option_is_completed_in_every_shell(share: Path, name: str) -> None:
    options = set(
        re.findall(r"--[a-z][a-z-]+(?=[ ,\n\]])", help_of(command(name)).split("examples")[0])
    )
    scripts = {
        "bash": share / f"bash-completion/completions/{name}",
        "zsh": share / f"zsh/site-functions/_{name}",
        "fish": share / f"fish/vendor_completions.d/{name}.fish",
    }
    for shell, script in scripts.items():
        text = script.read_text()
        missing = [o for o in options if (f"-l {o[2:]} " if shell == "fish" else o) not in text]
        assert missing == [], shell
        if shutil.which(shell):
            subprocess.run([shell, "-n", script], check=True)
