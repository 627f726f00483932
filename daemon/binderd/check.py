# SPDX-License-Identifier: Apache-2.0
"""``binderd --check``: what this machine allows, found out by trying it; nothing is served.

A file system is mounted for it in a mount namespace of a child's own, which goes with the child; an
ordinary user has none, there it is mounted on a new directory for a moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import tempfile
from contextlib import contextmanager, suppress
from errno import EPERM
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from binderd import selftest
from binderd.channel.cuse_node import CUSE_DEVICE
from binderd.channel.errors import StartError, explain
from binderd.channel.fuse_mount import (
    FSTYPE,
    SOURCE,
    mount_options,
    open_channel,
    open_device,
    user_mounter,
)
from binderd.injector.architecture import own_architecture
from binderd.linux import mount, prctl, rights
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.config import Settings

_PATIENCE_MS: Final = 5_000  # for the kernel to say something
_FRAME_SIZE: Final = 32 << 10
_ANSWER_MAX: Final = 4096
_FLAGS2_SHIFT: Final = 32
_SAYS: Final = "="  # begins what a child says, which may be nothing
_MARKS: Final = {True: "yes", False: "no"}

_WITHOUT_ROOT: Final = (
    "without it: devices serve programs of this user and group alone, in a directory of his, with "
    "private pages"
)


class Finding(NamedTuple):
    """One thing that was tried."""

    name: str
    is_there: bool
    is_needed: bool  # are clients served only if it is there?
    text: str  # what it is for; why it is not there, and what to do


def main(settings: Settings) -> int:
    """Print what was found; return the exit status: 1 if clients cannot be served."""
    findings = look(settings)
    with suppress(BrokenPipeError):
        print(as_json(findings) if settings.check == "json" else as_table(findings), flush=True)
    return int(not can_serve(findings))


def can_serve(findings: Sequence[Finding]) -> bool:
    """Whether clients can be served, through one of the transports."""
    names = {one.name for one in findings if one.is_there}
    return all(one.is_there for one in findings if one.is_needed) and bool(names & {"FUSE", "CUSE"})


def look(settings: Settings) -> list[Finding]:
    """Try everything."""
    fuse, passthrough = _in_child(_try_fuse).partition("\n")[::2]
    findings = [
        _transport("FUSE", fuse, "devices as files"),
        _transport(
            "passthrough", passthrough or fuse, "receive areas that are shared with us: one copy"
        ),
        _transport("CUSE", _in_child(_try_cuse), "devices as character devices"),
    ]
    missing = rights.missing()
    is_ordinary = rights.is_ordinary_user()
    if is_ordinary:
        findings.append(Finding("root", False, False, _WITHOUT_ROOT))
    for right in () if is_ordinary else missing:
        loss = f"without it: {right.loss}; " if right.loss else f"needed to {right.purpose}: "
        findings.append(Finding(right.name, False, not right.loss, loss + rights.advice([right])))
    if not is_ordinary and any(not right.loss for right in missing):
        return findings  # what else would be denied is denied for that
    injects = settings.injects and own_architecture() is not None
    names = {right.name for right in missing}
    try:
        denials = {one.trial: one for one in selftest.run(injects=injects, missing=names)}
    except OSError as error:
        return [*findings, Finding("a child process", False, True, explain(error, "there is none"))]
    for trial in selftest.TRIALS:
        denial = denials.get(trial)
        if trial.right in names or (is_ordinary and trial.takes_root and not trial.loss):
            continue
        text = trial.loss and f"without it: {trial.loss}"
        if denial is not None:
            text = selftest.explain([denial])
        findings.append(Finding(trial.call, denial is None, not trial.loss, text))
    return findings


def as_json(findings: Sequence[Finding]) -> str:
    """Return what was found for programs."""
    rows = [
        {"name": one.name, "works": one.is_there, "needed": one.is_needed, "text": one.text}
        for one in findings
    ]
    return json.dumps({"serves": can_serve(findings), "findings": rows}, indent=2)


def as_table(findings: Sequence[Finding]) -> str:
    """Return what was found for people."""
    width = max(len(one.name) for one in findings)
    lines = [f"{one.name:{width}}  {_MARKS[one.is_there]:3}  {one.text}" for one in findings]
    served = "clients can be served" if can_serve(findings) else "clients cannot be served"
    return "\n".join([*(line.rstrip() for line in lines), served])


def _transport(name: str, failure: str, purpose: str) -> Finding:
    return Finding(name, not failure, False, failure or purpose)


# In a child


def _in_child(attempt: Callable[[], str]) -> str:
    """Return what ``attempt`` returns in a process that is gone afterwards."""
    theirs, ours = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _be_child(attempt, ours, parent)
    os.close(ours)
    try:
        poll = select.poll()
        poll.register(theirs, select.POLLIN)
        if not poll.poll(2 * _PATIENCE_MS):
            return "it does not answer: look into the kernel's log (dmesg)"
        answer = os.read(theirs, _ANSWER_MAX).decode()
        if not answer.startswith(_SAYS):
            return "it cannot be tried: the process that should has ended"
        return answer.removeprefix(_SAYS)
    finally:
        os.close(theirs)
        os.kill(pid, signal.SIGKILL)  # ours until the wait, so the number is its own
        os.waitpid(pid, 0)


def _be_child(attempt: Callable[[], str], answers: int, parent: int) -> NoReturn:
    try:
        prctl.die_with_parent()
        if os.getppid() == parent:
            try:
                text = attempt()
            except StartError as error:
                text = str(error)
            except OSError as error:
                text = explain(error, "it cannot be tried")
            os.write(answers, f"{_SAYS}{text}".encode())
    finally:
        os._exit(0)


def _try_fuse() -> str:
    """Mount, and have the kernel take a backing file: a line each, empty where it does."""
    with _mounted_by_user() if rights.is_ordinary_user() else _mounted() as channel:
        return _try_passthrough(channel)


@contextmanager
def _mounted() -> Iterator[int]:
    """Mount in a namespace of our own, with which that goes; what is yielded is the channel."""
    channel = open_device()
    try:
        mount.unshare_mounts()
    except OSError as error:
        raise OSError(error.errno or EPERM, "no mount namespace can be had") from None
    mount.mount(SOURCE, "/", FSTYPE, mount.MS_NOSUID, mount_options(channel))
    yield channel


@contextmanager
def _mounted_by_user() -> Iterator[int]:
    """Mount on a new directory, and undo both; what is yielded is the channel."""
    mounter = user_mounter()
    place = tempfile.mkdtemp(prefix="binderd-check-")
    try:
        channel = mounter.mount(place)
        try:
            yield channel
        finally:
            mounter.unmount(place)
    finally:
        os.rmdir(place)


def _try_passthrough(channel: int) -> str:
    frame = _first_frame(channel)
    major, minor, readahead, flags, flags2, *_ = abi.fuse_init_in.unpack_from(
        frame.ljust(_FRAME_SIZE, b"\0"), abi.fuse_in_header.size
    )
    flags |= flags2 << _FLAGS2_SHIFT
    wanted = abi.FUSE_INIT_EXT | abi.FUSE_PASSTHROUGH
    if flags & wanted != wanted:
        return "\nit needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH=y; clients have own pages instead"
    body = abi.fuse_init_out.build(
        major=major,
        minor=min(minor, abi.FUSE_KERNEL_MINOR_VERSION),
        max_readahead=readahead,
        flags=wanted & (1 << _FLAGS2_SHIFT) - 1,
        flags2=wanted >> _FLAGS2_SHIFT,
        max_write=4096,
        time_gran=1,
        max_stack_depth=1,
    )
    unique = abi.fuse_in_header.unpack_from(frame)[2]
    os.write(
        channel, abi.fuse_out_header.pack(abi.fuse_out_header.size + len(body), 0, unique) + body
    )
    return f"\n{_try_backing(channel)}"


def _try_backing(channel: int) -> str:
    file = os.memfd_create("binderd-check", os.MFD_CLOEXEC)
    argument = bytearray(abi.fuse_backing_map.build(fd=file))
    try:
        fcntl.ioctl(channel, abi.FUSE_DEV_IOC_BACKING_OPEN, argument)
    except OSError as error:
        advice = "it takes CAP_SYS_ADMIN outside of user namespaces; clients have own pages instead"
        return explain(error, "the kernel does not take our files", advice)
    return ""


def _try_cuse() -> str:
    channel = open_channel(CUSE_DEVICE, "cuse")
    frame = _first_frame(channel)
    _, opcode, *_ = abi.fuse_in_header.unpack_from(frame)
    return "" if opcode == abi.CUSE_INIT else f"the kernel asks for {opcode} instead of CUSE_INIT"


def _first_frame(channel: int) -> bytes:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(_PATIENCE_MS):
        raise StartError("the kernel says nothing: look into its log (dmesg)")
    return os.read(channel, _FRAME_SIZE)
