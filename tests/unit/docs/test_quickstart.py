"""The quickstart stays short and says the same in both languages."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "quickstart.md"
CHINESE = ROOT / "docs" / "quickstart.zh-CN.md"
COMMANDS = 10


def code(page: Path) -> list[str]:
    return re.findall(r"^```\w*\n.*?^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M)


def test_both_languages_show_the_same_code() -> None:
    assert code(PAGE) == code(CHINESE)


def test_it_is_a_quick_start() -> None:
    blocks = [block for block in code(PAGE) if block.startswith("```bash")]
    lines = [line for block in blocks for line in block.splitlines()[1:-1]]
    assert 5 < len(lines) <= COMMANDS
