# SPDX-License-Identifier: Apache-2.0
"""The corpus, compiled to Python."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from binderclient.aidl.checks import compile_files
from binderclient.aidl.generator import generate
from binderclient.aidl.output import write_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.aidl.checks import Compiled

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
ROOTS: Final = ("org", "android")  # of the corpus' packages


def missing_oracle() -> str | None:
    """Return why there is no compiler to compare with; None if there is one."""
    if shutil.which("aidl") is None:
        return "no compiler to compare with: apt-get install aidl (Debian 12)"
    said = subprocess.run(["aidl", "--help"], capture_output=True, text=True, check=False)
    if "--lang={java|cpp}" not in said.stdout + said.stderr:
        return "this aidl is not that of Android 10, whose text is read here"
    return None


ORACLE_MISSING: Final = missing_oracle()


def sources(folder: str) -> list[str]:
    """Return the files of a part of the corpus."""
    return sorted(map(str, (CORPUS / folder).rglob("*.aidl")))


class Generated:
    """Modules that were generated.

    Args:
        folder: where they are.
        compiled: of what.
    """

    def __init__(self, folder: Path, compiled: Compiled) -> None:
        self.folder = folder
        self.compiled = compiled

    def __call__(self, name: str) -> Any:  # noqa: ANN401 - of the class
        """Return the class of a declaration."""
        return getattr(importlib.import_module(name), name.rpartition(".")[2])

    def awaiting(self, name: str) -> Any:  # noqa: ANN401 - of the class
        """Return the class of an interface for those who await."""
        return getattr(importlib.import_module(name), f"Async{name.rpartition('.')[2]}")


def compile_into(folder: Path, files: list[str]) -> Generated:
    """Compile files into a folder."""
    compiled = compile_files(files)
    modules: dict[str, str] = {}
    for document in compiled.documents:
        modules.update(generate(document))
    write_modules(str(folder), modules)
    return Generated(folder, compiled)


@pytest.fixture(scope="package")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """The modules of the corpus, which can be imported."""
    folder = tmp_path_factory.mktemp("generated")
    made = compile_into(folder, [*sources("android10"), *sources("later")])
    with importable(folder):
        yield made


class importable:  # noqa: N801 - used like a function
    """A context in which a folder's packages can be imported, and are forgotten afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __enter__(self) -> None:
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()

    def __exit__(self, *_: object) -> None:
        sys.path.remove(self._folder)
        for name in [each for each in sys.modules if each.split(".")[0] in ROOTS]:
            del sys.modules[name]
