# SPDX-License-Identifier: Apache-2.0
"""What can be tested of the comparison without a machine that has the driver."""

from __future__ import annotations

from collections import Counter
from errno import EAGAIN
from typing import TYPE_CHECKING

import pytest

from binderwire import binder_abi as abi
from oracle import driver_player, program, script
from oracle.compare import difference, play, shrink
from oracle.engine_player import words
from oracle.generator import Generator
from oracle.program import Ended
from oracle.script import WriteRead

if TYPE_CHECKING:
    from oracle.compare import Played
    from oracle.program import Result

SEEDS = 400
GROUP = 50


def made(seed: int) -> Played:
    """Return the script of a seed, played once more."""
    return play(Generator(seed).make())


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_the_engine_keeps_its_invariants_and_ends_empty(first: int) -> None:
    for seed in range(first, first + GROUP):
        generator = Generator(seed, checking=True)
        generator.make()
        generator.player.finish()


def test_a_seed_always_makes_the_same_script_and_results() -> None:
    for seed in range(20):
        generator = Generator(seed)
        steps = generator.make()
        again = made(seed)
        assert again.script == steps
        assert again.operations == generator.player.operations
        assert again.expected == generator.player.expected
        assert again.ends == generator.ends


def test_the_scripts_get_everywhere() -> None:
    returns: Counter[int] = Counter()
    errors: Counter[int] = Counter()
    for seed in range(SEEDS):
        for result in made(seed).expected:
            for ended in result if isinstance(result, tuple) else ():
                errors[ended.errno] += 1
                returns.update(word for word, _ in words(ended.stream))
    never = {abi.BR_ERROR, abi.BR_OK, abi.BR_ACQUIRE_RESULT, abi.BR_ATTEMPT_ACQUIRE}
    never |= {abi.BR_FINISHED, abi.BR_TRANSACTION_SEC_CTX, abi.BR_ONEWAY_SPAM_SUSPECT}
    assert [row.name for word, row in abi.RETURNS.items() if not returns[word]] == [
        row.name for word, row in abi.RETURNS.items() if word in never
    ]
    assert sorted(errors)[:1] == [0]
    assert len(errors) >= 7
    assert returns[abi.BR_TRANSACTION] > returns[abi.BR_FAILED_REPLY] / 3


def test_a_script_can_be_read_and_written_down() -> None:
    for seed in range(10):
        steps = made(seed).script
        assert tuple(eval(repr(step), vars(script)) for step in steps) == steps
        assert len(script.text(steps).splitlines()) >= len(steps)


# Results


def packed(result: Result, operation: bytes) -> bytes:
    """Return a result as player.c writes it."""
    if isinstance(result, int):
        return result.to_bytes(2, "little")
    if isinstance(result, bytes):
        return len(result).to_bytes(2, "little") + result
    octets = b""
    for ended in result:
        head = bytes([ended.thread]) + ended.errno.to_bytes(2, "little") + bytes([ended.nice + 20])
        for part in (ended.argument, ended.stream):
            head += len(part).to_bytes(2, "little") + part
        octets += head
    return octets + b"\xff"


def test_results_are_understood() -> None:
    for seed in range(50):
        played = made(seed)
        loud = [op for op in played.operations if op[0] != program.FILL]
        octets = b"".join(map(packed, played.expected, loud))
        assert program.parse(played.operations, octets) == played.expected
        whole = program.parse(played.operations, octets[: len(packed(played.expected[0], loud[0]))])
        assert whole == played.expected[:1]


def test_debug_ids_may_differ_but_not_whether_there_is_one() -> None:
    pack, request = abi.binder_extended_error.pack, abi.BINDER_GET_EXTENDED_ERROR
    one, two, none = (program.normal(request, pack(number, 1, -9)) for number in (5, 7, 0))
    assert one == two != none
    assert program.normal(request, pack(5, 1, -8)) != one
    assert program.normal(abi.BINDER_VERSION, pack(5, 1, -9)) == pack(5, 1, -9)


# A driver that is not like the engine


def never_eagain(played: Played) -> list[Result]:
    """What the engine reports, but for one errno."""
    return [
        tuple(ended._replace(errno=0) if ended.errno == EAGAIN else ended for ended in result)
        if isinstance(result, tuple)
        else result
        for result in played.expected
    ]


def forgetful(played: Played) -> list[Result]:
    """What the engine reports, but for the third byte of data that is delivered."""
    return [
        result[:2] + b"?" + result[3:] if isinstance(result, bytes) and len(result) > 2 else result
        for result in played.expected
    ]


def test_no_difference_is_seen_where_there_is_none() -> None:
    for seed in range(100):
        played = made(seed)
        assert difference(played, played.expected) is None


def test_a_difference_is_found_and_made_small() -> None:
    seed = next(n for n in range(100) if difference(made(n), never_eagain(made(n))))
    found = difference(made(seed), never_eagain(made(seed)))
    assert found is not None
    smallest = shrink(made(seed).script, never_eagain)
    assert smallest is not None
    steps, shown = smallest
    assert len(steps) <= 6  # it may be a freeze that comes too early
    assert shown.step == len(steps) - 1
    assert isinstance(shown.engine, tuple)
    assert isinstance(shown.driver, tuple)
    assert [ended.errno for ended in shown.engine] == [EAGAIN]
    assert [ended.errno for ended in shown.driver] == [0]
    assert "errno 11" in str(shown)


def test_a_difference_in_what_is_delivered_is_found_and_made_small() -> None:
    seed = next(n for n in range(100) if difference(made(n), forgetful(made(n))))
    smallest = shrink(made(seed).script, forgetful)
    assert smallest is not None
    steps, shown = smallest
    assert len(steps) <= 6  # two files, a manager, a call, its delivery
    assert isinstance(steps[-1], WriteRead)
    assert isinstance(shown.driver, bytes)
    assert b"?" in shown.driver


def test_a_player_that_gave_up_differs() -> None:
    played = made(3)
    found = difference(played, played.expected[:4])
    assert found is not None
    assert found.driver is None
    assert "sleeps" in str(found)


def test_chance_is_not_taken_for_a_difference_that_can_be_shown() -> None:
    played = made(3)
    assert shrink(played.script, lambda played: played.expected) is None


def test_when_spam_is_suspected_is_the_one_thing_that_is_excused() -> None:
    played = made(3)
    complete, suspect, failed = (
        (Ended(0, 0, 0, b"", word.to_bytes(4, "little")),)
        for word in (abi.BR_TRANSACTION_COMPLETE, abi.BR_ONEWAY_SPAM_SUSPECT, abi.BR_FAILED_REPLY)
    )
    for ours, theirs in ((complete, suspect), (suspect, complete)):
        assert difference(played._replace(expected=[ours], ends=[1]), [theirs]) is None
    for ours, theirs in ((failed, suspect), (suspect, failed), (failed, complete)):
        assert difference(played._replace(expected=[ours], ends=[1]), [theirs]) is not None


def test_the_drivers_player_compiles() -> None:
    driver_player.build()
    assert driver_player.PROGRAM.exists()
