# SPDX-License-Identifier: Apache-2.0
"""The rights that the documents name are enough for every feature, and a lack of one is said.

The clients belong to users who are not root: that is what most of the rights are for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderd.config import parse
from binderd.linux import mount as linux_mount
from binderd.linux import rights
from binderd.linux.mountinfo import read_mounts
from channel.helpers import SECONDS_MAX, Daemon, client, needs_fuse, run_client, running
from channel.test_device import CALLER, SERVER
from channel.test_watchdog import FAULTED, LIMIT, SERVED, USE_IT
from client.managers import ManagerProcess
from descriptors.programs import PATIENCE, Running, build
from support.rights import (
    UNIT,
    confined,
    container_capabilities,
    denying,
    only,
    unit_capabilities,
    unit_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "client" / "examples"
SERVER_UID: Final = 65534
CALLER_UID: Final = 65533
REQUIRED: Final = [right for right in rights.RIGHTS if not right.loss]
OPTIONAL: Final = [right for right in rights.RIGHTS if right.loss and not right.only_in_containers]


def named(right: rights.Right) -> str:
    return right.name


def as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", "--clear-groups", "--inh-caps=-all"]


def be_user(uid: int) -> str:
    """Python that makes a client that user's."""
    return f"os.setgroups([]); os.setresuid({uid}, {uid}, {uid})\n"


def without(*names: str) -> list[str]:
    """The confinement of the unit, and less."""
    return only(unit_capabilities() - set(names), no_new_privileges=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where to mount; everybody gets there, and what clients mounted beside it goes."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest", "test")):
            parent.chmod(0o755)
    yield tmp_path / "b"
    while left := [m.path for m in read_mounts() if m.path.startswith(str(tmp_path))]:
        linux_mount.unmount(left[0], linux_mount.MNT_DETACH)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    folder.chmod(0o755)
    return build(folder)


