# SPDX-License-Identifier: Apache-2.0
"""binder_logs on a real mount, while things happen: consistent, fixed once opened, bounded."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import SECONDS_MAX, Daemon, client, needs_fuse, run_client, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_fuse

CALLERS_COUNT: Final = 3
READS_COUNT: Final = 40
OPEN_MAX: Final = 128
ALICE, MALLORY = 4001, 4002

MANAGER = """
device = Device(DIR + "/binder")
device.ioctl(abi.BINDER_SET_CONTEXT_MGR, bytes(4))
device.write_read(struct.pack("=I", abi.BC_ENTER_LOOPER))
say("up")
commands = b""
while True:
    returns = device.write_read(commands, 256)
    commands = b""
    if struct.pack("=I", abi.BR_TRANSACTION) in returns:
        call = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
        body = abi.binder_transaction_data.build()
        commands = free_buffer(call.buffer) + struct.pack("=I", abi.BC_REPLY) + body
"""
# Each call brings a node that nobody keeps: nodes and refs come and go all the time.
CALLER = """
def word(number): return struct.pack("=I", number)
offsets = ctypes.create_string_buffer(struct.pack("=Q", 8), 8)
def call(device, ptr):
    data = bytes(8) + abi.flat_binder_object.pack(abi.BINDER_TYPE_BINDER, 0, ptr, 0)
    payload = ctypes.create_string_buffer(data, len(data))
    body = abi.binder_transaction_data.build(
        data_size=len(data), buffer=ctypes.addressof(payload),
        offsets_size=8, offsets=ctypes.addressof(offsets))
    returns = device.write_read(word(abi.BC_TRANSACTION) + body, 256)
    commands = b""
    while True:
        at = 4
        while at < len(returns):
            row = abi.RETURNS[struct.unpack_from("=I", returns, at)[0]]
            at += 4
            fields = row.payload.read(returns, at) if row.payload else None
            at += row.payload.size if row.payload else 0
            if row.name == "BR_INCREFS":
                commands += struct.pack("=IQQ", abi.BC_INCREFS_DONE, *fields)
            elif row.name == "BR_ACQUIRE":
                commands += struct.pack("=IQQ", abi.BC_ACQUIRE_DONE, *fields)
            elif row.name == "BR_REPLY":
                device.write_read(commands + free_buffer(fields.buffer))
                return
        returns = device.write_read(commands, 256)
        commands = b""
