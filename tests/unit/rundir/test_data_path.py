from __future__ import annotations

from fractions import Fraction

import pytest

from minimind.config import TrainConfig, parse_args
from minimind.errors import ConfigError
from minimind.rundir.data_path import parse_sources


def pairs(*words: str) -> list[tuple[str, Fraction]] | None:
    found = parse_sources(words)
    return found if found is None else [(source.path, source.weight) for source in found]


@pytest.mark.parametrize(
    "words",
    [
        ("a.jsonl:0.7", "b.jsonl:0.3"),
        ("a.jsonl:0.7,b.jsonl:0.3",),
        ("a.jsonl:7e-1", "b.jsonl:.3"),
    ],
)
def test_weights_are_exact_decimals(words: tuple[str, ...]) -> None:
    assert pairs(*words) == [("a.jsonl", Fraction(7, 10)), ("b.jsonl", Fraction(3, 10))]


@pytest.mark.parametrize(
    "words", [("a.jsonl", "b.jsonl"), ("a,b.jsonl",), ("a:b",), ("a.jsonl:0.7,b.jsonl",), (":3",)]
)
def test_paths_without_weights_stay_paths(words: tuple[str, ...]) -> None:
    assert pairs(*words) is None


def test_a_path_may_hold_colons_and_commas() -> None:
    assert pairs("x:1/zh,en/*.jsonl:2") == [("x:1/zh,en/*.jsonl", Fraction(2))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a:0.5", "b"), r"--data_path b has no weight, but other sources have; write b:WEIGHT"),
        (("a:0", "b:1"), r"--data_path a:0: the weight must be greater than 0"),
        (("a:-1", "b:1"), r"must be greater than 0"),
        (("a:1", "a:2"), r"--data_path a is named twice"),
    ],
)
def test_what_no_mix_can_be_made_of(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sources(words)
    with pytest.raises(ConfigError, match=message):
        parse_args(["--data_path", *words])  # before anything starts


def test_held_out_text_takes_no_weights() -> None:
    with pytest.raises(ConfigError, match="--eval_data_path takes no weights"):
        TrainConfig(eval_data_path=["a:1"])
