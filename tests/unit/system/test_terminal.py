from __future__ import annotations

import json

import pytest

from minimind.errors import ConfigError, MiniMindError
from minimind.system.terminal import (
    complain,
    count_text,
    json_text,
    long_duration,
    note,
    number_text,
    short_duration,
    size_text,
    visible,
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "—"), (0, "0s"), (95, "1m35s"), (3725, "1h02m"), (400_000, "4d15h")],
)
def test_short_durations(seconds: float | None, expected: str) -> None:
    assert short_duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.04, "0.0 s"),
        (3.26, "3.3 s"),
        (62.4, "62 s"),
        (304, "5 min 4 s"),
        (599.4, "9 min 59 s"),
        (3599, "1 h 0 min"),
        (3725, "1 h 2 min"),
        (400_000, "4 d 15 h"),
    ],
)
def test_long_durations(seconds: float, expected: str) -> None:
    assert long_duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (5e-4, "0.0005"),
        (3e-7, "3·10^-7"),
        (2.5, "2.5"),
        (4302.2, "4,302"),
        (12_000, "12k"),
        (1_217_291, "1.217M"),
        (-2e9, "-2B"),
    ],
)
def test_numbers(value: float, expected: str) -> None:
    assert number_text(value) == expected


def test_sizes_and_counts() -> None:
    assert [size_text(n) for n in (999, 12_345_678, 5e12)] == ["999 B", "12.3 MB", "5000.0 GB"]
    assert [count_text(n) for n in (999, 4_980_000, 2e12)] == ["999", "4.98M", "2000.00B"]


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ConfigError("--epochs 0: must be 1 or more"), "--epochs 0: must be 1 or more", 2),
        (MiniMindError("two\nlines"), "two\\nlines", 1),
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device", 1),
    ],
)
def test_what_ends_a_program_is_one_line_and_its_exit_code(
    error: Exception, said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complain("minimind eval", error) == code
    assert capsys.readouterr().err == f"minimind eval: error: {said}\n"


COLOURED = "\x1b[31mred\x9b0m\r\u202e"
"""Two ways to begin a sequence, a line that would be written over, and a text turned round."""


def test_what_acts_on_a_terminal_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    spelt = r"\x1b[31mred\x9b0m\r\u202e"
    assert visible(f"{COLOURED}\n\t中文\n") == f"{spelt}\n\t中文\n"
    note(COLOURED)
    assert capsys.readouterr().err == f"{spelt}\n"


def test_json_for_a_terminal_says_the_same_without_acting_on_it() -> None:
    text = json_text({"中文": COLOURED})
    assert "中文" in text
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {"中文": COLOURED}
