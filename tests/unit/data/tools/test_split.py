from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.cli.data import main
from minimind.data.rows import read_texts
from minimind.data.tools.split import choose, split
from minimind.errors import ConfigError, DataError
from tests.unit.data.helpers import write_jsonl


@given(hashes=st.lists(st.integers(0, 30), min_size=1, max_size=60), data=st.data())
def test_as_many_are_chosen_as_equal_hashes_allow(hashes: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(hashes)))
    chosen = choose(np.array(hashes, np.uint64), wanted)
    inside = {h for h, c in zip(hashes, chosen, strict=True) if c}
    outside = {h for h, c in zip(hashes, chosen, strict=True) if not c}
    assert not inside & outside
    assert inside
    n_chosen = int(chosen.sum())
    if n_chosen > wanted:
        assert inside == {min(hashes)}
    if n_chosen < wanted:  # the next group would be too many
        assert n_chosen + hashes.count(min(outside)) > wanted


TEXTS = [f"text {i % 70}" for i in range(100)]
"""30 of them twice."""


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "corpus.jsonl", TEXTS)


def halves(folder: Path) -> tuple[list[str], list[str]]:
    train, held_out = (list(map(str, read_texts(folder / n))) for n in ("t.jsonl", "e.jsonl.zst"))
    return train, held_out


def split_in(folder: Path, corpus: str, **settings: object) -> tuple[list[str], list[str]]:
    split([corpus], folder / "t.jsonl", folder / "e.jsonl.zst", overwrite=True, **settings)  # type: ignore[arg-type]
    return halves(folder)


@pytest.mark.parametrize("settings", [{"share": 0.2}, {"count": 20}])
def test_nothing_is_on_both_sides_and_nothing_is_lost(
    corpus: str, tmp_path: Path, settings: dict[str, float]
) -> None:
    train, held_out = split_in(tmp_path, corpus, **settings)
    assert sorted(train + held_out) == sorted(TEXTS)
    assert not set(train) & set(held_out)
    assert 19 <= len(held_out) <= 20  # the border may fall on a pair
    assert [t for t in TEXTS if t in set(train)] == train  # in order
    assert [t for t in TEXTS if t in set(held_out)] == held_out


def test_the_seed_decides(corpus: str, tmp_path: Path) -> None:
    first = split_in(tmp_path, corpus, count=10)
    assert split_in(tmp_path, corpus, count=10) == first
    assert split_in(tmp_path, corpus, count=10, seed=1) != first


def test_the_command(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, held_out = tmp_path / "t.jsonl", tmp_path / "e.jsonl.zst"
    words = ["split", corpus, "--train", str(train), "--eval", str(held_out)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 100
    assert found["train_rows"] + found["eval_rows"] == 100
    assert len(halves(tmp_path)[1]) == found["eval_rows"] >= 1  # 1 % by default
    with pytest.raises(ConfigError, match="not allowed with argument"):
        main([*words, "--share", "0.1", "--count", "3"])
    for bad, message in [
        (["--share", "1"], r"--share must be between 0 and 1"),
        (["--count", "0"], r"--count must be 1 or more"),
        (["--count", "100"], r"holding out 100 of 100 rows leaves none to train on"),
    ]:
        with pytest.raises(ConfigError, match=message):
            main([*words, "--overwrite", *bad])
    assert len(halves(tmp_path)[1]) == found["eval_rows"]  # as it was


def test_one_text_cannot_be_divided(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "same.jsonl", ["same"] * 5)
    with pytest.raises(ConfigError, match="leaves none to train on"):
        split_in(tmp_path, corpus, count=2)


def test_too_many_bad_rows(corpus: str, tmp_path: Path) -> None:
    with open(corpus, "a") as file:
        file.write("broken\n")
    with pytest.raises(DataError, match=r"1 unusable rows.*corpus\.jsonl:101: invalid JSON"):
        split_in(tmp_path, corpus, count=2, max_bad_rows=0)
    assert not (tmp_path / "t.jsonl").exists()
