# SPDX-License-Identifier: Apache-2.0
"""Questions to /proc: what is answered, what is gone, and what could not be asked."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import suppress
from errno import EMFILE
from typing import TYPE_CHECKING

import pytest

from binderd.linux import proc

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_end_at_newlines_only_and_errors_are_errors(tmp_path: Path) -> None:
    """A mount point may have any other character in its name."""
    (tmp_path / "table").write_bytes(b"one \xc2\x85\x0b\x0c\r\x1c here\ntwo\n")
    assert len(proc.lines_in(str(tmp_path), "table")) == 2
    with pytest.raises(ProcessLookupError):
        proc.lines_in(str(tmp_path), "nothing")


def test_what_is_gone_is_told_from_what_could_not_be_asked() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    with pytest.raises(ProcessLookupError):
        proc.process_of(ended.pid)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(proc.own_descriptors()) - 1, limits[1]))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(OSError, match=os.strerror(EMFILE)) as raised:
            proc.process_of(os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)
    assert not isinstance(raised.value, ProcessLookupError)


def test_status_fields_are_those_of_the_very_name() -> None:
    fields = proc.status(proc.OWN)
    for name in (b"Uid", b"Tgid", b"voluntary_ctxt_switches"):
        assert proc.status_field(proc.OWN, name).split()[:1] == fields[name].split()[:1]
    assert proc.status_field(proc.OWN, b"Ui") == b""


def test_a_sleeping_process_and_its_call() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as reader:
        place = proc.place_of(reader.pid)
        while proc.is_running(place) or proc.link_of(place, "exe").rpartition("/")[2] != "cat":
            os.sched_yield()
        _, arguments = proc.call_of(place)
        assert arguments[0] == 0, "it reads its standard input"
        assert proc.tracer_of(place) == 0
        assert proc.threads_of(place) == [reader.pid]
        assert reader.pid in proc.children_of(os.getpid())
        assert reader.pid in proc.processes()
