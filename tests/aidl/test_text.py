# SPDX-License-Identifier: Apache-2.0
"""The generated text: types hold, formatters change nothing, every name is one in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from aidl.conftest import compile_into, importable
from binderclient.aidl.checks import compile_files
from binderclient.aidl.generator import generate

if TYPE_CHECKING:
    from aidl.conftest import Generated

ROOT: Final = Path(__file__).resolve().parents[2]

# A program that uses what was generated as it should.
_RIGHT: Final = """
from binderclient import Proxy, Service, as_interface
from binderclient.trio import AsyncProxy
from org.example.IPlain import AsyncIPlain, IPlain
from org.example.IArrays import IArrays
from org.example.Shape import Shape
from org.example.later.Color import Color
from org.example.later.Everything import Everything
from org.example.later.ILater import ILater
from org.example.later.Value import Value


class Plain(IPlain):
    def echo(self, text: str) -> str:
        return text


class AsyncPlain(AsyncIPlain):
    async def echo(self, text: str) -> str:
        return text


def call(proxy: Proxy) -> int:
    plain = as_interface(IPlain, proxy)
    text: str = plain.echo("x")
    none: str | None = plain.perhaps(None)
    plain.tell(text + (none or ""), [1, 2])
    result, made, changed = as_interface(IArrays, proxy).ints([1], 2, [3])
    shape = Shape(color=result[0] + made[0] + changed[0])
    everything = Everything(color=Color.GREEN, value=Value(text="x"), class_=shape.color)
    later = as_interface(ILater, proxy)
    session = later.make("x")
    if session is not None:
        session.dump_(ILater.Request(id=IPlain.ANSWER))
    return len(later.all(everything).value.text) + Everything.LIMIT


async def wait(proxy: AsyncProxy) -> int:
    return len(await as_interface(AsyncIPlain, proxy).echo("x"))
"""
# Lines that are wrong, and what is said of them.
_WRONG: Final = {
    "as_interface(IPlain, proxy).echo(5)": "arg-type",
    "n: int = as_interface(IPlain, proxy).echo('x')": "assignment",
    "as_interface(IPlain, proxy).ech('x')": "attr-defined",
    "Value(number='x')": "call-overload",
    "Value(text='x', number=1)": "call-overload",
    "Shape(colour=1)": "call-arg",
    "Everything(color=5)": "arg-type",
    "as_interface(AsyncIPlain, proxy).echo('x').upper()": "attr-defined",
}


def checked(generated: Generated, folder: Path, text: str) -> str:
    """Return what mypy says of a program."""
    program = folder / "program.py"
    program.write_text(text)
    (folder / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\nmypy_path = {ROOT}/protocol:{ROOT}/client:{generated.folder}\n"
        f"cache_dir = {generated.folder.parent}/mypy\n"
        "[mypy-construct.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", str(program)]
    modules = sorted(map(str, generated.folder.rglob("I*.py")))
    done = subprocess.run(
        [*command, *modules], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_types_hold(generated: Generated, tmp_path: Path) -> None:
    assert "Success: no issues found" in checked(generated, tmp_path, _RIGHT)
    said = checked(generated, tmp_path, _RIGHT + f"\nproxy: Proxy\n{chr(10).join(_WRONG)}\n")
    first = _RIGHT.count("\n") + 3
    for number, (line, kind) in enumerate(_WRONG.items(), first):
        assert f"program.py:{number}: error" in said, line
        assert any(
            f":{number}: error" in each and each.endswith(f"[{kind}]") for each in said.splitlines()
        ), (line, said)
    assert f"Found {len(_WRONG)} errors" in said


def reformatted(folder: Path, width: int) -> str | None:
    """Return what a formatter would change; None: nothing."""
    command = [sys.executable, "-m", "ruff", "format", "--no-cache", "--isolated"]
    done = subprocess.run(
        [*command, f"--line-length={width}", "--diff", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("width", [88, 100, 120])
def test_formatters_change_nothing(generated: Generated, width: int) -> None:
    assert reformatted(generated.folder, width) is None


def test_the_same_each_time(generated: Generated) -> None:
    for document in generated.compiled.documents:
        again = compile_files([document.path]).documents[0]
        assert generate(again) == generate(document)


AWKWARD: Final = """\
/**
 * Names that Python has for itself; \"""quotes\""" and \\\\ in a comment.\t
 */
interface IAwkward {
    const int None = 1;
    const int int = 2;
    parcelable dataclasses {
        int str;
        int float;
        int typing;
        IAwkward IAwkward;
        List<dataclasses> self;
        int __class__;
        int _hidden;
        int binder_parcelable_name;
        int field = 3;
        String property = "x\'y";
        char quote = '"';
    }
    @Backing(type="int") enum names { name, value, mro, real, _x_, __y }
    union class { int tag; String Tag; int value; int name; }
    void dump(int self, int print, String lambda, in int[] aidl);
    void call(int timeout, out byte[] x, int x_size);
    IAwkward descriptor(in dataclasses from);
    void on_transact();
    void _private();
    void __init__();
    int binder();
    int timeout();
    void accepts_descriptors();
    oneway void async(in class def);
}
"""


def test_awkward_names(tmp_path: Path) -> None:
    path = tmp_path / "IAwkward.aidl"
    path.write_text(AWKWARD)
    made = compile_into(tmp_path / "made", [str(path)])
    assert "Success: no issues found" in checked(made, tmp_path, "import IAwkward\n")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--no-cache",
        "--isolated",
        "--diff",
        str(made.folder),
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with importable(made.folder):
        cls = made("IAwkward")
        methods = cls.binder_interface.methods
        assert [each.code for each in methods.values()] == list(range(1, 11))
        assert set(methods) >= {"dump_", "descriptor_", "on_transact_", "x_private", "x__init__"}
        assert (cls.None_, cls.int_) == (1, 2)
        one = cls.dataclasses_(property="z", IAwkward_=None)
        assert (one.property, one.field, one.quote, one.str_) == ("z", 3, '"', 0)
        assert cls.names.name_ == 0
        assert cls.names(17).value == 17
        assert cls.class_(tag_=5).tag is cls.class_.Tag.tag_
        del sys.modules["IAwkward"]


def long(count: int) -> str:
    return "a" + "bc" * count


@pytest.mark.parametrize("count", [10, 20, 30, 40, 60])
def test_long_names(tmp_path: Path, count: int) -> None:
    name = long(count)
    path = tmp_path / f"I{name}.aidl"
    path.write_text(
        f'interface I{name} {{ const int {name} = 1; const String s{name} = "{name}";\n'
        f"enum E{name} {{ {name}, b{name} }}\n"
        f"union U{name} {{ E{name}[] {name}; @nullable U{name}[] b{name}; }}\n"
        f"parcelable P{name} {{ int[2][3] {name}; U{name} x{name}; E{name}[] y = {{"
        f'E{name}.{name}, E{name}.b{name}}}; String s = "{name}";\n'
        f"@nullable List<P{name}> list{name}; @nullable E{name}[] short; byte[] b = {{1, 2}};"
        f"Map<String, P{name}> m{name}; U{name}[2][2] of; }}\n"
        f"P{name} {name}(in P{name} {name}, inout @nullable U{name}[] b{name}, out byte[] c);\n"
        f"void x(in E{name}[] a); E{name}[3] y{name}(); void z(in P{name} a, in int[3] b); }}\n"
    )
    made = compile_into(tmp_path / "made", [str(path)])
    for width in (88, 100):
        assert reformatted(made.folder, width) is None
