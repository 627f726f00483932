# SPDX-License-Identifier: Apache-2.0
"""The same codes, descriptors, constants, order and bytes as of Android's own compiler.

Debian's ``aidl`` is that of Android 10, and the corpus has a part that it knows.  What came later
has transcripts in ``test_bytes``.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from aidl.conftest import CORPUS, ORACLE_MISSING, sources
from aidl.cpp import Cpp
from aidl.play import play
from binderclient import android
from binderclient.aidl.checks import compile_files
from binderclient.aidl.generator import Version, generate
from binderclient.aidl.python_names import ClassNames
from binderclient.aidl.syntax import Interface, Parcelable
from binderclient.parcel import Parcel
from binderwire.binder_abi import TF_ONE_WAY

if TYPE_CHECKING:
    from pathlib import Path

    from aidl.conftest import Generated
    from binderclient.aidl.syntax import Declaration
    from binderclient.testing import Binder

pytestmark = pytest.mark.skipif(ORACLE_MISSING is not None, reason=str(ORACLE_MISSING))
NAMES: Final = [each.split("/android10/")[1] for each in sources("android10")]
INTERFACES: Final = [each for each in NAMES if "/I" in each]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """C++ and Java that Android's compiler makes of the corpus."""
    folder = tmp_path_factory.mktemp("oracle")
    root = CORPUS / "android10"
    for name in NAMES:
        for words in (["--lang=cpp", "-h", str(folder)], ["--lang=java"]):
            command = ["aidl", *words, "--structured", "-I", str(root), "-o", str(folder)]
            subprocess.run([*command, str(root / name)], check=True)
    return folder


def declared(generated: Generated, name: str) -> Declaration:
    """Return what a file declares."""
    documents = generated.compiled.documents
    return next(each for each in documents if each.path.endswith(f"/{name}")).declarations[0]


def interface(generated: Generated, name: str) -> Interface:
    found = declared(generated, name)
    assert isinstance(found, Interface)
    return found


def members(declared: Declaration) -> dict[str, str]:
    """Return the names of methods in AIDL, and in Python."""
    return ClassNames(declared).members


@pytest.mark.parametrize("name", INTERFACES)
def test_codes_and_descriptors(generated: Generated, oracle: Path, name: str) -> None:
    ours = interface(generated, name)
    java = (oracle / name.replace(".aidl", ".java")).read_text()
    theirs = {
        method: int(number) + android.FIRST_CALL_TRANSACTION
        for method, number in re.findall(
            r"int TRANSACTION_(\w+) = \(android.os.IBinder.FIRST_CALL_TRANSACTION \+ (\d+)\)", java
        )
    }
    cls = generated(ours.qualified)
    methods = cls.binder_interface.methods
    codes = {name: methods[ours_too].code for name, ours_too in members(ours).items()}
    assert codes == theirs
    assert codes
    assert f'DESCRIPTOR = "{cls.descriptor}"' in java
    assert Cpp(oracle).descriptor(ours.qualified) == cls.descriptor
    cpp = Cpp(oracle).transactions(ours.qualified)
    assert {method: each.code for method, each in cpp.items()} == codes


def test_the_code_of_the_version(oracle: Path, tmp_path: Path) -> None:
    root = CORPUS / "android10"
    source = str(root / "org/example/INumbered.aidl")
    command = ["aidl", "--lang=java", "--structured", "-v", "3", "-I", str(root)]
    subprocess.run([*command, "-o", str(tmp_path), source], check=True)
    java = (tmp_path / "org/example/INumbered.java").read_text()
    (number,) = re.findall(r"TRANSACTION_getInterfaceVersion = \(.* \+ (\d+)\)", java)
    (document,) = compile_files([source]).documents
    (text,) = generate(document, version=Version(3)).values()
    code = int(number) + android.FIRST_CALL_TRANSACTION
    assert f"@aidl.transaction({code})\n    def getInterfaceVersion(self) -> int:" in text


def test_constants(generated: Generated, oracle: Path) -> None:
    java = (oracle / "org/example/IPlain.java").read_text()
    theirs = dict(re.findall(r"public static final \w+(?:\.\w+)* (\w+) = (.*);", java))
    cls = generated("org.example.IPlain")
    ours = interface(generated, "org/example/IPlain.aidl").constants
    assert {each.name for each in ours} <= set(theirs)
    for each in ours:
        shown = f'"{each.value}"' if isinstance(each.value, str) else str(each.value)
        assert theirs[each.name] == shown
        assert getattr(cls, each.name) == each.value


def test_default_values(generated: Generated, oracle: Path) -> None:
    """C++ has them in the header, each as a literal in the brackets of its type."""
    seen = 0
    for name in ("Point", "Shape"):
        header = (oracle / f"org/example/{name}.h").read_text()
        value = generated(f"org.example.{name}")()
        for field, shown in re.findall(r"^ +[\w:<>]+ (\w+) = (.*);$", header, re.MULTILINE):
            (literal,) = re.findall(r"\(?(?:\"([^\"]*)\"|'(.)'|([-\w.]+?)[fL]{0,2})\)*$", shown)
            ours = getattr(value, field)
            text = str(ours).lower() if isinstance(ours, bool) else ours
            assert ("".join(literal) if isinstance(text, str) else float(literal[2])) == text
            seen += 1
    assert seen == 10


@pytest.mark.parametrize("with_nulls", [False, True], ids=["values", "nulls"])
@pytest.mark.parametrize("name", INTERFACES)
def test_bytes(
    generated: Generated, oracle: Path, binder: Binder, name: str, with_nulls: bool
) -> None:
    ours = interface(generated, name)
    cpp = Cpp(oracle)
    token = bytes(Parcel.for_interface(ours.qualified))
    for method, arguments, results, call in play(generated, binder, ours, with_nulls=with_nulls):
        theirs = cpp.transactions(ours.qualified)[method.name]
        assert call.code == theirs.code
        request = [cpp.encode(each, arguments[each.name]) for each in theirs.request]
        assert call.request == token + b"".join(request), method.name
        assert theirs.oneway is bool(call.flags & TF_ONE_WAY)
        if not theirs.oneway:
            reply = [cpp.encode(each, results[each.name]) for each in theirs.reply]
            assert call.reply == bytes(4) + b"".join(reply), method.name


def test_what_is_compared_is_not_nothing(generated: Generated, oracle: Path) -> None:
    """The patterns find every argument and field that there is."""
    cpp = Cpp(oracle)
    for name in INTERFACES:
        ours = interface(generated, name)
        for method in ours.methods:
            theirs = cpp.transactions(ours.qualified)[method.name]
            sent = [each.name for each in method.arguments if each.comes_in or each.type.dimensions]
            assert [each.name for each in theirs.request] == sent
    shape = declared(generated, "org/example/Shape.aidl")
    assert isinstance(shape, Parcelable)
    text = (oracle / "org/example/Shape.cpp").read_text().split("writeToParcel(")[1]
    assert all(f"({each.name})" in text for each in shape.fields)
