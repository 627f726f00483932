# SPDX-License-Identifier: Apache-2.0
"""The bytes of every method of the corpus, as they were when they were compared with Android's.

``test_oracle`` compares those of Android 10 where its compiler is, ``test_bytes`` has what came
later by its parts.  A transcript that is missing is written, and the test fails once: look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from aidl.conftest import HERE
from aidl.play import play
from binderclient.aidl.syntax import Interface
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aidl.conftest import Generated
    from aidl.play import Played
    from binderclient.testing import Binder

FOLDER: Final = HERE / "transcripts"
INTERFACES: Final = sorted(each.stem for each in (HERE / "corpus").rglob("I*.aidl"))


def lines(interface: Interface, played: list[Played]) -> Iterator[str]:
    """Yield what was said: a method and its code, then words of its request and its reply."""
    token = bytes(Parcel.for_interface(interface.qualified))
    for each in played:
        yield f"{each.method.name} {each.call.code}"
        yield from _shown("  > ", each.call.request.removeprefix(token))
        if not each.method.oneway:
            yield from _shown("  < ", each.call.reply)


def _shown(mark: str, data: bytes) -> Iterator[str]:
    """Yield 32 bytes a line, in words as they lie in memory."""
    for start in range(0, len(data) or 1, 32):
        yield f"{mark}{data[start : start + 32].hex(' ', -4)}".rstrip()


@pytest.mark.parametrize("with_nulls", [False, True], ids=["values", "nulls"])
@pytest.mark.parametrize("name", INTERFACES)
def test_transcripts(generated: Generated, binder: Binder, name: str, with_nulls: bool) -> None:
    documents = generated.compiled.documents
    declared = next(
        each.declarations[0] for each in documents if each.path.endswith(f"/{name}.aidl")
    )
    assert isinstance(declared, Interface)
    played = play(generated, binder, declared, with_nulls=with_nulls)
    said = "\n".join(lines(declared, played)) + "\n"
    path = FOLDER / f"{name}.{'nulls' if with_nulls else 'values'}.txt"
    if not path.exists():
        path.write_text(said)
        pytest.fail(f"{path} was missing and is written: check it")
    assert said == path.read_text()
