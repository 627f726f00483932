# SPDX-License-Identifier: Apache-2.0
"""Who imports what, where import-linter has no words for it: lists of what is allowed.

Every import counts, also one that is for types only. What is between our own modules is in
pyproject.toml; here are the circles in each package, and what comes from elsewhere.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from binderd.compilation import PLACES, REQUEST_PATH

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "protocol", ROOT / "daemon", ROOT / "client")
PACKAGES = ("binderwire", "binderd", "binderclient")
CIRCLE_MAX = 5  # files that import one another, however indirectly

# All of the standard library that does no I/O, asks no clock and is needed.
PURE = {
    *("__future__", "bisect", "collections", "contextlib", "enum", "errno", "heapq", "itertools"),
    *("struct", "typing"),
}
# What is pure, and what it may have beside that.
PURE_MODULES: dict[str, set[str]] = {
    "binderwire": {"construct", "platform"},
    "binderd.engine": set(),
    "binderd.fuse": set(),
    "binderd.device": set(),
    "binderd.introspect.text": set(),
    "binderd.introspect.tree": set(),
}
# Who may import what is not of the standard library.
FOREIGN: dict[str, tuple[str, ...]] = {
    "construct": ("binderwire",),
    "hdrh": ("binderclient.stress.latency",),
    "lark": ("binderclient.aidl.parser",),
    "pyfuse3": ("binderd.introspect.fs",),
    "pytest": ("binderclient.testing",),
    "trio": (
        "binderclient.demo",
        "binderclient.trio",
        "binderd.channel",
        "binderd.garbage",
        "binderd.guard",
        "binderd.introspect.fs",
        "binderd.lifecycle",
        "binderd.service",
        "binderd.tasks",
        "binderd.timers",
    ),
}


def name_of(path: Path) -> str:
    """Return the name of the module that a file is."""
    [source] = [source for source in SOURCES if path.is_relative_to(source)]
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Return the names of all modules that a file imports, and of what it imports from them."""
    found: set[str] = set()
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.Import):
            found.update(alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            assert item.module, f"{path}: a relative import"
            found.add(item.module)
            found.update(f"{item.module}.{alias.name}" for alias in item.names)
    return found


MODULES = {
    name_of(path): imports_of(path)
    for source in SOURCES
    for package in PACKAGES
    for path in sorted((source / package).rglob("*.py"))
}


# ``from package import module`` is no import of what else the package's own file imports.
FOLDERS = {
    name_of(path)
    for source in SOURCES
    for package in PACKAGES
    for path in (source / package).rglob("__init__.py")
}


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the modules that reach one another, each group sorted; those alone are none."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        rest = [start]
        while rest:
            for module in graph[rest.pop()] - seen:
                seen.add(module)
                rest.append(module)
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in graph
        if module in reach[module]
    }
    return sorted(map(list, groups))


def files_of(package: str) -> dict[str, set[str]]:
    """Return which files of a package import which others of it, without the packages' own."""
    names = {module for module in MODULES if is_in(module, package) and module not in FOLDERS}
    return {module: MODULES[module] & names - {module} for module in names}


def engine() -> dict[str, set[str]]:
    return files_of("binderd.engine")


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    assert circles(graph) == [["a", "b", "c"], ["f"]]


@pytest.mark.parametrize("package", ["binderd.engine", *PACKAGES])
def test_there_are_no_large_circles(package: str) -> None:
    graph = files_of(package)
    assert len(graph) >= 10
    assert [circle for circle in circles(graph) if len(circle) > CIRCLE_MAX] == []


def test_the_engine_in_a_test_s_process_has_no_circle() -> None:
    assert circles(files_of("binderclient.testing")) == []


def test_no_noun_knows_the_engine() -> None:
    top = "binderd.engine.engine"
    assert [module for module, imports in engine().items() if top in imports] == []


def late(tree: ast.Module) -> set[str]:
    """Return the names that a module imports for types only."""
    return {
        alias.asname or alias.name
        for item in tree.body
        if isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING"
        for imported in item.body
        if isinstance(imported, ast.ImportFrom) and str(imported.module).startswith("binder")
        for alias in imported.names
    }


def compiled_files() -> list[Path]:
    """Return the sources of what is compiled."""
    names = [name.split(".") for name in REQUEST_PATH]
    places = [ROOT / PLACES[package] / Path(package, *rest) for package, *rest in names]
    return sorted(
        path
        for place in places
        for path in (place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")])
    )


def test_named_tuples_find_the_types_of_their_fields() -> None:
    """Compiled, such a class is made with them: what is not loaded then crashes the interpreter."""
    found = 0
    for path in compiled_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for item in tree.body:
            if isinstance(item, ast.ClassDef) and "NamedTuple" in map(ast.unparse, item.bases):
                fields = [one for one in item.body if isinstance(one, ast.AnnAssign)]
                names = {
                    name.id
                    for field in fields
                    for name in ast.walk(field.annotation)
                    if isinstance(name, ast.Name)
                }
                found += 1
                assert not names & late(tree), f"{path.name}: {item.name}"
    assert found > 10


@pytest.mark.parametrize("package", PURE_MODULES)
def test_what_is_pure_imports_only_what_is(package: str) -> None:
    allowed = PURE | PURE_MODULES[package]
    modules = [module for module in MODULES if is_in(module, package)]
    assert modules
    for module in modules:
        elsewhere = {name.partition(".")[0] for name in MODULES[module]} - set(PACKAGES)
        assert elsewhere <= allowed, module


def test_few_know_what_is_foreign() -> None:
    seen = set()
    for module, imports in MODULES.items():
        for name in {name.partition(".")[0] for name in imports} - set(PACKAGES):
            if name not in sys.stdlib_module_names and name != "_typeshed":
                seen.add(name)
                assert any(is_in(module, package) for package in FOREIGN[name]), (module, name)
    assert seen == set(FOREIGN)
