# SPDX-License-Identifier: Apache-2.0
"""What must be there before anything is served: rights, and a transport by which clients come.

A transport is the mounted file system, character devices, or both. Nothing here may know how they
are served.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd import selftest
from binderd.channel.cuse_node import CuseNode
from binderd.channel.errors import StartError, Unmappable, Unsupported, explain
from binderd.channel.fuse_mount import FuseMount
from binderd.config import check_node_names
from binderd.device.replies import CONNECTIONS_MAX
from binderd.engine.limits import PER_USER, Limits
from binderd.injector.architecture import own_architecture
from binderd.linux import proc, rights
from binderd.linux.cgroups import memory_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.config import Settings

_WITH_EXTENSION: Final = (
    "--transport fuse does for clients that know docs/EXTENSION.md: binderclient, and programs "
    "that are started with 'binderctl run'"
)

_ORDINARY: Final = (
    "served without root: to programs of this user and group alone, which receive in private pages"
)


class Findings(NamedTuple):
    """What was found out before anything is served."""

    warnings: list[str]  # what will not work, a line each
    has_private_pages: bool  # can clients receive in pages of their own?


class Transport:
    """What leads clients to us.

    Args:
        mount: the file system, None: not served.
        nodes: the character devices.
        needs_passthrough: is the file system only worth it if it can be mapped?
    """

    def __init__(
        self, mount: FuseMount | None, nodes: list[CuseNode], *, needs_passthrough: bool
    ) -> None:
        self.mount = mount
        self.nodes = nodes
        self.needs_passthrough = needs_passthrough

    def close(self) -> str:
        """Take them away; the loops that serve them close the channels.

        Returns:
            What did not go as it should, or an empty string.
        """
        for node in self.nodes:
            node.remove()
        return self.mount.unmount() if self.mount is not None else ""


def transports_to_try(transport: str) -> list[str]:
    """Return what to try in turn for a setting; all may turn out not to be there.

    Raises:
        StartError: it is not for an ordinary user.
    """
    if rights.is_ordinary_user():
        if transport in {"cuse", "both"}:
            raise StartError(
                f"--transport {transport} takes root: an ordinary user can serve a directory alone "
                "(--transport fuse)"
            )
        return ["fuse"]
    # What can be mapped with a plain mmap is the better transport.
    return ["fuse", "cuse"] if transport == "auto" else [transport]


def sum_up(missing: Sequence[Unsupported], last: StartError) -> StartError:
    """Return what to say when no transport is left to try.

    Args:
        missing: why those that were tried before could not be had.
        last: why the last one is not served.
    """
    if not missing:
        return last
    reasons = [*missing, last]
    ways = [_WITH_EXTENSION] if any(isinstance(each, Unmappable) for each in reasons) else []
    return StartError("; ".join([*map(str, reasons), *ways]))


def open_transport(settings: Settings, name: str, findings: Findings) -> Transport:
    """Open what a transport (fuse, cuse or both) consists of.

    Raises:
        Unsupported: this machine has not what it takes; nothing is left open.
        StartError: it cannot be; nothing is left open.
    """
    nodes: list[CuseNode] = []
    try:
        if name != "fuse":
            check_node_names(settings.devices, settings.device_prefix)
            if len(settings.devices) >= CONNECTIONS_MAX:
                raise StartError(f"more than {CONNECTIONS_MAX - 1} CUSE devices cannot be served")
            for device in settings.devices:
                nodes.append(CuseNode.of(f"{settings.device_prefix}{device}"))  # noqa: PERF401
        by_user = rights.is_ordinary_user()
        mount = FuseMount.at(settings.mount, by_user=by_user) if name != "cuse" else None
    except BaseException as error:
        for node in nodes:
            os.close(node.fd)
        if isinstance(error, ValueError):
            raise StartError(str(error)) from None
        raise
    needs_passthrough = settings.transport == "auto" and not findings.has_private_pages
    return Transport(mount, nodes, needs_passthrough=needs_passthrough)


def check_proc() -> None:
    """Say at once what everything else asks.

    Raises:
        StartError: there is no /proc that knows us.
    """
    try:
        proc.check()
    except OSError as error:
        advice = "mount it, for the pid namespace in which this runs"
        raise StartError(explain(error, "cannot use /proc", advice)) from None


def check_rights(settings: Settings) -> Findings:
    """Find out at once what would otherwise show as a client's EFAULT much later.

    Raises:
        StartError: nothing would.
    """
    missing = rights.missing()
    if rights.is_ordinary_user():
        transports_to_try(settings.transport)
        findings = _try_on_a_child(settings, {right.name for right in missing})
        return Findings([_ORDINARY, *findings.warnings], findings.has_private_pages)
    required = [right for right in missing if not right.loss]
    if required:
        needs = ", ".join(f"{right.name} to {right.purpose}" for right in required)
        raise StartError(f"needs {needs}: {rights.advice(required)}")
    warnings = [
        f"{right.loss}, as {right.name} is missing: {rights.advice([right])}"
        for right in missing
        if not right.only_in_containers
    ]
    findings = _try_on_a_child(settings, {right.name for right in missing})
    return Findings(warnings + findings.warnings, findings.has_private_pages)


def _try_on_a_child(settings: Settings, missing: set[str]) -> Findings:
    machine_is_known = own_architecture() is not None
    try:
        denials = selftest.run(injects=settings.injects and machine_is_known, missing=missing)
    except OSError as error:
        what = "cannot try on a child process what serving takes"
        raise StartError(explain(error, what)) from None
    has_private_pages = not any(denial.trial.is_for_private for denial in denials)
    needs_sockets = settings.transport == "cuse" or not (settings.passthrough or has_private_pages)
    fatal = [
        denial
        for denial in denials
        if not denial.trial.loss or (needs_sockets and denial.trial.is_for_sockets)
    ]
    if fatal:
        raise StartError(f"clients cannot be served: {selftest.explain(fatal)}")
    warnings = [f"{denial.trial.loss}: {selftest.explain([denial])}" for denial in denials]
    if settings.injects and not machine_is_known:
        warnings.append(
            "only clients that attach a socket receive files: how to stop others is not known for "
            f"this processor ({os.uname().machine})"
        )
    return Findings(warnings, has_private_pages)


def memory_of_machine() -> int:
    """Return how much memory there is for us, in bytes: the machine's, or what our cgroups may."""
    memory = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit()
    return memory if limit is None else min(memory, limit)


def limits_for(chosen: Sequence[tuple[str, int]]) -> Limits:
    """Return the engine's limits: what this machine has, without what we have open already.

    Args:
        chosen: what the configuration wants otherwise.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Limits.for_machine(soft - len(proc.own_descriptors()), memory_of_machine())
    limits = limits.with_numbers([one for one in chosen if not one[0].endswith(PER_USER)])
    if rights.is_ordinary_user():
        limits = limits.for_one_user()
    return limits.with_numbers([one for one in chosen if one[0].endswith(PER_USER)])


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us; ``engine/limits.py`` shares them out."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
