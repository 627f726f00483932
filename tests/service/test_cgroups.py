# SPDX-License-Identifier: Apache-2.0
"""What control groups say of memory, as /proc and the mounted trees show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from binderd.linux.cgroups import memory_limit
from binderd.start import memory_of_machine

if TYPE_CHECKING:
    from pathlib import Path

NO_LIMIT: Final = "9223372036854771712"  # as version 1 says it
V1: Final = "memory.limit_in_bytes"
V2: Final = "memory.max"


def limit(
    tmp_path: Path, groups: str, mounts: list[tuple[str, str, str]], files: dict[str, str]
) -> int | None:
    """Return what is found where /proc and the trees are like that.

    Args:
        mounts: the root of each tree, its type and its options; mounted at ``tree0`` and so on.
        files: what they say, by path.
    """
    process = tmp_path / "process"
    process.mkdir()
    (process / "cgroup").write_text(groups)
    lines = ["22 1 0:21 / / rw - ext4 /dev/x rw\n"]
    for number, (root, kind, options) in enumerate(mounts):
        place = tmp_path / f"tree{number}"
        lines.append(f"3{number} 22 0:2{number} {root} {place} rw shared:9 - {kind} x {options}\n")
    (process / "mountinfo").write_text("".join(lines))
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return memory_limit(str(process))


def test_version_2(tmp_path: Path) -> None:
    files = {f"tree0/a/b/{V2}": "1000"}
    assert limit(tmp_path, "0::/a/b\n", [("/", "cgroup2", "rw")], files) == 1000


@pytest.mark.parametrize("own", ["max", "5000"])
def test_a_group_above_has_less(tmp_path: Path, own: str) -> None:
    files = {f"tree0/a/b/c/{V2}": own, f"tree0/a/b/{V2}": "max", f"tree0/a/{V2}": "700"}
    assert limit(tmp_path, "0::/a/b/c\n", [("/", "cgroup2", "rw")], files) == 700


def test_version_1(tmp_path: Path) -> None:
    groups = "9:name=systemd:/\n4:memory,hugetlb:/pod/one\n3:cpuset:/other\n0::/\n"
    mounts = [("/", "cgroup", "rw,cpuset"), ("/", "cgroup", "rw,memory"), ("/", "cgroup2", "rw")]
    files = {f"tree1/pod/one/{V1}": NO_LIMIT, f"tree1/pod/{V1}": "900", f"tree1/{V1}": NO_LIMIT}
    assert limit(tmp_path, groups, mounts, files) == 900


@pytest.mark.parametrize(("kind", "name"), [("cgroup", V1), ("cgroup2", V2)])
def test_a_container_that_is_shown_its_own_part(tmp_path: Path, kind: str, name: str) -> None:
    groups = "4:memory:/docker/abc/deep\n" if kind == "cgroup" else "0::/docker/abc/deep\n"
    files = {f"tree0/{name}": "600", f"tree0/deep/{name}": "800"}
    assert limit(tmp_path, groups, [("/docker/abc", kind, "rw,memory")], files) == 600


def test_a_group_that_is_outside_of_what_is_shown(tmp_path: Path) -> None:
    files = {f"tree0/{V2}": "600", V2: "1"}
    assert limit(tmp_path, "0::/../other\n", [("/", "cgroup2", "rw")], files) == 600


def test_nothing_is_known(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/\n", [("/", "cgroup2", "rw")], {}) is None
    assert memory_limit(str(tmp_path / "none")) is None


def test_this_machine() -> None:
    assert memory_of_machine() > 1 << 20