device = Device(DIR + "/binder")
"""


@pytest.fixture
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    options = getattr(request, "param", ())
    daemon = Daemon(
        tmp_path / "binderfs", "--device", "binder", "--limit", f"logs={OPEN_MAX}", *options
    )
    for place in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(place, 0o755)
    try:
        daemon.expect("ready:")
        yield daemon
        daemon.end_clean(processes=0, threads=0, nodes=0, refs=0, buffers=0)
    finally:
        daemon.clean_up()


@pytest.fixture
def logs(daemon: Daemon) -> Path:
    return daemon.directory / "binder_logs"


def check_state(text: str) -> int:
    """Assert that all ends of everything fit together; return how many transactions there are."""
    holders: Counter[tuple[str, str]] = Counter()  # (node, process that has a ref)
    claimed: Counter[tuple[str, str]] = Counter()
    strong: Counter[str] = Counter()
    internal: dict[str, int] = {}
    outgoing: dict[str, str] = {}  # transaction -> process that it goes to
    arriving: dict[str, str] = {}
    active: list[str] = []
    pid = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("proc "):
            pid = words[1]
        elif line.startswith("  node ") and words[1] != "work":
            node = words[1].rstrip(":")
            internal[node] = int(words[words.index("is") + 1])
            whom = words[words.index("proc") + 1 :] if "proc" in words else []
            assert len(whom) == int(words[words.index("iw") + 1])
            claimed.update((node, holder) for holder in whom)
        elif line.startswith("  ref "):
            node = words[words.index("node") + 1]
            holders[node, pid] += 1
            strong[node] += words[words.index("s") + 1] != "0"
        elif " transaction " in line and "from" in words:
            call = words[words.index("transaction") + 1].rstrip(":")
            target = words[words.index("to") + 1].split(":")[0]
            if words[0] == "outgoing":
                outgoing[call] = target
            elif " size " in line or words[-1] == "free":
                assert target == pid
                arriving[call] = pid
        elif line.startswith("  buffer ") and words[-1] == "active":
            active.append(words[1].rstrip(":"))
    assert holders == claimed
    assert {node: count for node, count in internal.items() if count} == +strong
    assert outgoing.items() <= arriving.items()
    assert set(active) <= set(arriving)
    return len(arriving)


def test_every_view_is_of_one_moment(daemon: Daemon, logs: Path) -> None:
    code = CALLER + "say('up')\nptr = 0\nwhile True:\n    ptr += 16\n    call(device, ptr)\n"
    with ExitStack() as stack:
        manager = stack.enter_context(client(daemon.directory, MANAGER))
        assert manager.line() == "up"
        for _ in range(CALLERS_COUNT):
            assert stack.enter_context(client(daemon.directory, code)).line() == "up"
        counts = [check_state((logs / "state").read_text()) for _ in range(READS_COUNT)]
        assert any(counts), "there was no load"
        assert (logs / "stats").read_text().count("\nproc ") == CALLERS_COUNT + 1


def test_figures_add_up(daemon: Daemon, logs: Path) -> None:
    calls = 25
    with client(daemon.directory, MANAGER) as manager:
        assert manager.line() == "up"
        run_client(daemon.directory, CALLER + f"for n in range({calls}): call(device, 16 * n + 16)")
        daemon.wait_for_counts(processes=1)
        whole, _, of_manager = (logs / "stats").read_text().partition("\nproc ")
        figures = dict(re.findall(r"^(\w+): (.*)$", whole, re.MULTILINE))
        assert figures["BC_TRANSACTION"] == figures["BC_REPLY"] == str(calls)
        assert figures["BR_REPLY"] == figures["BR_TRANSACTION"] == str(calls)
        assert figures["transaction"] == f"active 0 total {2 * calls}"
        assert figures["transaction_complete"] == f"active 0 total {2 * calls}"
        assert figures["node"] == f"active 1 total {calls + 1}"
        assert figures["proc"] == "active 1 total 2"
        assert f"  BC_REPLY: {calls}\n" in of_manager
        assert "BC_TRANSACTION" not in of_manager
        log = (logs / "transaction_log").read_text().splitlines()
        assert len(log) == 32
        numbers = [int(line.split(":")[0]) for line in log]
        assert numbers == sorted(numbers)
        kinds = [line.split()[1] for line in log]
        assert kinds == ["call", "reply"] * 16
    assert (logs / "failed_transaction_log").read_text() == ""


def test_a_failed_call_is_in_both_logs(daemon: Daemon, logs: Path) -> None:
    code = (
        "device = Device(DIR + '/binder'); command, keep = transaction(5, b'12345')\n"
        "device.write_read(command, 256); say(os.getpid())\n"
    )
    [pid] = run_client(daemon.directory, code)
    for name in ("transaction_log", "failed_transaction_log"):
        assert (logs / name).read_text() == (
            f"1: call  from {pid}:{pid} to 0:0 context binder node 0 handle 5 size 5:0"
            " ret 29201/-22 l=0\n"
        )


def test_a_call_in_flight_is_seen_from_both_ends(daemon: Daemon, logs: Path) -> None:
    waiting = MANAGER.replace('commands = b""\nwhile', 'wait_for_line()\ncommands = b""\nwhile')
    with client(daemon.directory, waiting) as manager:
        assert manager.line() == "up"
        with client(daemon.directory, CALLER + "call(device, 16)\nsay('done')") as caller:
            daemon.wait_for_counts(parked=1)
            server, pid = manager.process.pid, caller.process.pid
            text = (logs / "transactions").read_text()
            assert f"    outgoing transaction 2: {2:016x} from {pid}:{pid} to {server}:0" in text
            assert f"  pending transaction 2: {2:016x} from {pid}:{pid} to {server}:0" in text
            assert re.search(r" node 1 size 32:8 offset 0\n  buffer|active\n  pending", text)
            time.sleep(0.02)
            elapsed = re.findall(r"elapsed (\d+)ms", (logs / "transactions").read_text())
            assert all(20 <= int(value) < 1000 * SECONDS_MAX for value in elapsed)
            manager.tell()
            assert caller.line() == "done"
    assert (logs / "transactions").read_text() == "binder transactions:\n"


def test_a_process_has_a_file_as_long_as_it_has_a_device(daemon: Daemon, logs: Path) -> None:
    code = "device = Device(DIR + '/binder'); say('up'); wait_for_line()"
    with client(daemon.directory, code) as process:
        assert process.line() == "up"
        name = str(process.process.pid)
        assert os.listdir(logs / "proc") == [name]
        before = (logs / "proc" / name).read_text()
        assert before == f"binder proc state:\nproc {name}\ncontext binder\n"
        with (logs / "proc" / name).open() as file:
            process.tell()
            daemon.wait_for_counts(processes=0)
            assert os.listdir(logs / "proc") == []
            assert not (logs / "proc" / name).exists()
            assert file.read() == before, "what is open stays as it was"


def test_what_a_file_says_is_settled_when_it_is_opened(daemon: Daemon, logs: Path) -> None:
    fd = os.open(logs / "state", os.O_RDONLY)
    with client(daemon.directory, "device = Device(DIR + '/binder')\nsay('up')") as process:
        assert process.line() == "up"
        assert os.read(fd, 7) == b"binder "
        assert os.pread(fd, 100, 7) == b"state:\n"
        assert os.pread(fd, 100, 14) == b""
        assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_nothing_can_be_changed(logs: Path) -> None:
    for change in (
        lambda: os.open(logs / "state", os.O_RDWR),
        lambda: os.open(logs / "new", os.O_RDWR | os.O_CREAT),
        lambda: os.mkdir(logs / "new"),
        lambda: os.unlink(logs / "state"),
        lambda: os.chmod(logs / "state", 0o666),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS


def test_what_readers_can_make_us_keep_is_bounded(daemon: Daemon, logs: Path) -> None:
    fds = [os.open(logs / "stats", os.O_RDONLY) for _ in range(OPEN_MAX)]
    with pytest.raises(OSError, match="Too many open files in system"):
        os.open(logs / "stats", os.O_RDONLY)
    assert run_client(daemon.directory, "say(Device(DIR + '/binder').version())") == ["8"]
    for fd in fds:
        os.close(fd)
    assert (logs / "stats").read_text().startswith("binder stats:\n")


def test_one_user_cannot_lock_others_out_of_the_logs(daemon: Daemon, logs: Path) -> None:
    """He has as many open as he may, and as much text; others, and root above all, have room."""
    greedy = f"""
