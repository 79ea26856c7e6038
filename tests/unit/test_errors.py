from __future__ import annotations

import signal

import pytest

from minimind import errors


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, errors.EXIT_CANCELLED),
        (signal.SIGPIPE, errors.EXIT_BROKEN_PIPE),
        (signal.SIGTERM, errors.EXIT_TERMINATED),
    ],
)
def test_exit_codes_of_signals_are_those_of_a_shell(number: int, code: int) -> None:
    assert errors.as_shell_code(-number) == code


@pytest.mark.parametrize("code", [None, 0, 1, 75])
def test_other_exit_codes_stay(code: int | None) -> None:
    assert errors.as_shell_code(code) == code
