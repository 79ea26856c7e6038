"""The places in which a stop is measured are functions that there are."""

from __future__ import annotations

import functools
import importlib

import pytest

from benchmarks.stop import PLACES
from minimind.config import TrainConfig


@pytest.mark.parametrize("name", PLACES)
def test_a_place_is_a_function_and_its_flags_are_flags(name: str) -> None:
    place = PLACES[name]
    module, _, path = place.target.partition(":")
    if module:
        owner = importlib.import_module(module)
        assert callable(functools.reduce(getattr, path.split("."), owner))
    TrainConfig(**place.flags)
