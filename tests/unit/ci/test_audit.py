"""What is not known must not look like a "no"."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "torch", "version": "2.13.0", "vulns": []}
BAD = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "y", "skip_reason": "not found"}


def test_a_vulnerability_fails(audit: Any) -> None:
    code, lines = audit.verdict(lambda service: {"dependencies": [CLEAN, BAD]})
    assert code == 1
    assert lines[0] == "x 1: PYSEC-1 (mended in 2)"


def test_clean_is_0_and_says_what_it_could_not_ask(audit: Any) -> None:
    code, lines = audit.verdict(lambda service: {"dependencies": [CLEAN, SKIPPED]})
    assert code == 0
    assert "1 could not be looked up" in lines[-1]


@pytest.mark.parametrize("answer", [None, {}, {"dependencies": [SKIPPED]}])
def test_no_database_is_reported_and_does_not_fail(audit: Any, answer: Any) -> None:
    code, lines = audit.verdict(lambda service: answer)
    assert code == 0
    assert "NOT DONE" in lines[0]


def test_the_second_service_is_asked_when_the_first_knows_nothing(audit: Any) -> None:
    answers = {"osv": None, "pypi": {"dependencies": [BAD]}}
    assert audit.verdict(answers.get)[0] == 1
