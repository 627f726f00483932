# SPDX-License-Identifier: Apache-2.0
"""Calls each method of an interface once, with sample values, and keeps the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aidl.recorder import recorded
from aidl.samples import Samples
from binderclient.aidl.python_names import ClassNames
from binderclient.interfaces import as_interface
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aidl.conftest import Generated
    from aidl.recorder import Call
    from binderclient.aidl.syntax import Interface, Method
    from binderclient.testing import Binder


class Played(NamedTuple):
    """A method that was called, its values by their names, and the bytes."""

    method: Method
    arguments: dict[str, Any]
    results: dict[str, Any]  # that of the method itself is _aidl_return
    call: Call


def play(
    generated: Generated, binder: Binder, declared: Interface, *, with_nulls: bool
) -> list[Played]:
    """Call all methods, of a service from another process."""
    cls = generated(declared.qualified)
    samples = Samples(generated, with_nulls=with_nulls)
    names = ClassNames(declared).members
    results = {each.name: dict(_results(each, samples)) for each in declared.methods}
    handlers = {names[each]: _handler(results[each]) for each in results}
    service = type("Served", (cls,), handlers)
    played = []
    with recorded(binder, service()) as (proxy, calls):
        caller = as_interface(cls, proxy)
        for each in declared.methods:
            arguments = dict(_arguments(each, samples))
            getattr(caller, names[each.name])(*arguments.values())
            eventually(lambda: calls, f"{each.name} comes")
            played.append(Played(each, arguments, results[each.name], calls.pop()))
    return played


def _arguments(method: Method, samples: Samples) -> Iterator[tuple[str, Any]]:
    for each in method.arguments:
        meaning = each.type.meaning
        assert meaning is not None
        if each.comes_in:
            yield each.name, samples.value(meaning)
        elif each.type.dimensions and meaning.size is None:
            yield each.name, 5  # how long it is to be


def _results(method: Method, samples: Samples) -> Iterator[tuple[str, Any]]:
    if method.result.name != "void" or method.result.dimensions:
        yield "_aidl_return", samples.value(method.result.meaning)
    for each in method.arguments:
        if each.goes_out:
            yield each.name, samples.value(each.type.meaning)


def _handler(results: dict[str, Any]) -> Any:  # noqa: ANN401
    def handle(self: object, *_: object) -> object:
        values = tuple(results.values())
        return values if len(values) > 1 else values[0] if values else None

    return handle
