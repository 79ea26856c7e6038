"""The places in which a stop is measured are functions that there are."""

from __future__ import annotations

import functools
import importlib

import pytest

from benchmarks.stop import PLACES, allowed, longest_micro_batch
from minimind.config import TrainConfig


@pytest.mark.parametrize("name", PLACES)
def test_a_place_is_a_function_and_its_flags_are_flags(name: str) -> None:
    place = PLACES[name]
    module, _, path = place.target.partition(":")
    if module:
        owner = importlib.import_module(module)
        assert callable(functools.reduce(getattr, path.split("."), owner))
    TrainConfig(**place.flags)


def test_a_stop_may_take_a_micro_batch_and_a_save_where_that_is_longer() -> None:
    assert allowed({"ended": 12.0}) == 10.0
    assert allowed({"ended": 12.0, "micro_batch": 2.0, "save": 3.0}) == 10.0
    assert allowed({"ended": 12.0, "micro_batch": 7.5, "save": 4.0}) == 11.5


def test_the_longest_micro_batch_is_of_the_slowest_lines() -> None:
    lines = [
        {"step": 2, "loss": 1.0, "compute_seconds": 4.0},
        {"step": 2, "eval_loss": 1.0},
        {"step": 4, "loss": 1.0, "compute_seconds": 9.0},
        {"step": 5, "loss": 1.0, "compute_seconds": 3.0},
    ]
    assert longest_micro_batch(lines) == 4.5
    assert longest_micro_batch([]) == 0.0