os.setresuid({MALLORY}, {MALLORY}, {MALLORY})
files = []
try:
    while True:
        files.append(open(DIR + "/binder_logs/stats"))
except OSError as error:
    say(len(files), errno.errorcode[error.errno])
wait_for_line()
"""
    read = f"os.setresuid({ALICE}, {ALICE}, {ALICE})\n"
    read += "say(len(open(DIR + '/binder_logs/stats').read()))"
    with client(daemon.directory, greedy) as mallory:
        assert mallory.line() == f"{OPEN_MAX // 4} ENFILE"
        assert int(run_client(daemon.directory, read)[0]) > 0
        assert (logs / "stats").read_text().startswith("binder stats:\n")
        daemon.wait_for_counts(users=1)
    daemon.wait_for_counts(users=0)


@pytest.mark.parametrize("daemon", [("--limit", "log-bytes=6000")], indirect=True)
def test_the_text_of_logs_is_charged_to_its_reader(daemon: Daemon, logs: Path) -> None:
    """A text of which only root may have so much; others may have a small one some times."""
    opened = "devices = [Device(DIR + '/binder') for _ in range(8)]\nsay('up')\nwait_for_line()"
    read = """
os.setresuid({0}, {0}, {0})
files = []
for name in ("stats", *["state"] * {1}):
    try:
        files.append(open(DIR + "/binder_logs/" + name))
        say(name)
    except OSError as error:
        say(errno.errorcode[error.errno])
