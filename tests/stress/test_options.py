# SPDX-License-Identifier: Apache-2.0
"""The arguments: what each means, and what is refused, in one line and with status 2."""

from __future__ import annotations

import argparse
import math

import pytest

from binderclient import commandline
from binderclient.stress.options import Options, add_arguments, from_namespace

DEFAULT = "/default"


def parsed(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    parser.set_defaults(device=DEFAULT, json=False)
    add_arguments(parser)
    return from_namespace(parser.parse_args(words), DEFAULT)


def test_without_arguments() -> None:
    assert parsed() == Options()
    assert Options().seconds == 10
    assert Options().complaint() is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--payload 100", {"payload": (100, 100)}),
        ("--payload 0:512K", {"payload": (0, 512 << 10)}),
        ("--payload 1M", {"payload": (1 << 20, 1 << 20)}),
        ("--payload 64KiB", {"payload": (64 << 10, 64 << 10)}),
        ("--duration 90", {"duration": 90.0, "seconds": 90.0}),
        ("--duration 1.5m", {"duration": 90.0}),
        ("--duration 2h", {"duration": 7200.0}),
        ("--transactions 10M", {"transactions": 10_000_000, "seconds": math.inf}),
        ("--transactions 5K --duration 3", {"transactions": 5000, "seconds": 3.0}),
        ("--kill 2", {"kill": 2.0}),
        ("--kill 0.5/s --rate 20000", {"kill": 0.5, "rate": 20000.0}),
        ("--stop --freeze", {"stop": 1.0, "freeze": 1.0}),
        ("--stop 3 --seed 0", {"stop": 3.0, "seed": 0}),
        ("--device /dev/x --json", {"device": "/dev/x", "json": True}),
        ("--oneway 100 --nested 0 --files 0", {"oneway": 100}),
    ],
)
def test_what_they_mean(words: str, expected: dict[str, object]) -> None:
    options = parsed(*words.split())
    assert {name: getattr(options, name) for name in expected} == expected


BAD = [
    ("--payload 9G", "no size from 0 to 1M"),
    ("--payload -1", "--payload"),
    ("--payload 5:1", "the smaller size comes first"),
    ("--payload 1:2:3", "no size"),
    ("--payload :", "no size"),
    ("--payload x", "no size"),
    ("--payload 99999999999999999999999", "no size"),
    ("--oneway 150", "no whole number from 0 to 100"),
    ("--oneway -1", "--oneway"),
    ("--oneway 1.5", "no whole number"),
    ("--oneway 60 --nested 40 --files 1", "more than 100 %"),
    ("--clients 0", "no whole number from 1 to 2000"),
    ("--clients 100000", "no whole number"),
    ("--clients 9999999999999999999999999999", "no whole number"),
    ("--clients nan", "no whole number"),
    ("--clients ١", "no whole number"),
    ("--clients 1_0", "no whole number"),
    ("--servers 0", "no whole number from 1 to 500"),
    ("--threads 65", "no whole number from 1 to 64"),
    ("--clients 2000 --threads 64 --servers 500", "more than 4000000"),
    ("--idle -1", "--idle"),
    ("--rate -1", "--rate"),
    ("--rate inf", "no number from 0"),
    ("--rate nan", "no number from 0"),
    ("--rate 1e99", "no number from 0"),
    ("--duration 0", "no time above 0"),
    ("--duration 1e9", "no time above 0"),
    ("--duration 100000h", "no time above 0"),
    ("--duration soon", "no time above 0"),
    ("--kill 1001", "no number from 0 to 1000"),
    ("--freeze often", "no number from 0 to 1000"),
    ("--seed 99999999999999999999", "no whole number"),
    ("--transactions -5", "--transactions"),
    ("--transactions 9999999999G", "no whole number"),
    ("--histogram", "expected one argument"),
    ("--unknown", "unrecognized"),
    ("surplus", "unrecognized"),
    ("--pay 5", "unrecognized"),
]


@pytest.mark.parametrize(("words", "text"), BAD)
def test_what_is_refused(words: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        commandline.main(["stress", "--device", "/nowhere", *words.split()])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert text in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_long_word_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commandline.main(["stress", "--payload", "9" * 100_000])
    assert len(capsys.readouterr().err.splitlines()[-1]) < 200


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        commandline.main(["stress", "--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in said
    assert "exit status:" in said
    for name in Options.__dataclass_fields__:
        assert f"--{name}" in said
