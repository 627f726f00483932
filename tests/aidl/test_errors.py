# SPDX-License-Identifier: Apache-2.0
"""What is wrong with AIDL is told by type, place and words; Android's compiler refuses it, too."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from aidl.conftest import ORACLE_MISSING
from binderclient.aidl.checks import compile_files
from binderclient.aidl.errors import (
    AidlError,
    AidlImportError,
    AidlNameError,
    AidlSyntaxError,
    AidlTypeError,
    AidlValueError,
)
from binderclient.aidl.generator import generate

if TYPE_CHECKING:
    from pathlib import Path

# Text, error, column in line 1, words. Debian's aidl refuses the first group as well.
REFUSED: Final[list[tuple[str, type[AidlError], int, str]]] = [
    ("", AidlSyntaxError, 1, "the file ends where"),
    ("interface IX { void f(); };", AidlSyntaxError, 27, "';' where"),
    ("interface IX { void f(int a,); }", AidlSyntaxError, 29, "'\\)' where"),
    ("interface IX { void f(int in); }", AidlSyntaxError, 27, "'in' is AIDL's own word"),
    ("interface IX { void f(int a) }", AidlSyntaxError, 30, "'}' where ';' or '=' should be"),
    ("interface IX { void f(", AidlSyntaxError, 23, "the file ends where"),
    ("/* x interface IX { }", AidlSyntaxError, 1, "this comment has no end"),
    ('interface IX { const String A = "x; }', AidlSyntaxError, 33, "this string has no end"),
    ("interface IX { void f() = 0x5; }", AidlSyntaxError, 27, "'0x5' where a number should be"),
    ("interface IX # { }", AidlSyntaxError, 14, "'#' where"),
    ("interface IX é { }", AidlSyntaxError, 14, r"'é' \(U\+00E9\) where"),
    ("interface IZ { }", AidlImportError, 11, "IZ belongs into a file of that name, IZ.aidl"),
    ("package a.b; interface IX { }", AidlImportError, 9, "of package a.b is called …/a/b/IX"),
    ("import a.IY; interface IX { }", AidlImportError, 8, "nothing has a.IY"),
    ("interface IX { void f(IY x); }", AidlNameError, 23, "nothing is called IY"),
    ("interface IX { void f(in String[] x, String x); }", AidlNameError, 45, "two arguments"),
    ("interface IX { void f(); void f(int a); }", AidlNameError, 31, r"declared at .*IX.aidl:1:21"),
    ("interface IX { const int A = 5; const int A = 6; }", AidlNameError, 43, "declared at"),
    ("interface IX { int getInterfaceVersion(); }", AidlNameError, 20, "for itself"),
    ("interface IX { void f(int _aidl_x); }", AidlNameError, 27, "begin with _aidl"),
    ("interface IX { void f(int class); }", AidlNameError, 27, "Java's own word"),
    ("@Foo interface IX { }", AidlNameError, 1, "@Foo is no annotation of AIDL"),
    ("interface IX { void f(int[] x); }", AidlTypeError, 23, "write which way .*: in, out, inout"),
    ("interface IX { void f(out String x); }", AidlTypeError, 34, "String can be in only"),
    ("interface IX { void f(inout int x); }", AidlTypeError, 33, "int can be in only"),
    ("interface IX { void f(out IBinder x); }", AidlTypeError, 35, "IBinder can be in only"),
    ("interface IX { oneway int f(); }", AidlTypeError, 23, "f is oneway: it returns void"),
    ("oneway interface IX { int f(); }", AidlTypeError, 23, "f is oneway: it returns void"),
    ("interface IX { oneway void f(out int[] x); }", AidlTypeError, 40, "x cannot come back"),
    ("interface IX { void[] f(); }", AidlTypeError, 16, "no arrays of void"),
    ("interface IX { void f(in int[][] x); }", AidlTypeError, 26, "needs all its sizes"),
    ("interface IX { void f(@nullable int x); }", AidlTypeError, 33, "never null"),
    ("interface IX { @nullable void f(); }", AidlTypeError, 26, "void cannot be @nullable"),
    ("interface IX { void f(@utf8InCpp int x); }", AidlTypeError, 23, "@utf8InCpp is for"),
    ("interface IX { void f(in List<String>[] x); }", AidlTypeError, 26, "no arrays of List"),
    ("interface IX { void f(in List<List<String>> x); }", AidlTypeError, 31, "a List is of"),
    ("interface IX { void f() = 1; void g(); }", AidlValueError, 35, "either all methods"),
    ("interface IX { void f() = 1; void g() = 1; }", AidlValueError, 35, "f has the number 1"),
    ("interface IX { void f() = 16777115; }", AidlValueError, 27, "from 0 to 16777114"),
    ("interface IX { const int A = 4294967296; }", AidlValueError, 30, "is no int, from"),
    ("interface IX { const int A = 0x1ffffffff; }", AidlValueError, 30, "is no int, from"),
    ('interface IX { const int A = "x"; }', AidlValueError, 30, "a string is no int"),
    ('interface IX { const String A = "a\\n"; }', AidlValueError, 35, "ASCII without escapes"),
    ('interface IX { const String A = "ä"; }', AidlValueError, 34, "ASCII without escapes"),
    ("parcelable IX { byte b = 200; }", AidlValueError, 26, "200 is no byte, from -128 to 127"),
    ("parcelable IX { int[] b = 1; }", AidlValueError, 27, "an integer is no array"),
    ("parcelable IX { char b = 65; }", AidlValueError, 26, "an integer is no char"),
    ("parcelable IX { double b = 1; }", AidlValueError, 28, "an integer is no double"),
    ("parcelable IX { float b = 1.5; }", AidlValueError, 27, "write 1.5f"),
]
# What Android has since then, or has come to refuse since then.
LATER: Final[list[tuple[str, type[AidlError], int, str]]] = [
    ("interface IX;", AidlSyntaxError, 11, "IX has no body"),
    ("parcelable IX<T> { T a; }", AidlSyntaxError, 14, "type parameters are not supported"),
    ("enum IX { }", AidlSyntaxError, 11, "'}' where a name or an annotation should be"),
    ("union IX { }", AidlSyntaxError, 7, "IX has no members"),
    ("interface IX { } interface IY { }", AidlNameError, 28, "a file declares one thing"),
    ("enum IX { A, B, A }", AidlNameError, 17, "declared at"),
    ("enum IX { A = B }", AidlNameError, 15, "no constant is called B"),
    ("parcelable IX { int b; int b; }", AidlNameError, 28, "declared at"),
    ("parcelable IX { enum IX { A } }", AidlNameError, 22, "declared at"),
    ('@Descriptor(value="a\\\\") interface IX { }', AidlValueError, 1, "no name of an interface"),
    ("@Descriptor interface IX { }", AidlTypeError, 1, r'write @Descriptor\(value="…"\)'),
    ("@nulable interface IX { }", AidlNameError, 1, "did you mean @nullable?"),
    ("@nullable interface IX { }", AidlTypeError, 1, "@nullable belongs to a type"),
    ("@FixedSize interface IX { }", AidlTypeError, 1, "belongs to a parcelable or a union"),
    ("@Backing(type=5) enum IX { A }", AidlTypeError, 1, 'write @Backing\\(type="…"\\)'),
    ('@Backing(type="short") enum IX { A }', AidlTypeError, 1, "one of byte, int, long"),
    ('@Backing(tipe="int") enum IX { A }', AidlTypeError, 1, "takes no 'tipe'"),
    ("interface IX { @nullable @nullable String f(); }", AidlTypeError, 26, "is there twice"),
    ("interface IX { void f(in List<int> x); }", AidlTypeError, 31, "use an array"),
    ("interface IX { void f(in List x); }", AidlTypeError, 26, "for example List<String>"),
    ("interface IX { void f(in Map x); }", AidlTypeError, 26, "for example Map<String, IB"),
    ("interface IX { void f(in Map<IX,IX> x); }", AidlTypeError, 30, "keys of a Map are String"),
    ("interface IX { void f(CharSequence x); }", AidlTypeError, 23, "use String"),
    ("interface IX { void f(void x); }", AidlTypeError, 23, "an argument cannot be void"),
    ("interface IX { ParcelableHolder f(); }", AidlTypeError, 16, "for fields only"),
    ("interface IX { void f(in int[0] x); }", AidlValueError, 30, "a number above 0"),
    ("interface IX { void f(in int[1<<30] x); }", AidlTypeError, 26, "fits no transaction"),
    (
        "interface IX { void f(in int" + "[2]" * 16000 + " x); }",
        AidlTypeError,
        26,
        "than 1048576 items",
    ),
    (
        "interface IX { void f(in int[1000][1000][1000] x); }",
        AidlTypeError,
        26,
        "of more than 10485",
    ),
    ("interface IX { const int[] A = {1}; }", AidlTypeError, 22, "no constants of type"),
    ("interface IX { const IBinder A = 1; }", AidlTypeError, 22, "no constants of type"),
    ("parcelable IX { IX b; }", AidlTypeError, 17, "contain itself without end"),
    ("parcelable IX { void b; }", AidlTypeError, 17, "b cannot be void"),
    ("parcelable IX { String<int> b; }", AidlTypeError, 17, "takes no types"),
    ("parcelable IX { @nullable ParcelableHolder b; }", AidlTypeError, 27, "never null"),
    ("parcelable IX { parcelable P; P b; }", AidlTypeError, 31, "P has no fields at"),
    ("@FixedSize parcelable IX { String b; }", AidlTypeError, 28, "in a @FixedSize parcelable"),
    ("union IX { ParcelableHolder h; }", AidlTypeError, 12, "cannot be in a union"),
    ("union IX { int a; int b = 5; }", AidlValueError, 27, "only the first member"),
    ("enum IX { A = 127, B }", AidlValueError, 20, "128 is no byte"),
    ("enum IX { A = IX.B, B = IX.A }", AidlValueError, 6, "depends on itself"),
    ("parcelable IX { int[2] b = {1}; }", AidlValueError, 28, "1 items, where 2 belong"),
    ("parcelable IX { enum E { A } E b = 0; }", AidlValueError, 36, "no enumerator of IX.E"),
    ("parcelable IX { IBinder b = 0; }", AidlValueError, 29, "an integer is no IBinder"),
]


def refused(tmp_path: Path, text: str) -> AidlError:
    path = tmp_path / "IX.aidl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AidlError) as caught:
        compile_files([str(path)])
    return caught.value


@pytest.mark.parametrize(("text", "kind", "column", "said"), [*REFUSED, *LATER])
def test_what_is_wrong(
    tmp_path: Path, text: str, kind: type[AidlError], column: int, said: str
) -> None:
    found = refused(tmp_path, text)
    assert found.position == (str(tmp_path / "IX.aidl"), 1, column), found
    with pytest.raises(kind, match=said):
        raise found
    assert str(found).startswith(f"{tmp_path}/IX.aidl:1:{column}: error: ")


@pytest.mark.skipif(ORACLE_MISSING is not None, reason=str(ORACLE_MISSING))
@pytest.mark.parametrize("text", [each[0] for each in REFUSED if "a.b;" not in each[0]])
def test_android_refuses_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "IX.aidl").write_text(text, encoding="utf-8")
    command = ["aidl", "--lang=java", "--structured", "-o", "out", "IX.aidl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0


NOTED: Final = """\
@JavaDefault @SuppressWarnings(value={"out-array", "mixed-oneway"})
interface IX {
    @EnforcePermission("INTERNET") void a();
    @EnforcePermission(anyOf={"A", "B"}) void b();
    @JavaPassthrough(annotation="@a.b.C(1)") @nullable @PropagateAllowBlocking IBinder c();
    @UnsupportedAppUsage(maxTargetSdk=30, trackingBug=5) void d(@Hide int e);
    @SensitiveData interface IInner { }
}
"""


def test_what_is_ignored_is_noted(tmp_path: Path) -> None:
    (tmp_path / "IX.aidl").write_text(NOTED)
    notes = compile_files([str(tmp_path / "IX.aidl")]).notes
    assert [(each.position[1:], each.text.split()[0]) for each in notes] == [
        ((1, 1), "@JavaDefault"),
        ((1, 14), "@SuppressWarnings"),
        ((3, 5), "@EnforcePermission"),
        ((4, 5), "@EnforcePermission"),
        ((5, 5), "@JavaPassthrough"),
        ((5, 56), "@PropagateAllowBlocking"),
        ((6, 5), "@UnsupportedAppUsage"),
        ((6, 65), "@Hide"),
        ((7, 5), "@SensitiveData"),
    ]


def test_a_parcelable_of_java_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "P.aidl").write_text('@JavaOnlyStableParcelable parcelable P cpp_header "p.h";')
    compiled = compile_files([str(tmp_path / "P.aidl")])
    assert compiled.notes[-1].text == "P has no fields: nothing is made of it"
    assert generate(compiled.documents[0]) == {}


def test_all_errors_are_told(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        "interface IX {\n  Nope a();\n  void b(int[] x);\n  const int C = 1 / 0;\n  void a();\n}\n",
    )
    assert [each.position.line for each in found.all] == [2, 3, 4, 5]
    assert found is found.all[0]


def test_what_a_file_imports_is_read(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "P.aidl").write_text("package other;\nparcelable P { Nope x; }\n")
    found = refused(tmp_path, "import other.P; interface IX { void f(in P p); }")
    assert found.position.path.endswith("other/P.aidl")
    assert found.position[1:] == (2, 16)


def test_a_type_in_two_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "P.aidl").write_text("parcelable P { int x; }")
    (tmp_path / "IX.aidl").write_text("interface IX { void f(in P p); }")
    with pytest.raises(AidlImportError, match=r"two/P\.aidl as well"):
        compile_files([str(tmp_path / "IX.aidl")], [f"{tmp_path}/one", f"{tmp_path}/two"])


@pytest.mark.parametrize(
    ("data", "position", "said"),
    [
        (b"interface IX {\n  \xff }", (2, 3), "0xff is no UTF-8"),
        (b"\xef\xbb\xbfinterface IX { }", (1, 1), "U\\+FEFF"),
        (b"interface IX { }\0", (1, 17), r"'\\x00' where"),
        (b"interface IX {\r\n int a }", (2, 8), "'}' where"),
        (b" " * (5 << 20), (1, 1), "no AIDL"),
    ],
)
def test_files_that_are_no_text(
    tmp_path: Path, data: bytes, position: tuple[int, int], said: str
) -> None:
    path = tmp_path / "IX.aidl"
    path.write_bytes(data)
    with pytest.raises(AidlSyntaxError, match=said) as caught:
        compile_files([str(path)])
    assert caught.value.position[1:] == position


@pytest.mark.parametrize("name", ["none.aidl", ".", "IX\0.aidl"])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(AidlImportError, match="this file cannot be read") as caught:
        compile_files([f"{tmp_path}/{name}"])
    assert caught.value.position[1:] == (1, 1)


NESTED: Final[dict[str, Any]] = {
    "brackets": lambda n: f"interface IX {{ const int A = {'(' * n}1{')' * n}; }}",
    "braces": lambda n: f"parcelable IX {{ int[] a = {'{' * n}{'}' * n}; }}",
    "types": lambda n: f"interface IX {{ void f(in {'List<' * n}String{'>' * n} a); }}",
    "declarations": lambda n: "parcelable IX {" + "".join(
        f"parcelable P{each} {{" for each in range(n)
    ) + "}" * (n + 1),
}  # fmt: skip
LARGE: Final[dict[str, Any]] = {
    "signs": lambda n: f"interface IX {{ const int A = {'-' * n}1; }}",
    "sums": lambda n: f"interface IX {{ const int A = 0{'+1' * n}; }}",
    "comparisons": lambda n: f"interface IX {{ const int A = 1{'<2' * 30}{'==1' * n}; }}",
    "methods": lambda n: "interface IX {" + "".join(f"void f{i}();" for i in range(n)) + "}",
    "texts": lambda n: 'interface IX { const String A = "x"' + '+"x"' * n + "; }",
    "sizes": lambda n: f"interface IX {{ void f(in int{'[1]' * n} a); }}",
}


@pytest.mark.parametrize("kind", NESTED)
def test_what_nests_too_deeply(tmp_path: Path, kind: str) -> None:
    for depth in (50, 100_000):
        found = refused(tmp_path, NESTED[kind](depth))
        assert "nested more than 40 deep" in str(found)
        assert found.position.line == 1
        assert found.position.column > 40


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_long_is_no_problem(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "IX.aidl"
    path.write_text(LARGE[kind](200 if kind == "sizes" else 3000))
    assert compile_files([str(path)]).documents


def test_constants_that_need_many_others(tmp_path: Path) -> None:
    constants = [f"const int A{each} = A{each + 1};" for each in range(5000)]
    text = "interface IX {" + "\n".join([*constants, "const int A5000 = 1;"]) + "}"
    assert "100 constants depend on each other" in str(refused(tmp_path, text))


@pytest.mark.parametrize(
    ("count", "field", "said"),
    [
        (3000, "A{next} x;", "more than 64 parcelables are in each other: make x @nullable"),
        (40, "A{next} x; A{next} y;", "a value would have [0-9]+ parts, which fits no transaction"),
        (40, "A{next}[100] x;", "a value would have [0-9]+ parts, which fits no transaction"),
    ],
)
def test_parcelables_of_parcelables(tmp_path: Path, count: int, field: str, said: str) -> None:
    inner = [f"parcelable A{n} {{ {field.format(next=n + 1)} }}\n" for n in range(count)]
    text = f"parcelable IX {{ {''.join(inner)} parcelable A{count} {{ }} }}"
    with pytest.raises(AidlTypeError, match=said):
        raise refused(tmp_path, text)
    nullable = text.replace("A", "@nullable A").replace("parcelable @nullable ", "parcelable ")
    (tmp_path / "IX.aidl").write_text(nullable)
    (document,) = compile_files([str(tmp_path / "IX.aidl")]).documents
    assert generate(document)


def test_files_of_too_many_words(tmp_path: Path) -> None:
    found = refused(tmp_path, "interface IX {" + "void f();" * 60_000 + "}")
    assert "a file of more than 200000 words and signs" in str(found)


def test_texts_that_double(tmp_path: Path) -> None:
    constants = [f"const String A{each} = A{each - 1} + A{each - 1};" for each in range(1, 40)]
    text = 'interface IX { const String A0 = "x";\n' + "\n".join(constants) + "}"
    assert "a text of more than 65536 characters" in str(refused(tmp_path, text))


def test_numbers_of_many_digits(tmp_path: Path) -> None:
    for digits in ("9" * 100_000, "0x" + "f" * 100_000, "1" + "0" * 5000 + ".5"):
        text = f"interface IX {{ const long A = {digits}; const double B = 1.0; }}"
        assert refused(tmp_path, text).position.column == 31
