# SPDX-License-Identifier: Apache-2.0
"""Clients in namespaces of their own, with the device as containers are given it.

What docker, LXC and Kubernetes do with ``-v /dev/binder:/dev/binder``, ``lxc.mount.entry = ... none
bind,create=file`` and a hostPath volume is one mount each: here it is made with ``mount``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import SECONDS_MAX, needs_fuse, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_fuse

PEER: Final = Path(__file__).parents[1] / "client" / "peer.py"
# $1: the device, or the directory of it; $2: where it is to be; $3: "file" or "directory"; $4: rw
# or ro; the rest: the program.
SCRIPT: Final = """\
if [ $3 = file ]; then touch "$2"; else mkdir -p "$2"; fi
mount --rbind "$1" "$2"
if [ $4 = ro ]; then mount -o remount,bind,ro "$2"; fi
shift 4
exec "$@"
"""
PROGRAM: Final = """
import sys
from binderclient.blocking import Device
from binderclient.parcel import Parcel
content = bytes(range(256)) * 16
with Device(sys.argv[1]) as device:
    for _ in range(3):
        request = Parcel.for_interface("org.binderd.test.IPeer")
        request.write_bytes(content)
        with device.context_manager.call(1, request) as reply:
            assert reply.read_blob() == content
print("answered", flush=True)
"""
NAMESPACES: Final = {
    "mount": ("--mount",),
    "pid": ("--mount", "--pid", "--fork", "--mount-proc"),
    "user": ("--mount", "--user", "--map-root-user"),
    "pid and user": ("--mount", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"),
}


@pytest.fixture(scope="module", params=["auto", "off"])
def mount(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A daemon, and somebody who answers behind its first device."""
    place = tmp_path_factory.mktemp("containers") / "mount"
    for parent in place.parents:
        if parent.name.startswith(("pytest", "containers")):
            parent.chmod(0o755)
    with running(place, "--transport", "fuse", "--passthrough", request.param) as daemon:
        words = [sys.executable, str(PEER), str(place / "binder")]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield place
            server.kill()
        daemon.wait_for_counts(opens=0, processes=0)
        assert daemon.end() == 0


def container(
    namespaces: tuple[str, ...], what: Path, there: Path, kind: str, access: str, device: Path
) -> subprocess.Popen[bytes]:
    words = ["unshare", *namespaces, "sh", "-ec", SCRIPT, "sh", str(what), str(there), kind, access]
    program = [sys.executable, "-c", PROGRAM, str(device)]
    return subprocess.Popen([*words, *program], stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> str:
    output, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0
    return output.decode()


@pytest.mark.parametrize("access", ["rw", "ro"])
@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("namespaces", NAMESPACES.values(), ids=NAMESPACES)
def test_a_client_in_a_container(
    mount: Path, tmp_path: Path, namespaces: tuple[str, ...], kind: str, access: str
) -> None:
    what = mount / "binder" if kind == "file" else mount
    there = tmp_path / "there"
    device = there if kind == "file" else there / "binder"
    assert said(container(namespaces, what, there, kind, access, device)) == "answered\n"


def test_many_containers_share_a_file(mount: Path, tmp_path: Path) -> None:
    """They open it at once, each through a bind mount of its own or the same."""
    common = tmp_path / "common"
    common.touch()
    subprocess.run(["mount", "--bind", mount / "binder", common], check=True)
    try:
        processes = [
            container(("--mount",), common, tmp_path / str(number), "file", "rw", place)
            for number in range(6)
            for place in [tmp_path / str(number) if number % 2 else common]
        ]
        assert [said(process) for process in processes] == ["answered\n"] * 6
    finally:
        subprocess.run(["umount", common], check=True)
