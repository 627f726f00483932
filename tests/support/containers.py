# SPDX-License-Identifier: Apache-2.0
"""Containers as bubblewrap and runc make them: the words before a command that run it in one.

What is in them is what is here, read-only: so that they find Python and this checkout. Their /dev,
/tmp and /run are their own, and hold what a test puts there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.patience import patience

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = patience(60.0)  # seconds until something is considered stuck

# The first that is not there any more ends the others.
BUBBLEWRAP: Final = (
    *("bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"),
    *("--die-with-parent", "--new-session"),
)
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
# Calls that a container engine's filter denies; that there is one is what matters.
_DENIED: Final = ("add_key", "keyctl", "request_key", "kexec_load")


def why_no_bubblewrap() -> str:
    """Return why it cannot be used; "": it can."""
    return _why_not([*BUBBLEWRAP, "--unshare-pid", "true"])


def why_no_runc(folder: Path) -> str:
    """Return why it cannot be used; "": it can."""
    return _why_not(Bundle(folder).words("true"))


def _why_not(words: Sequence[str]) -> str:
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed"
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return f"{words[0]} cannot run here: {done.stderr.strip()}" if done.returncode else ""


def bubblewrap(*options: object) -> list[str]:
    """Return the words before a command for a container of bubblewrap's."""
    return [*BUBBLEWRAP, *map(str, options)]


class Bundle:
    """Containers of runc's: what it reads, in a folder.

    Args:
        folder: where; made here.
        capabilities: without CAP_, as engines have them.
        binds: (what, where to, options) of more mounts.
        has_fuse: is /dev/fuse in there, as with ``--device /dev/fuse``?
        users: the number that root in there has outside; 0: it is root.
        is_filtered: is there a seccomp filter, as engines have one by default?
    """

    def __init__(
        self,
        folder: Path,
        *,
        capabilities: Sequence[str] = (),
        binds: Sequence[tuple[object, str, str]] = (),
        has_fuse: bool = False,
        users: int = 0,
        is_filtered: bool = True,
    ) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._count = 0
        self._capabilities = [f"CAP_{name}" for name in capabilities]
        self._binds = binds
        self._has_fuse = has_fuse
        self._users = users
        self._is_filtered = is_filtered
        root = folder / "root"
        for name in ("proc", "dev", "tmp", "run", "sys", *(path[1:] for path in _SYSTEM)):
            (root / name).mkdir(parents=True)
        os.chown(root, users, users)  # who makes the rest of what is mounted on

    def words(self, *command: object) -> list[str]:
        """Return what runs a command in a new container."""
        self._count += 1
        bundle = self._folder / str(self._count)
        bundle.mkdir()
        config = json.dumps(self._config([str(word) for word in command]))
        (bundle / "config.json").write_text(config, encoding="utf-8")
        name = f"binderd-test-{os.getpid()}-{self._folder.name}-{self._count}"
        return ["runc", "--root", str(self._state), "run", "--bundle", str(bundle), name]

    def clean_up(self) -> None:
        """End what is left of them."""
        for state in self._state.glob("*"):
            words = ["runc", "--root", str(self._state), "delete", "--force", state.name]
            subprocess.run(words, timeout=PATIENCE, check=True)

    def _config(self, command: list[str]) -> dict[str, object]:
        names = ("PATH", "PYTHONPATH", "BINDERD_TEST_SESSION")
        sets = ("bounding", "effective", "permitted")
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": command,
                "env": [f"{name}={os.environ[name]}" for name in names if name in os.environ],
                "cwd": "/",
                "capabilities": dict.fromkeys(sets, self._capabilities),
            },
            "root": {"path": str(self._folder / "root"), "readonly": False},
            "mounts": self._mounts(),
            "linux": self._linux(),
        }

    def _mounts(self) -> list[dict[str, object]]:
        own = {"/dev": "mode=755", "/tmp": "mode=1777", "/run": "mode=755"}
        mounts: list[dict[str, object]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
        ]
        for place, mode in own.items():
            options = ["nosuid", mode]
            mounts.append(
                {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}
            )
        paths = [entry for entry in sys.path if entry.startswith("/")]
        ours = sorted({str(ROOT), sys.prefix, sys.base_prefix, *paths} - set(_SYSTEM))
        shown = [path for path in ours if Path(path).is_dir() and not path.startswith("/usr/")]
        binds = [(path, path, "rbind,ro") for path in (*_SYSTEM, *shown)]
        return mounts + [_bind(*bind) for bind in (*binds, *self._binds)]

    def _linux(self) -> dict[str, object]:
        kinds = ["pid", "mount", "ipc", "uts", *(["user"] if self._users else [])]
        linux: dict[str, object] = {"namespaces": [{"type": kind} for kind in kinds]}
        if self._users:
            ids = [{"containerID": 0, "hostID": self._users, "size": 65536}]
            linux |= {"uidMappings": ids, "gidMappings": ids}
        if self._has_fuse:
            device = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
            rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
            deny = {"allow": False, "access": "rwm"}
            linux |= {"devices": [{**device, "fileMode": 0o666}]}
            linux |= {"resources": {"devices": [deny, rule]}}
        if self._is_filtered:
            denied = {"names": _DENIED, "action": "SCMP_ACT_ERRNO"}
            linux |= {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}}
        return linux


def _bind(what: object, where: str, options: str) -> dict[str, object]:
    return {
        "destination": where,
        "type": "bind",
        "source": str(what),
        "options": options.split(","),
    }
