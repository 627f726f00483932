# SPDX-License-Identifier: Apache-2.0
"""The reference of the Python API: every public name has a docstring, and is on the site."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Final

import griffe
import pytest

from documents.blocks import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sys.path.insert(0, str(ROOT / "docs" / "site"))
import pages

PUBLIC: Final = [(module, name) for module, names in pages.public_names().items() for name in names]
# A newcomer needs these; if one is missing here, nobody says any more that it is public.
MODULES: Final = {
    "binderclient",
    "binderclient.aio",
    "binderclient.bundle",
    "binderclient.hidl",
    "binderclient.servicemanager",
    "binderclient.testing",
    "binderclient.trio",
}
_INVENTORY_HEAD: Final = b"zlib.\n"


def test_the_public_modules() -> None:
    assert {module for module, _ in PUBLIC} >= MODULES
    for module, name in PUBLIC:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


@pytest.fixture(scope="module")
def sources() -> griffe.Module:
    """What the docstrings of constants are read from: Python forgets them."""
    loaded = griffe.load("binderclient", search_paths=[ROOT / "client"])
    assert isinstance(loaded, griffe.Module)
    return loaded


def undocumented(kind: type) -> Iterator[str]:
    """Return the public members of a class, its own and those that it has from others of ours."""
    for name, member in inspect.getmembers(kind):
        is_ours = inspect.isfunction(member) or isinstance(member, property)
        if name.startswith("_") or not is_ours:
            continue
        function = member.fget if isinstance(member, property) else member
        is_ours = str(function.__module__).startswith("binderclient")
        if is_ours and not inspect.getdoc(member):
            yield name


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_has_a_docstring(module: str, name: str, sources: griffe.Module) -> None:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        assert value.__doc__, f"{module}.{name} has no docstring"
        assert list(undocumented(value)) == [], f"of {module}.{name}"
    elif callable(value) and hasattr(value, "__module__"):
        assert value.__doc__, f"{module}.{name} has no docstring"
    else:
        path = f"{module}.{name}".removeprefix("binderclient.")
        found = sources[path]
        found = found.final_target if isinstance(found, griffe.Alias) else found
        assert found.docstring is not None, f"{module}.{name} has no docstring"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the site; return what objects its inventory names."""
    site: Path = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    _, _, packed = (site / "objects.inv").read_bytes().partition(_INVENTORY_HEAD)
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


def test_every_public_name_is_in_the_reference(inventory: set[str]) -> None:
    missing = {f"{module}.{name}" for module, name in PUBLIC} - inventory
    assert missing == set()


def test_methods_are_in_the_reference_as_well(inventory: set[str]) -> None:
    for name in ("Proxy.call", "Parcel.write_string16", "Parcel.read_buffer", "Device.close"):
        assert f"binderclient.{name}" in inventory
