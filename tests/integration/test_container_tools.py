# SPDX-License-Identifier: Apache-2.0
"""docs/CONTAINERS.md, tried: clients in containers of bubblewrap's and runc's.

The binds are those that docker, podman, Kubernetes, LXC and flatpak make; all of them end in the
same mount(2). The daemon is outside here; ``test_daemon_in_container.py`` has it inside.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import needs_fuse, running
from client.drivers import MountedDaemon
from integration.client.test_with import has_user_namespaces
from integration.test_containers import PEER, PROGRAM
from support.containers import PATIENCE, Bundle, bubblewrap, why_no_bubblewrap, why_no_runc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = [
    needs_fuse,
    pytest.mark.skipif(why_no_bubblewrap() != "", reason=why_no_bubblewrap() or "none"),
]

ORDINARY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
AT_ONCE: Final = 8
WAIT_FIRST: Final = f"print('up', flush=True); import sys; sys.stdin.read()\n{PROGRAM}"
# How is the device open, and through which mount?
HOW_OPEN: Final = """
import fcntl, os, sys
from binderclient.blocking import Device
with Device(sys.argv[1]) as device:
    for entry in os.scandir("/proc/self/fd"):
        if os.path.lexists(entry) and os.readlink(entry) == sys.argv[1]:
            print(fcntl.fcntl(int(entry.name), fcntl.F_GETFL) & os.O_ACCMODE)
"""


@pytest.fixture(scope="module", params=["auto", "off"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Where a daemon's devices are; somebody answers behind each."""
    mount = tmp_path_factory.mktemp("tools") / "mount"
    open_up(mount)
    with running(mount, "--transport", "fuse", "--passthrough", request.param) as daemon:
        with ExitStack() as stack:
            for name in ("binder", "hwbinder", "vndbinder"):
                stack.enter_context(served([sys.executable, str(PEER), str(mount / name)]))
            yield mount
        daemon.wait_for_counts(opens=0, processes=0)
        assert daemon.end() == 0


def open_up(path: Path) -> None:
    for parent in path.parents:
        if parent.name.startswith(("pytest", "tools", "test_")):
            parent.chmod(0o755)


