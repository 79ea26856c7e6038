from __future__ import annotations

import pytest

from minimind.data.tools.scripts import NO_LETTERS, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, world", "Latin"),
        ("Ünïcödé ßé", "Latin"),
        ("预训练 with a few words", "Latin"),
        ("预训练脚本负责加载数据，见 run.py", "Han"),
        ("𠀀𠀁", "Han"),
        ("これはペンです", "Kana"),
        ("안녕하세요", "Hangul"),
        ("Привет, мир", "Cyrillic"),
        ("مرحبا بالعالم", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("1 + 2 = 3 🙂", NO_LETTERS),
        ("", NO_LETTERS),
        ("x" * 256 + "中" * 1000, "Latin"),
    ],
)
def test_most_letters_decide(text: str, script: str) -> None:
    assert script_of(text) == script