wait_for_line()
"""
    with client(daemon.directory, opened) as process:
        assert process.line() == "up"
        size, small = (len((logs / name).read_text()) for name in ("stats", "state"))
        share = 6000 // 4
        assert share < size < 6000
        most = share // small
        with client(daemon.directory, read.format(MALLORY, most + 1)) as mallory:
            said = [mallory.line() for _ in range(most + 2)]
            assert said == ["ENOMEM", *["state"] * most, "ENOMEM"]
            with client(daemon.directory, read.format(ALICE, 1)) as alice:
                assert [alice.line() for _ in range(2)] == ["ENOMEM", "state"]
                assert len((logs / "stats").read_text()) == size


def test_pointers_are_shown_to_root_and_to_their_user(daemon: Daemon, logs: Path) -> None:
    code = f"""
os.setresuid({ALICE}, {ALICE}, {ALICE})
device = Device(DIR + '/binder')
device.ioctl(abi.BINDER_SET_CONTEXT_MGR_EXT, bytearray(
    abi.flat_binder_object.pack(abi.BINDER_TYPE_BINDER, 0, 0x7f1234567890, 0x7fabcdef0123)))
say('up')
wait_for_line()
"""
    read = "os.setresuid({0}, {0}, {0})\nsay(*open(DIR + '/binder_logs/{1}').read().split())"
    with client(daemon.directory, code) as owner:
        assert owner.line() == "up"
        daemon.wait_for_counts(nodes=1)
        for file in ("state", f"proc/{owner.process.pid}"):
            for uid in (ALICE, MALLORY):
                [said] = run_client(daemon.directory, read.format(uid, file))
                seen = "u00007f1234567890 c00007fabcdef0123" in said
                assert seen == (uid == ALICE)
                assert ("7f1234567890" in said or "7fabcdef0123" in said) == seen
                assert seen or "u0000000000000000 c0000000000000000" in said
            assert "u00007f1234567890 c00007fabcdef0123" in (logs / file).read_text()


@pytest.mark.parametrize(
    "daemon", [("--logs-mode", "0440", "--logs-group", str(ALICE))], indirect=True
)
def test_who_may_read_the_logs_can_be_chosen(daemon: Daemon, logs: Path) -> None:
    code = """
os.setresgid({0}, {0}, {0}); os.setgroups([])
os.setresuid({0}, {0}, {0})
for name in ("binder_logs/state", "binder_logs/proc/x", "features/freeze_notification"):
    try:
        say(len(open(DIR + "/" + name).read()) > 0)
    except OSError as error:
        say(errno.errorcode[error.errno])
"""
    assert run_client(daemon.directory, code.format(ALICE)) == ["True", "ENOENT", "True"]
    assert run_client(daemon.directory, code.format(MALLORY)) == ["EACCES", "EACCES", "True"]
    owner = os.stat(logs / "state")
    assert (owner.st_mode & 0o7777, owner.st_uid, owner.st_gid) == (0o440, 0, ALICE)
    assert [os.stat(place).st_mode & 0o7777 for place in (logs, logs / "proc")] == [0o750] * 2


def test_readers_that_are_killed_do_no_harm(daemon: Daemon, logs: Path) -> None:
    code = "import sys\nwhile True:\n    open(sys.argv[1]).close()"
    for number in range(40):
        reader = subprocess.Popen([sys.executable, "-S", "-E", "-c", code, logs / "state"])
        time.sleep(0.02 + number % 7 / 1000)
        reader.send_signal(signal.SIGKILL)
        reader.wait(SECONDS_MAX)
    assert (logs / "state").read_text() == "binder state:\n"
    assert run_client(daemon.directory, "say(Device(DIR + '/binder').version())") == ["8"]
    fds = [os.open(logs / "stats", os.O_RDONLY) for _ in range(OPEN_MAX)]  # none was forgotten
    for fd in fds:
        os.close(fd)


def test_the_end_comes_while_logs_are_read(tmp_path: Path) -> None:
    code = "import sys\nprint(1, flush=True)\nwhile True:\n    open(sys.argv[1]).read()"
    place = tmp_path / "binderfs"
    state = place / "binder_logs/state"
    with running(place) as daemon, state.open() as held:
        reader = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", code, state],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"1\n"
        assert daemon.end() == 0
        assert reader.wait(SECONDS_MAX) == 1
        reader.stdout.close()
        with pytest.raises(OSError, match=r"not connected|abort"):
            held.read()
    assert not place.exists()