def piped(words: Sequence[object]) -> subprocess.Popen[str]:
    """Start a program that is talked to."""
    return subprocess.Popen(
        [*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def served(words: Sequence[object]) -> Iterator[subprocess.Popen[str]]:
    """A program that says that it is ready, and ends with its standard input."""
    with piped(words) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def said(words: Sequence[object]) -> str:
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(code: str, device: object) -> list[object]:
    return [sys.executable, "-c", code, device]


# bubblewrap

BINDS: Final = {
    "ro-bind of the directory": ("--ro-bind", "", "/dev/binderfs", "/dev/binderfs/binder"),
    "dev-bind of the directory": ("--dev-bind", "", "/dev/binderfs", "/dev/binderfs/binder"),
    "bind of a file": ("--bind", "binder", "/dev/binder", "/dev/binder"),
    "ro-bind of a file": ("--ro-bind", "binder", "/dev/binder", "/dev/binder"),
}
KINDS: Final = {
    "pid": ((), ("--unshare-pid",)),
    "pid and user": ((), ("--unshare-user", "--unshare-pid", "--uid", "1000")),
    "everything": ((), ("--unshare-all", "--cap-drop", "ALL")),
    "rootless": (ORDINARY, ("--unshare-user", "--unshare-pid")),
    "rootless, everything": (ORDINARY, ("--unshare-all", "--uid", "0")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bind", BINDS)
def test_a_client_in_bubblewrap(place: Path, bind: str, kind: str) -> None:
    before, options = KINDS[kind]
    if before and not has_user_namespaces():
        pytest.skip("ordinary users may have no user namespaces here")
    how, what, where, device = BINDS[bind]
    words = [*before, *bubblewrap(*options, how, place / what, where)]
    assert said([*words, *program(PROGRAM, device)]) == "answered\n"


@pytest.mark.parametrize(("how", "mode"), [("--ro-bind", "0"), ("--bind", "2")])
def test_where_the_mount_is_read_only_the_file_is_opened_so(
    place: Path, how: str, mode: str
) -> None:
    words = bubblewrap("--unshare-pid", how, place, "/dev/binderfs")
    opened = said([*words, *program(HOW_OPEN, "/dev/binderfs/binder")])
    assert set(opened.split()) == {mode}


def test_many_containers_open_a_file_at_once(place: Path) -> None:
    """Each has it by a bind mount of its own; none may get ESTALE, or another's pages."""
    words = bubblewrap("--unshare-pid", "--bind", place / "binder", "/dev/binder")
    command = [*words, *program(WAIT_FIRST, "/dev/binder")]
    with ExitStack() as stack:
        clients = [stack.enter_context(piped(command)) for _ in range(AT_ONCE)]
        for client in clients:
            assert client.stdout.readline() == "up\n"
        for client in clients:
            client.stdin.close()
        assert [client.stdout.read() for client in clients] == ["answered\n"] * AT_ONCE


def test_a_file_that_is_bound_is_bound_again(place: Path, tmp_path: Path) -> None:
    script = """
    cd "$2" && touch bound again && mount --bind "$1" bound && stat "$1" >&2
    mount --bind bound again && shift 2 && exec "$@" """
    words = ["unshare", "--mount", "sh", "-euc", script, "sh", place / "binder", tmp_path]
    assert said([*words, *program(PROGRAM, tmp_path / "again")]) == "answered\n"


def test_a_file_that_was_opened_since_is_bound_again_by_its_first_name_only(
    place: Path, tmp_path: Path
) -> None:
    """docs/CONTAINERS.md: an open has the name lead to another inode than the bound one."""
    script = """
    cd "$2" && touch bound again && mount --bind "$1" bound
    exec 3<>"$1" 4<>"$1"
    if mount --bind bound again 2>&1; then exit 1; fi
    mount --bind "$1" again && shift 2 && exec "$@" """
    words = ["unshare", "--mount", "sh", "-euc", script, "sh", place / "binder", tmp_path]
    output = said([*words, *program(PROGRAM, tmp_path / "again")])
    assert "No such file or directory" in output
    assert output.endswith("answered\n")


# runc


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[list[Bundle]]:
    why = why_no_runc(tmp_path / "try")
    if why:
        pytest.skip(why)
    made: list[Bundle] = []
    yield made
    for bundle in made:
        bundle.clean_up()


@pytest.mark.parametrize("users", [0, 200_000], ids=["root", "users of its own"])
@pytest.mark.parametrize("options", ["rbind,rslave", "rbind,rslave,ro,nosuid,nodev,noexec"])
@pytest.mark.parametrize("what", ["", "binder"], ids=["directory", "file"])
def test_a_client_in_runc(
    place: Path, tmp_path: Path, bundles: list[Bundle], what: str, options: str, users: int
) -> None:
    open_up(tmp_path / "x")
    where = "/dev/binder" if what else "/dev/binderfs"
    device = where if what else f"{where}/binder"
    bundle = Bundle(tmp_path / "b", binds=[(place / what, where, options)], users=users)
    bundles.append(bundle)
    assert said(bundle.words(*program(PROGRAM, device))) == "answered\n"


# LXC

# As Waydroid writes them, but for the first word; the last one is of what is not there.
ENTRIES: Final = """\
lxc.mount.entry = DIR/binder dev/binder none bind,create=file,optional 0 0
lxc.mount.entry = DIR/vndbinder dev/vndbinder none bind,create=file,optional 0 0
lxc.mount.entry = DIR/hwbinder dev/hwbinder none bind,create=file,optional 0 0
lxc.mount.entry = DIR/ashmem dev/ashmem none bind,create=file,optional 0 0
"""
# What LXC does with an entry, in a mount namespace of its own. $1: its root; $2: the entries.
PLAY: Final = """\
mkdir -p "$1/dev"
printf '%s' "$2" | while read -r _ _ source target _ options _; do
    case $options in *create=file*) : >>"$1/$target" ;; esac
    mount -o "${options%%,*}" "$source" "$1/$target" 2>/dev/null ||
        case $options in *optional*) rm "$1/$target" ;; *) exit 1 ;; esac
done
shift 2
exec "$@"
"""


def test_the_entries_of_waydroid(place: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ["unshare", "--mount", "--pid", "--fork", "sh", "-euc", PLAY, "sh", root]
    words.append(ENTRIES.replace("DIR", str(place)))
    listed = said([*words, "ls", root / "dev"])
    assert listed.split() == ["binder", "hwbinder", "vndbinder"]
    for name in listed.split():
        assert said([*words, *program(PROGRAM, root / "dev" / name)]) == "answered\n"


# Files, deaths and a restart, seen from inside

FILES_AND_DEATH: Final = """
import sys, threading
from binderclient.blocking import Device
from binderclient.parcel import Parcel
def asked(device, code, *numbers):
    request = Parcel.for_interface("org.binderd.test.IPeer")
    for number in numbers:
        request.write_int32(number)
    return device.context_manager.call(code, request)
died = threading.Event()
with Device(sys.argv[1]) as device:
    device.start_thread_pool()
    with asked(device, 14, 3) as reply:  # LEND
        for _ in range(3):
            with reply.read_file().open() as file:
                file.seek(0)
                print("file", file.read(), flush=True)
    with asked(device, 11) as reply:  # GIVE
        gift = reply.read_strong_binder()
    gift.link_to_death(lambda _: died.set())
    print("linked", flush=True)
    assert died.wait(60)
    print("died", flush=True)
"""
RESTARTED: Final = """
import sys
from binderclient.blocking import Device
with Device(sys.argv[1], reconnect=True) as device:
    print("open", flush=True)
    sys.stdin.readline()
    assert device.wait_back(60)
    print("back", flush=True)
"""
OPENED_AGAIN: Final = """
import errno, os, sys
os.close(os.open(sys.argv[1], os.O_RDWR))
print("open", flush=True)
sys.stdin.readline()
try:
    os.open(sys.argv[1], os.O_RDWR)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
"""


def test_files_and_deaths_pass_between_containers(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    words = bubblewrap("--unshare-pid", "--bind", mount / "binder", "/dev/binder")
    with (
        running(mount, "--device", "binder") as daemon,
        served([*words, sys.executable, PEER, "/dev/binder"]) as server,
        piped([*words, *program(FILES_AND_DEATH, "/dev/binder")]) as client,
    ):
        assert client.stdout is not None
        lines = [client.stdout.readline() for _ in range(4)]
        assert lines == ["file 0\n", "file 1\n", "file 2\n", "linked\n"]
        server.kill()
        assert client.stdout.readline() == "died\n"
        assert client.wait(PATIENCE) == 0
        daemon.wait_for_counts(opens=0, processes=0)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory below which mounts propagate, as below / on a system with systemd."""
    folder = tmp_path / "shared"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("what", "where", "device", "code", "then"),
    [
        ("", "/mnt", "/mnt/mount/test0", RESTARTED, "back"),
        ("mount", "/mnt", "/mnt/test0", OPENED_AGAIN, "ENOTCONN"),
        ("mount/test0", "/dev/binder", "/dev/binder", OPENED_AGAIN, "ENOTCONN"),
    ],
    ids=["the directory above", "the directory", "a file"],
)
def test_after_a_restart(
    shared: Path, what: str, where: str, device: str, code: str, then: str
) -> None:
    daemon = MountedDaemon(shared, 1)
    words = bubblewrap("--unshare-pid", "--bind", shared / what, where)
    try:
        with piped([*words, *program(code, device)]) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "open\n"
            daemon.kill()
            daemon.start()
            assert client.communicate("\n", timeout=PATIENCE)[0] == f"{then}\n"
    finally:
        daemon.clean_up()
