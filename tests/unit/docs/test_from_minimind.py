"""The pages for those who come from upstream say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minimind.config import UPSTREAMS, TrainConfig

DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("from-minimind.md", "from-minimind.zh-CN.md")
ROW = re.compile(r"^\| `--(\w+)` \| `(.*?)` \| `(.*?)` \|", re.MULTILINE)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_our_defaults_are_those_of_the_code(page: str) -> None:
    rows = ROW.findall(text_of(page))
    assert len(rows) == 7
    defaults = TrainConfig().to_dict()
    for name, theirs, ours in rows:
        value = defaults[name]
        assert ours == (" ".join(value) if isinstance(value, list) else str(value)), name
        assert theirs != ours


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_upstreams_is_there(page: str) -> None:
    for name in ("use_compile", "out_dir", "dim", "n_layers", "warmup_iters"):
        assert name in UPSTREAMS
        assert f"`--{name}" in text_of(page)


def test_both_languages_have_the_same_commands_and_tables() -> None:
    code = [re.findall(r"^(?:minimind|python|cd) [^#\n]*", text_of(p), re.MULTILINE) for p in PAGES]
    assert code[0] == code[1]
    flags = [re.findall(r"`--(\w+)", text_of(page)) for page in PAGES]
    assert flags[0] == flags[1]
