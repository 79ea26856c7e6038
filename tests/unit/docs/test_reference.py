"""docs/reference.md says what the parsers say."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from minimind.config import TrainConfig
from tests.unit.docs.test_examples import LAUNCHER, MINIMIND

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(maker: Any) -> None:
    assert maker.reference() == (DOCS / "reference.md").read_text(), "run: make docs"


def test_the_terminal_does_not_matter(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert maker.reference() == (DOCS / "reference.md").read_text()


def test_no_command_and_no_flag_is_missing(maker: Any) -> None:
    made = maker.reference()
    for name in [*MINIMIND, *LAUNCHER]:
        assert f"## {name}\n" in made
    for field in dataclasses.fields(TrainConfig):
        assert f"| `--{field.name}` |" in made
    assert "| `--hidden_size` | `512` | greater than 0 | width of the model |" in made
    assert "| `--weight WEIGHT …` | required |" in made
    assert "| `--max-restarts MAX_RESTARTS` |" in made
