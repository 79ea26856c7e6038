from __future__ import annotations

import pytest

from minimind.report.words import counted, duration, number_text, share, text


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
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


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


def test_counts_and_shares() -> None:
    assert [counted(n, "step") for n in (0, 1, 1200)] == ["no step", "1 step", "1,200 steps"]
    assert [share(0.8715), share(None)] == ["87.2%", "–"]


def test_text_is_safe_and_keeps_what_people_write() -> None:
    assert text("<b a='1'>&\"") == "&lt;b a=&#x27;1&#x27;&gt;&amp;&quot;"
    assert text("a\x00\x1b\u202e\ud800b") == "a����b"
    assert text("今天\u3000🙂\n\tx") == "今天\u3000🙂\n\tx"
    assert [text(v) for v in (True, ["a", 1], 0.0005, None)] == ["yes", "a, 1", "0.0005", "None"]
