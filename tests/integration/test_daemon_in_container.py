# SPDX-License-Identifier: Apache-2.0
"""The daemon in a container that has /dev/fuse, CAP_SYS_ADMIN and CAP_SYS_PTRACE beside the usual.

That is ``docker run --device /dev/fuse --cap-add SYS_ADMIN --cap-add SYS_PTRACE``: it starts,
serves who is in there with it, and says what it lacks.
"""

from __future__ import annotations

import select
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.blocking import Device
from binderclient.errors import DeviceError
from channel.helpers import SECONDS_MAX, needs_fuse
from channel.namespaces import started
from integration.test_container_tools import shared  # noqa: F401 - a fixture
from support.containers import (
    PATIENCE,
    ROOT,
    Bundle,
    bubblewrap,
    why_no_bubblewrap,
    why_no_runc,
)
from support.rights import DOCKER, denying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

RIGHTS: Final = sorted(DOCKER | {"SYS_ADMIN", "SYS_PTRACE"})
# $1: Python; $2: the examples; $3: where to mount. Everything is in the container: daemon, service
# manager, a service that is sent a file, its caller.
INSIDE: Final = """
"$1" -m binderd --mount "$3" --device binder & daemon=$!
until test -e "$3/binder"; do kill -0 $daemon; sleep 0.1; done
"$1" -m binderclient.servicemanager --device "$3/binder" 2>&1 & manager=$!
until "$1" -m binderclient --device "$3/binder" list 2>/dev/null; do kill -0 $manager; done
"$1" "$2/file_service.py" serve "$3/binder" & service=$!
"$1" -m binderclient --device "$3/binder" wait org.example.sorter
"$1" "$2/file_service.py" /etc/passwd "$3/binder"
kill $service; wait $service
kill $manager; wait $manager
kill $daemon
if wait $daemon; then echo ended; fi
"""
LACKS: Final = (
    "CAP_SYS_NICE is missing",
    "clients with a seccomp filter receive files only if they attach a socket",
    "--security-opt seccomp=unconfined",
)


@pytest.fixture(params=["bubblewrap", "runc"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The words before a command that runs in there; $3 of INSIDE is below /run."""
    example = [sys.executable, str(ROOT / "client" / "examples"), "/run/binderfs"]
    command = ["sh", "-euc", INSIDE, "sh", *example]
    if request.param == "bubblewrap":
        if why_no_bubblewrap():
            pytest.skip(why_no_bubblewrap())
        added = [word for name in RIGHTS for word in ("--cap-add", f"CAP_{name}")]
        fuse = ["--dev-bind", "/dev/fuse", "/dev/fuse"]
        words = bubblewrap("--unshare-pid", *fuse, "--cap-drop", "ALL", *added)
        yield [*words, *denying(), *command]
        return
    if why := why_no_runc(tmp_path / "try"):
        pytest.skip(why)
    bundle = Bundle(tmp_path / "b", capabilities=RIGHTS, has_fuse=True)
    yield bundle.words(*command)
    bundle.clean_up()


def test_it_starts_serves_and_says_what_it_lacks(container: list[str]) -> None:
    done = subprocess.run(container, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    with open("/etc/passwd", encoding="utf-8") as file:
        assert min(file) in done.stdout
    assert done.stdout.endswith("ended\n")
    for lack in LACKS:
        assert lack in done.stderr
    assert "Traceback" not in done.stderr


def test_who_is_outside_of_it_is_refused_and_that_is_said_once(shared: Path) -> None:  # noqa: F811
    """It has a pid namespace of its own; its mount is seen outside, as by ``rshared``."""
    if why_no_bubblewrap():
        pytest.skip(why_no_bubblewrap())
    mount = shared / "mount"
    words = ["unshare", "--pid", "--fork", "--kill-child=SIGTERM"]
    script = 'mount -t proc proc /proc && exec "$@"'
    words += ["unshare", "--mount", "--propagation", "unchanged", "sh", "-ec", script, "sh"]
    words += [sys.executable, "-m", "binderd", "--mount", str(mount), "--device", "binder"]
    with started(words) as daemon:
        assert daemon.stderr is not None
        assert "ready" in daemon.stderr.readline()
        daemon.stderr.readline()
        for _ in range(2):
            with pytest.raises(DeviceError, match="runs in a container and you outside"):
                Device(str(mount / "binder"))
        ready, _, _ = select.select([daemon.stderr], [], [], SECONDS_MAX)
        assert ready, "the log says nothing"
        line = daemon.stderr.readline()
        assert "outside of the pid namespace of this daemon" in line
        assert "--pid=host" in line
        daemon.kill()  # who waits for it; it gets SIGTERM then
        rest = daemon.stderr.read()
    assert "SIGTERM: ending" in rest
    assert "refused" not in rest