@pytest.fixture(params=["unit", "container"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def daemon_of(place: Path, confinement: list[str], *options: str) -> Iterator[Daemon]:
    """A daemon with one device, and what it says before it is ready in ``before``."""
    with running(place, "--device", "binder", *options, confinement=confinement) as daemon:
        yield daemon
        assert daemon.end() == 0


def said_by(confinement: list[str], place: Path, *options: str) -> tuple[int, str]:
    """Return the exit status of a daemon that cannot start, and all that it says."""
    words = [*confinement, sys.executable, "-m", "binderd", "--mount", str(place), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    return done.returncode, done.stderr


def warnings_of(confinement: list[str], place: Path, *options: str) -> list[str]:
    """Return what a daemon says before it is ready."""
    words = [*confinement, sys.executable, "-m", "binderd", "--mount", str(place), *options]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            if "ready:" in line:
                break
            lines.append(line.rstrip("\n"))
        process.terminate()
        process.stderr.read()
    assert process.returncode == 0
    return lines


def text_of(daemon: Daemon) -> str:
    """Return all that a daemon has said that has ended."""
    assert daemon.process.stderr is not None
    return (daemon.said + daemon.process.stderr.read()).decode()


# The documents


def test_the_unit_has_the_rights_of_the_table_and_a_reason_for_each() -> None:
    assert unit_capabilities() == {
        right.name for right in rights.RIGHTS if not right.only_in_containers
    }
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        if line.startswith("CapabilityBoundingSet="):
            assert before.startswith("# "), f"{line} has no reason"
            assert len(line.split("=")[1].split()) == 1


def test_a_container_has_them_all() -> None:
    assert {right.name for right in rights.RIGHTS} <= container_capabilities()


def test_help_and_readme_say_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in [*rights.describe(), *rights.container_options()]:
        assert line in text
        assert line in readme


def test_the_unit_installs_no_seccomp_filter() -> None:
    """As systemd.exec(5) has it, and systemd's context_has_seccomp."""
    filtering = (
        *("SystemCall", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime"),
        *("RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "ProtectClock"),
        *("ProtectHostname", "ProtectKernel", "PrivateDevices"),
    )
    assert [name for name in unit_settings() if name.startswith(filtering)] == []


# Everything works with them


@needs_fuse
def test_nothing_is_missing(place: Path, kind: str) -> None:
    assert warnings_of(confined(kind), place) == []


@needs_fuse
def test_users_call_each_other(place: Path, kind: str) -> None:
    with daemon_of(place, confined(kind)) as daemon:
        with client(place, be_user(SERVER_UID) + SERVER) as server:
            assert server.line() == "up"
            code = (
                be_user(CALLER_UID)
                + CALLER
                + (
                    "say(word(abi.BR_REPLY) in call(one, b'hello'))\n"
                    "say(word(abi.BR_REPLY) in call(one, bytes(500000)))\n"
                )
            )
            assert run_client(place, code) == ["True", "True"]
            assert server.line().startswith("5 ")
        daemon.wait_for_counts(opens=0, processes=0, threads=0, nodes=0, buffers=0, pages=0)


SERVER_OF_NICE = SERVER.replace(
    "abi.BINDER_SET_CONTEXT_MGR, bytes(4)", "abi.BINDER_SET_CONTEXT_MGR_EXT, NODE"
).replace("say(call.data_size", "say(os.getpriority(0, 0)); (lambda *_: 0)(call.data_size")


# A user who keeps CAP_SYS_NICE, and one who may have some nice values (RLIMIT_NICE).
PRIVILEGED = f"""
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
{be_user(SERVER_UID)}
header, sets = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[1 << 23] * 2, *[0] * 4)
assert libc.capset(header, sets) == 0
"""
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_NICE, (20, 20))
{be_user(SERVER_UID)}
"""


def may_raise_limits() -> bool:
    done = subprocess.run(["prlimit", "--nice=20:20", "true"], capture_output=True, check=False)
    return done.returncode == 0


# Raising RLIMIT_NICE takes CAP_SYS_RESOURCE, which not everybody has who runs the tests.
SERVERS = {
    "worse": (PRIVILEGED, 7, 7),
    "better": (PRIVILEGED, -7, -7),
    **(
        {"within the limit": (LIMITED, 2, 2), "beyond it": (LIMITED, -7, 0)}
        if may_raise_limits()
        else {}
    ),
}


@needs_fuse
@pytest.mark.parametrize(("server", "nice", "expected"), SERVERS.values(), ids=SERVERS)
def test_a_nice_value_is_inherited(
    place: Path, kind: str, server: str, nice: int, expected: int
) -> None:
    node = "NODE = abi.flat_binder_object.build(type=abi.BINDER_TYPE_BINDER, flags=19)\n"
    code = "os.nice(3)\n" + server + node + SERVER_OF_NICE
    with daemon_of(place, confined(kind)), client(place, code) as process:
        assert process.line() == "up"
        caller = f"os.nice({nice})\n" + be_user(CALLER_UID) + CALLER + "call(one, b'')\n"
        run_client(place, caller)
        assert process.line() == str(expected)


def call(program: Path, place: Path) -> str:
    """Return what a caller complains of whom files are sent to and fro."""
    words = [*as_user(CALLER_UID), program, "call", place / "binder", 5, 2]
    return Running(Path("/usr/bin/env"), *words).errors()


@contextmanager
def receiving(program: Path, place: Path, *options: str) -> Iterator[Running]:
    words = [*as_user(SERVER_UID), program, "serve", place / "binder", *options]
    server = Running(Path("/usr/bin/env"), *words)
    try:
        server.expect("ready")
        yield server
    finally:
        server.kill()


@needs_fuse
@pytest.mark.parametrize("options", [["patient"], ["seccomp", "patient"]], ids=["plain", "filter"])
def test_files_by_ptrace(place: Path, kind: str, program: Path, options: list[str]) -> None:
    with daemon_of(place, confined(kind)), receiving(program, place, *options) as server:
        own = server.descriptors()
        assert call(program, place) == ""
        server.expect_descriptors(own)


@needs_fuse
def test_files_through_the_socket(place: Path, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("b\na\n")
    file.chmod(0o644)
    device = str(place / "binder")
    example = [sys.executable, str(EXAMPLES / "file_service.py")]
    with daemon_of(place, confined(kind), "--descriptors", "attach-only") as daemon:
        manager = ManagerProcess(place / "binder", tmp_path)
        service = subprocess.Popen([*as_user(SERVER_UID), *example, "serve", device])
        try:
            words = [*as_user(CALLER_UID), *example, str(file), device]
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=PATIENCE, check=True
            )
            assert done.stdout == "2 lines\na\nb\n"
        finally:
            service.terminate()
            service.wait(PATIENCE)
            manager.end()
        daemon.wait_for_counts(opens=0, files=0)


# Its owner is another user, who may not abort it but we may.
SERVED_BY_A_USER = SERVED.replace("user_id=0", f"user_id={SERVER_UID}").replace(
    "rootmode=40000", "allow_other,rootmode=40000"
)
LATE = f"keeps its memory back for more than {LIMIT:g} s"


@needs_fuse
@pytest.mark.parametrize("hostile", [FAULTED, SERVED_BY_A_USER], ids=["uffd", "fuse"])
def test_a_client_of_another_user_that_stalls_is_killed(
    place: Path, kind: str, hostile: str
) -> None:
    options = ("--device", "binder", "--stall-limit", f"{LIMIT:g}")
    with running(place, *options, confinement=confined(kind)) as daemon:
        code = "import fcntl, struct\n" + hostile + be_user(SERVER_UID) + USE_IT
        with client(place, code) as process:
            assert process.line() == "about to"
            said = daemon.expect("keeps its memory back")
            assert said == f"binderd: client {process.process.pid} {LATE}: killed"
            assert process.process.wait(SECONDS_MAX) == -9
        assert daemon.end() == 0
        rest = text_of(daemon)
        assert ("FUSE connection" in rest) == (hostile == SERVED_BY_A_USER), rest


# What is missing is said


@needs_fuse
def test_without_net_admin(place: Path) -> None:
    """The rights that were documented before: the helper's socket must not need more."""
    words = only(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_CHOWN"])
    assert [line.split(",")[0] for line in warnings_of(words, place)] == [
        f"binderd: {right.loss}" for right in OPTIONAL if right.name != "CAP_CHOWN"
    ]


@needs_fuse
@pytest.mark.parametrize("right", REQUIRED, ids=named)
def test_a_required_right_is_demanded(place: Path, right: rights.Right) -> None:
    status, text = said_by(without(right.name), place)
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith(f"binderd: needs {right.name} to {right.purpose}: start as root")
    assert not place.exists()


@needs_fuse
@pytest.mark.parametrize("right", OPTIONAL, ids=named)
def test_what_is_lost_without_an_optional_right_is_said(place: Path, right: rights.Right) -> None:
    [line] = warnings_of(without(right.name), place)
    assert line.startswith(f"binderd: {right.loss}, as {right.name} is missing: ")


@needs_fuse
def test_a_client_that_cannot_be_killed(place: Path) -> None:
    """The log tells what happened; the daemon goes on, as the connection is aborted."""
    options = ("--device", "binder", "--stall-limit", f"{LIMIT:g}")
    with running(place, *options, confinement=without("CAP_KILL")) as daemon:
        code = "import fcntl, struct\n" + SERVED_BY_A_USER + be_user(SERVER_UID)
        before, _, last = USE_IT.rpartition("fcntl.ioctl(")
        code += before + "say(outcome(fcntl.ioctl, " + last.replace("bwr)", "bwr))")
        with client(place, code + "wait_for_line()\n") as process:
            assert process.line() == "about to"
            said = daemon.expect("keeps its memory back")
            assert said.startswith(f"binderd: client {process.process.pid} {LATE}, and cannot be")
            assert "Operation not permitted" in said
            daemon.expect("from which that memory comes: aborted")
            assert process.line() == "EFAULT"
            assert process.process.poll() is None
        assert daemon.end() == 0
        assert ": killed" not in text_of(daemon)


@needs_fuse
@pytest.mark.parametrize("call", ["process_vm_readv", "process_vm_writev"])
def test_a_call_that_is_denied_ends_the_start(place: Path, call: str) -> None:
    status, text = said_by([*confined("unit"), *denying(call)], place)
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith(f"binderd: clients cannot be served: {call}: denied (Operation not p")
    assert "by the seccomp filter that the daemon runs under" in text
    assert "--security-opt seccomp=unconfined" in text
    assert not place.exists()


DENIED: Final = {
    "ptrace": "only clients that attach a socket receive files: ptrace: denied (Operation not p",
    "pidfd_getfd": "no file descriptors in transactions, no client can attach a socket: pidfd_getf",
    "pidfd_send_signal": "--stall-limit cannot kill anybody: pidfd_send_signal: denied (Operation ",
}


@needs_fuse
@pytest.mark.parametrize("call", DENIED)
def test_a_feature_whose_call_is_denied_is_named(place: Path, call: str) -> None:
    lines = warnings_of([*confined("unit"), *denying(call)], place)
    assert any(line.startswith(f"binderd: {DENIED[call]}") for line in lines), lines
    assert all("by the seccomp filter that the daemon runs under" in line for line in lines)


@needs_fuse
def test_what_was_never_shown_is_not_said_to_have_gone(place: Path) -> None:
    confinement = [*confined("unit"), *denying("move_mount")]
    with running(place, "--device", "binder", confinement=confinement) as daemon:
        daemon.expect("without features and binder_logs")
        assert sorted(os.listdir(place / "features")) == []
        assert daemon.end() == 0
        assert "not shown any more" not in text_of(daemon)


@needs_fuse
def test_what_clients_need_whose_receive_area_is_handed_over(place: Path) -> None:
    words = [*confined("unit"), *denying("pidfd_getfd")]
    status, text = said_by(words, place, "--transport", "cuse")
    assert (status, text.count("\n")) == (1, 1)
    assert text.startswith("binderd: clients cannot be served: pidfd_getfd: denied")


@needs_fuse
def test_a_filter_of_our_own_and_receivers_with_one(place: Path, program: Path) -> None:
    """Why the unit has no option that installs one: whatever it allows, these get no files."""
    confinement = [*confined("unit"), *denying()]
    daemon = Daemon(place, "--device", "binder", confinement=confinement)
    try:
        said = daemon.expect("seccomp filter receive files only if they attach a socket")
        assert "PTRACE_O_SUSPEND_SECCOMP: denied" in said
        daemon.expect("ready:")
        with receiving(program, place, "seccomp", "patient"):
            assert "no reply" in call(program, place)
        with receiving(program, place, "patient"):
            assert call(program, place) == ""
        assert daemon.end() == 0
    finally:
        daemon.clean_up()


_TRY_FIVE_TIMES = """
import os, time
from pathlib import Path
from binderd import selftest

def leftovers():
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return children, len(os.listdir("/proc/self/fd"))

before = leftovers()
durations = []
for _ in range(5):
    began = time.perf_counter()
    assert selftest.run(injects=True) == []
    durations.append(time.perf_counter() - began)
assert leftovers() == before, (leftovers(), before)
print(min(durations))
"""


def test_trying_takes_no_time_and_leaves_nothing() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    # In a process as small as a daemon at its start: a fork is as slow as the memory is large, and
    # that of a test run has grown.
    trial = [sys.executable, "-c", _TRY_FIVE_TIMES]
    said = subprocess.run(trial, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout) < 0.1
