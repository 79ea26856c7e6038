"""The data sets known by name, and what the docs say of them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.cli.data import download as command
from minimind.data.hub import HubFile
from minimind.data.recipes import RECIPES, Recipe, recipe_of

DOCS = Path(__file__).parents[3] / "docs" / "data.md"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_docs_say_the_same(recipe: Recipe) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for part in (f"| `{recipe.name}` |", f"]({recipe.page})", recipe.licence, recipe.read):
        assert part in text
    assert recipe.size.removesuffix(", 17,790,513 rows") in text
    assert datetime.date.fromisoformat(recipe.read)


def test_names() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert recipe_of("fineweb-edu") in RECIPES
    any_set = recipe_of("datasets/lab/Words-V2.1/zh/best/")
    assert any_set is not None
    assert (any_set.dataset, any_set.path, any_set.name) == (
        "lab/Words-V2.1",
        "zh/best",
        "Words-V2.1",
    )
    for name in ("datasets/lab", "datasets//words", "pretrain_hq", "images/x.png"):
        assert recipe_of(name) is None


def test_miniminds_own_set_by_its_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its files have names of their own here; the set is one like any other."""
    fetched: list[tuple[object, ...]] = []
    files = [HubFile("a.jsonl", 1, "0" * 40)]
    monkeypatch.setattr(command, "text_files", lambda recipe: files)
    monkeypatch.setattr(command, "download_all", lambda *given: fetched.append(given))
    words = ["data", "download", "datasets/jingyaogong/minimind_dataset", "--out", str(tmp_path)]
    assert main(words) == 0
    assert fetched == [
        ("jingyaogong/minimind_dataset", files, "", tmp_path / "minimind_dataset"),
    ]
