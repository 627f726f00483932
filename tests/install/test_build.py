# SPDX-License-Identifier: Apache-2.0
"""How a build goes wrong, what it says of itself, and what a source distribution has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ROOT / "build" / "compiled"  # of 'make compile'


def setup(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def version_with(path: Path | None) -> str:
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-P", "-m", "binderd", "--version"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def project_version() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])


# Failing loudly


def test_without_a_compiler_it_is_not_built(tmp_path: Path) -> None:
    done = setup("build_ext", f"--build-lib={tmp_path}", CC="no-such-compiler")
    assert done.returncode != 0
    assert "binderd cannot be built: there is no C compiler (no-such-compiler)" in done.stderr
    assert "apt-get install gcc" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_mypyc_it_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "mypyc.py").write_text("raise ImportError('not here')")
    done = setup("build_ext", f"--build-lib={tmp_path / 'out'}", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "there is no mypyc" in done.stderr
    assert not (tmp_path / "out").exists()


def test_where_mypyc_fails_it_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "mypyc").mkdir()
    (tmp_path / "mypyc" / "__init__.py").touch()
    (tmp_path / "mypyc" / "build.py").write_text("def mypycify(*_, **__): raise SystemExit(1)")
    done = setup("build_ext", f"--build-lib={tmp_path / 'out'}", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "mypyc fails" in done.stderr
    assert not (tmp_path / "out").exists()


def test_where_the_compiler_fails_it_is_not_built(tmp_path: Path) -> None:
    done = setup("build_programs", f"--build-lib={tmp_path}", CC="false")
    assert done.returncode != 0
    assert "does not compile" in done.stderr


def test_interpreted_only_if_asked(tmp_path: Path) -> None:
    options = {"BINDERD_COMPILE": "0", "CC": "no-such-compiler"}
    done = setup(
        "build", f"--build-base={tmp_path / 'b'}", f"--build-lib={tmp_path}/out", **options
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("*.so")) == []
    assert version_with(tmp_path / "out").endswith("(interpreted)")


# Saying what it is


def test_an_editable_installation_is_interpreted() -> None:
    assert version_with(None) == f"binderd {project_version()} (interpreted)"


@pytest.mark.skipif(not (COMPILED / ".done").exists(), reason="run make compile")
def test_compiled_and_mixed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(COMPILED, copy)
    assert version_with(copy) == f"binderd {project_version()} (compiled)"
    # One that compiled modules do not import: those load it from the library that all share.
    (library,) = (copy / "binderd" / "channel").glob("transfer.*.so")
    library.unlink()
    assert re.search(
        r"\(mixed: 1 of \d+ modules interpreted \(binderd.channel.transfer\); install",
        version_with(copy),
    )


def test_client_commands_say_which_version_they_are() -> None:
    for name in ("binderctl", "binder-servicemanager", "binderclient-aidl"):
        command = [Path(sys.executable).with_name(name), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.split()[-1] == project_version()


def test_debians_changelog_has_the_version() -> None:
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    assert f"({project_version().replace('.dev', '~dev')})" in first


# The source distribution


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_source_distribution_has_everything(tmp_path: Path) -> None:
    build = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, tmp_path],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames() if "/" in name}
        files = {m.name.partition("/")[2] for m in opened.getmembers() if m.isfile()}
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert tracked - packed == set()
    made = {"PKG-INFO", "setup.cfg"}
    ours = {name for name in files - tracked - made if ".egg-info/" not in name}
    assert {name for name in ours if not is_untracked(name)} == set()


def is_untracked(name: str) -> bool:
    """Whether git knows it as new: not yet added, not ignored."""
    command = ["git", "ls-files", "--others", "--exclude-standard", "--error-unmatch", name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
