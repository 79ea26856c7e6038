from __future__ import annotations

import copy
import logging
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.mixture import MixedPlan, open_plan, share_rows
from minimind.data.packing import RowPlan
from minimind.data.sampler import SkipBatchSampler, SourceRows, mixed_epoch_order
from minimind.errors import DataError
from tests.corpus import write_corpus

weights = st.lists(st.fractions(Fraction(1, 100), 100), min_size=1, max_size=5)


@given(data=st.data(), weight=weights)
def test_shares_add_up_and_miss_the_exact_by_less_than_one(
    data: st.DataObject, weight: list[Fraction]
) -> None:
    n_rows = [data.draw(st.integers(1, 1000)) for _ in weight]
    shares = share_rows(n_rows, weight)
    assert sum(shares) == sum(n_rows)
    for share, w in zip(shares, weight, strict=True):
        assert abs(share - sum(n_rows) * w / sum(weight)) < 1


sources = st.lists(
    st.builds(SourceRows, st.integers(1, 30), st.integers(1, 70)), min_size=1, max_size=4
)


@given(sources=sources, seed=st.integers(0, 5))
def test_epochs_show_every_row_equally_often(sources: list[SourceRows], seed: int) -> None:
    seen: Counter[int] = Counter()
    for epoch in range(4):
        order = mixed_epoch_order(sources, seed, epoch)
        first = 0
        for source in sources:
            own = order[(order >= first) & (order < first + source.n_rows)]
            assert len(own) == source.per_epoch
            first += source.n_rows
        seen.update(order.tolist())
        first = 0
        for source in sources:
            counts = [seen[row] for row in range(first, first + source.n_rows)]
            assert max(counts) - min(counts) <= 1
            first += source.n_rows


def test_the_order_is_frozen() -> None:
    # Checkpoints count positions in this order: these numbers may never change.
    mix = [SourceRows(3, 5), SourceRows(6, 4)]
    assert mixed_epoch_order(mix, 42, 0).tolist() == [8, 1, 6, 2, 2, 4, 1, 0, 5]
    assert mixed_epoch_order(mix, 42, 1).tolist() == [8, 1, 0, 3, 7, 0, 3, 2, 1]


def test_the_sampler_starts_anywhere_in_a_mix() -> None:
    mix = [SourceRows(30, 20), SourceRows(20, 30)]
    given = {"batch_size": 3, "rank": 0, "world_size": 1, "seed": 1, "epoch": 2, "mix": mix}
    whole = np.concatenate(list(SkipBatchSampler(50, **given)))  # type: ignore[arg-type]
    rest = np.concatenate(list(SkipBatchSampler(50, start_row=12, **given)))  # type: ignore[arg-type]
    assert rest.tolist() == whole[12:].tolist()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "a": write_corpus(tmp_path / "a.jsonl", 40, seed=1),
        "b": write_corpus(tmp_path / "b.jsonl", 15, seed=2),
    }


def mixed(
    files: dict[str, Path], tokenizer_path: str, a: str = "0.7", b: str = "0.3", **settings: object
) -> MixedPlan:
    words = [f"{files['a']}:{a}", f"{files['b']}:{b}"]
    cache = str(files["a"].parent / "cache")
    given = {"max_seq_len": 32, "cache_dir": cache, **settings}
    plan = open_plan(words, tokenizer_path, **given)  # type: ignore[arg-type]
    assert isinstance(plan, MixedPlan)
    return plan


@pytest.mark.parametrize("pack", ["bestfit", "none"])
def test_rows_of_a_mix_are_the_rows_of_its_sources(
    files: dict[str, Path], tokenizer_path: str, pack: str
) -> None:
    plan = mixed(files, tokenizer_path, pack=pack)
    a, b = plan.parts
    assert plan.n_rows == a.n_rows + b.n_rows
    ids = np.array([a.n_rows + 2, 0, a.n_rows, 5])
    batch = plan.build(ids, 6)
    own = {0: (b, 2), 1: (a, 0), 2: (b, 0), 3: (a, 5)}
    for place, (part, row) in own.items():
        expected = part.build(np.array([row]), 1)
        assert batch.keys() == expected.keys()
        for name, array in expected.items():
            assert batch[name][place].tolist() == array[0].tolist()
        assert plan.locate(int(ids[place])) == ((0, 1)[part is b], row)
        assert plan.tokens_per_row[ids[place]] == part.tokens_per_row[row]
        assert plan.targets_per_row[ids[place]] == part.targets_per_row[row]
    assert not batch["token_mask"][4:].any()
    # What a loader process gets is made anew from this one's parts.
    for name, array in copy.copy(plan).build(ids, 6).items():
        assert array.tolist() == batch[name].tolist()


def test_the_fingerprint_covers_rows_and_weights(
    files: dict[str, Path], tokenizer_path: str
) -> None:
    plan = mixed(files, tokenizer_path)
    assert mixed(files, tokenizer_path, "7", "3").fingerprint == plan.fingerprint
    others = [
        mixed(files, tokenizer_path, "0.5", "0.5"),
        mixed(files, tokenizer_path, max_seq_len=33),
        mixed({"a": files["b"], "b": files["a"]}, tokenizer_path, "0.3", "0.7"),
    ]
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_new_weights_cost_no_new_tokens(
    files: dict[str, Path], tokenizer_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mixed(files, tokenizer_path)
    assert "tokenised" in caplog.text
    caplog.clear()
    plan = mixed(files, tokenizer_path, "0.2", "0.8")
    assert "tokenised" not in caplog.text
    share = plan.rows_per_epoch[0]
    percent, passes = 100 * share / plan.n_rows, share / plan.parts[0].n_rows
    assert f"{percent:.2f}% of the rows, {passes:.2f} passes over it an epoch" in caplog.text


def test_a_list_without_weights_is_one_source(
    files: dict[str, Path], tokenizer_path: str, tmp_path: Path
) -> None:
    paths = [str(file) for file in files.values()]
    plan = open_plan(paths, tokenizer_path, max_seq_len=32, cache_dir=str(tmp_path / "c"))
    assert isinstance(plan, RowPlan)
    assert plan.mix == ()
    assert plan.store.n_docs == 55


def test_a_source_that_would_give_no_row(files: dict[str, Path], tokenizer_path: str) -> None:
    with pytest.raises(DataError, match=r"b\.jsonl: its weight gives it no row of an epoch"):
        mixed(files, tokenizer_path, "1", "0.00001")


def test_a_file_in_two_sources(files: dict[str, Path], tokenizer_path: str) -> None:
    files["b"] = files["a"].parent / "*.jsonl"
    with pytest.raises(DataError, match=r"a\.jsonl: is in both .*a\.jsonl and .*\*\.jsonl"):
        mixed(files, tokenizer_path)
