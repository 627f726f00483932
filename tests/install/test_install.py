# SPDX-License-Identifier: Apache-2.0
"""``systemd/install.sh``: everything is put somewhere, and all of it is removed again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
EXPECTED = (
    "bin/binderd",
    "bin/binderctl",
    "bin/binder-servicemanager",
    "bin/binderclient-aidl",
    "include/binderd.h",
    "include/binderd_lane.h",
    "lib/systemd/system/binderd.service",
    "share/man/man8/binderd.8",
    "share/man/man1/binderctl.1",
    "share/man/man1/binder-servicemanager.1",
    "share/man/man1/binderclient-aidl.1",
    "share/man/man8/mount.binder.8",
    "lib/systemd/system/binder-servicemanager@.service",
    "lib/sysusers.d/binderd.conf",
    "share/bash-completion/completions/binderctl",
    "share/zsh/site-functions/_binderctl",
    "share/fish/vendor_completions.d/binderctl.fish",
    "share/doc/binderd/README.md",
    "share/doc/binderd/examples/echo_service.py",
)
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"no {PYTHON}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel, interpreted as that is soon made, and the manual."""
    base = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-W", "ignore", "setup.py", "-q"]
    command += ["build", f"--build-base={base / 'base'}"]
    command += ["bdist_wheel", f"--dist-dir={base}", f"--bdist-dir={base / 'temporary'}"]
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "BINDERD_COMPILE": "0"},
        check=True,
        capture_output=True,
    )
    subprocess.run([sys.executable, "docs/manual", base / "manual"], cwd=ROOT, check=True)
    return base


def install(built: Path, root: Path, *words: str, prefix: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "DESTDIR": str(root),
        "PREFIX": prefix,
        "MANUAL": str(built / "manual"),
        "PYTHON": PYTHON,
    }
    return subprocess.run(
        [ROOT / "systemd" / "install.sh", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("prefix", ["/usr/local", "/usr", "/opt/a/b"])
def test_installed_and_removed(built: Path, tmp_path: Path, prefix: str) -> None:
    (wheel,) = built.glob("*.whl")
    other = tmp_path / prefix[1:] / "bin" / "of-somebody-else"
    other.parent.mkdir(parents=True)
    other.touch()
    done = install(built, tmp_path, "all", str(wheel), prefix=prefix)
    assert done.returncode == 0, done.stderr

    found = files_below(tmp_path)
    assert {f"{prefix[1:]}/{name}" for name in EXPECTED} <= found
    unit = (tmp_path / prefix[1:] / "lib/systemd/system/binderd.service").read_text()
    assert f"\nExecStart={prefix}/bin/binderd\n" in unit
    elsewhere = {name for name in found if not name.startswith(f"{prefix[1:]}/")}
    sbin = "usr/sbin" if prefix == "/usr" else "sbin"
    helpers = {f"{sbin}/mount.binder", f"{sbin}/umount.fuse.binderd"}
    assert helpers <= found
    assert elsewhere - helpers == {"etc/binderd/binderd.toml"}
    (package,) = (name for name in found if name.endswith("binderclient/libbinderd-preload.so"))
    assert (tmp_path / package).stat().st_size > 0
    (worker,) = (name for name in found if name.endswith("binderclient/binderd-stress-worker"))
    assert os.access(tmp_path / worker, os.X_OK)

    (_grammar,) = (name for name in found if name.endswith("binderclient/aidl/grammar.lark"))

    again = install(built, tmp_path, "all", str(wheel), prefix=prefix)
    assert again.returncode == 0, again.stderr
    assert files_below(tmp_path) == found
    assert install(built, tmp_path, "uninstall", prefix=prefix).returncode == 0
    kept = {parent for parent in other.parents if tmp_path in parent.parents}
    assert set(tmp_path.rglob("*")) == {other, *kept}


def test_commands_find_what_python_does_not_search(built: Path, tmp_path: Path) -> None:
    """Below a PREFIX of its own; also the Python that the daemon itself starts finds it."""
    (wheel,) = built.glob("*.whl")
    assert install(built, tmp_path, "all", str(wheel), prefix="/opt/b").returncode == 0
    commands = tmp_path / "opt/b/bin"
    daemon = (commands / "binderd").read_text()
    assert 'sys.path.insert(0, "/opt/b/lib/binderd/python")' in daemon
    assert 'os.environ["PYTHONPATH"] = "/opt/b/lib/binderd/python"' in daemon
    assert "PYTHONPATH" not in (commands / "binderctl").read_text()


def test_a_configuration_that_was_changed_stays(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    configuration = tmp_path / "etc/binderd/binderd.toml"
    for words in (("all", str(wheel)), ("all", str(wheel)), ("uninstall",)):
        assert install(built, tmp_path, *words, prefix="/usr/local").returncode == 0
        if words[0] == "all":
            assert "log-level" in configuration.read_text()
            configuration.write_text("# mine; log-level\n")
    assert files_below(tmp_path) == {"etc/binderd/binderd.toml"}
    assert configuration.read_text().startswith("# mine")


@pytest.mark.parametrize("prefix", ["usr", "/with space", "/a|b"])
def test_prefixes_that_cannot_be(built: Path, tmp_path: Path, prefix: str) -> None:
    done = install(built, tmp_path, "uninstall", prefix=prefix)
    assert done.returncode != 0
    assert f"PREFIX={prefix} is no plain absolute path" in done.stderr


def test_nothing_to_remove(built: Path, tmp_path: Path) -> None:
    done = install(built, tmp_path, "uninstall", prefix="/usr/local")
    assert done.returncode != 0
    assert "nothing is installed" in done.stderr
