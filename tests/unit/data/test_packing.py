from __future__ import annotations

import hashlib
import itertools
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind.data import packing
from minimind.data.packing import IGNORED, RowPlan, pack_bestfit, plan_rows
from minimind.data.token_store import TokenStore
from minimind.errors import DataError
from tests.unit.data.helpers import make_store


def numbered_store(path: Path, lengths: list[int]) -> TokenStore:
    """Documents in which every token of the corpus is another number."""
    first = 10
    docs = []
    for length in lengths:
        docs.append(range(first, first + length))
        first += length
    return make_store(path, docs, bos_id=None, eos_id=None)


def pieces_of(plan: RowPlan) -> list[tuple[list[int], list[int]]]:
    """Check each row's arrays against each other; return (inputs, targets) of each piece."""
    batch = plan.build(np.arange(plan.n_rows), plan.n_rows)
    pieces = []
    for r in range(plan.n_rows):
        ids, targets, positions = (
            batch[name][r] for name in ("input_ids", "targets", "position_ids")
        )
        documents, mask = batch["document_ids"][r], batch["token_mask"][r]
        n_tokens = int(plan.tokens_per_row[r])
        assert mask.tolist() == [i < n_tokens for i in range(plan.max_seq_len)]
        assert (documents >= 0).tolist() == mask.tolist()
        assert (targets >= 0).sum() == plan.targets_per_row[r]
        assert (ids[~mask] == plan.store.pad_id).all()
        assert (targets[~mask] == IGNORED).all()
        assert (positions[~mask] == 0).all()
        n_pieces = documents.max() + 1
        assert sorted(set(documents[mask].tolist())) == list(range(n_pieces))
        for piece in range(n_pieces):
            at = np.flatnonzero(documents == piece)
            assert at.tolist() == list(range(at[0], at[0] + len(at)))
            assert positions[at].tolist() == list(range(len(at)))
            assert targets[at[:-1]].tolist() == ids[at[1:]].tolist()
            assert targets[at[-1]] == IGNORED
            pieces.append((ids[at].tolist(), targets[at[:-1]].tolist()))
    return pieces


def check_coverage(store: TokenStore, plan: RowPlan) -> None:
    scored = Counter(target for _, targets in pieces_of(plan) for target in targets)
    offsets = np.asarray(store.offsets).tolist()
    expected = [
        token
        for begin, end in itertools.pairwise(offsets)
        for token in store.tokens[begin + 1 : end].tolist()
    ]
    assert scored == Counter(expected)  # numbers are unique: each exactly once


lengths = st.one_of(
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.lists(st.sampled_from([9, 10, 11]), min_size=1, max_size=80),
    st.lists(st.integers(1, 3), min_size=1, max_size=80),
)


@settings(max_examples=200, deadline=None)
@given(lengths=lengths, max_seq_len=st.integers(8, 40))
def test_every_token_but_the_first_is_a_target_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], max_seq_len: int
) -> None:
    store = numbered_store(tmp_path_factory.mktemp("store"), lengths)
    if max(lengths) == 1:
        with pytest.raises(DataError, match="nothing to predict"):
            plan_rows(store, max_seq_len)
        return
    check_coverage(store, plan_rows(store, max_seq_len))


def test_pieces_of_long_documents_overlap_by_one_token(tmp_path: Path) -> None:
    plan = plan_rows(numbered_store(tmp_path, [20]), 8)
    inputs = [ids for ids, _ in pieces_of(plan)]
    assert sorted(inputs) == [list(range(10, 18)), list(range(17, 25)), list(range(24, 30))]
    assert np.asarray(plan.targets_per_row).sum() == 19
    assert sorted(np.asarray(plan.tokens_per_row).tolist()) == [6, 8, 8]


def test_whole_documents_share_rows_best_fit_first(tmp_path: Path) -> None:
    # 10 fits only 6; 9 would fit 7 and 6, and 7 is the tighter.
    plan = plan_rows(numbered_store(tmp_path, [6, 7, 9, 10, 16]), 16)
    rows = [
        sorted(Counter(row[row >= 0].tolist()).values())
        for row in plan.build(np.arange(3), 3)["document_ids"]
    ]
    assert sorted(rows) == [[6, 10], [7, 9], [16]]
    assert plan.fill == 1.0


@pytest.mark.parametrize("max_seq_len", [64, 256, 512, 2048])
@pytest.mark.parametrize(
    "kind", ["lognormal", "just over half a row", "nearly a row", "one length", "long"]
)
def test_padding_is_under_one_percent(kind: str, max_seq_len: int) -> None:
    random = np.random.RandomState(0)
    n = 20_000
    documents = {
        "lognormal": random.lognormal(5.4, 0.8, n).astype(int) + 2,
        "just over half a row": random.randint(max_seq_len // 2 + 1, max_seq_len * 3 // 5, n),
        "nearly a row": random.randint(max_seq_len * 9 // 10, max_seq_len, n),
        "one length": np.full(n, max_seq_len * 2 // 3),
        "long": random.lognormal(8, 1, n // 10).astype(int) + 2,
    }[kind]
    layout = pack_bestfit(np.concatenate([[0], np.cumsum(documents)]), max_seq_len)
    n_rows = len(layout.row_ptr) - 1
    assert layout.lengths.sum() > 0.99 * n_rows * max_seq_len
    assert np.add.reduceat(layout.lengths, layout.row_ptr[:-1]).max() <= max_seq_len
    assert (layout.lengths - 1).sum() == (documents - 1).sum()


def test_documents_that_combine_well_stay_whole() -> None:
    documents = np.random.RandomState(1).lognormal(4.5, 0.8, 50_000).astype(int) + 2
    documents = documents[documents <= 512]
    layout = pack_bestfit(np.concatenate([[0], np.cumsum(documents)]), 512)
    assert sorted(layout.lengths) == sorted(documents)


def test_the_rows_are_frozen() -> None:
    # Checkpoints name rows by number: another hash here needs a new PLAN_VERSION.
    lengths = np.random.RandomState(1).randint(2, 700, 5000)
    layout = pack_bestfit(np.concatenate([[0], np.cumsum(lengths)]), 256)
    packed = b"".join(
        array.astype("<i8").tobytes() for array in (layout.starts, layout.lengths, layout.row_ptr)
    )
    assert hashlib.sha256(packed).hexdigest() == GOLDEN


GOLDEN = "e7fe9559a6fe2363bfd616fffac88b3c110434f5900d1f19664dd7f62c0b5e99"


def test_one_document_a_row(tmp_path: Path) -> None:
    store = make_store(tmp_path, [[1, 5, 6, 2], [1, *range(10, 30), 2], [1, 2]])
    plan = plan_rows(store, 8, "none")
    assert plan.n_rows == 3
    batch = plan.build(np.array([1, 0, 2]), 4)
    assert "document_ids" not in batch
    assert batch["input_ids"].tolist() == [
        [1, 10, 11, 12, 13, 14, 15, 2],
        [1, 5, 6, 2, 0, 0, 0, 0],
        [1, 2, 0, 0, 0, 0, 0, 0],
        [0] * 8,
    ]
    assert batch["targets"].tolist() == [
        [10, 11, 12, 13, 14, 15, 2, IGNORED],
        [5, 6, 2, *[IGNORED] * 5],
        [2, *[IGNORED] * 7],
        [IGNORED] * 8,
    ]
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 0, 0, 0, 0]
    assert batch["token_mask"].sum(axis=1).tolist() == [8, 4, 2, 0]
    assert np.asarray(plan.targets_per_row).tolist() == [3, 7, 1]
    assert np.asarray(plan.tokens_per_row).tolist() == [4, 8, 2]
    assert plan.fill == 14 / 24


def test_truncation_without_eos_keeps_the_text(tmp_path: Path) -> None:
    store = make_store(tmp_path, [range(10, 30)], bos_id=None, eos_id=None, pad_id=None)
    batch = plan_rows(store, 8, "none").build(np.array([0]), 2)
    assert batch["input_ids"].tolist() == [list(range(10, 18)), [0] * 8]
    assert batch["targets"][0].tolist() == [*range(11, 18), IGNORED]


def test_missing_rows_are_filler(tmp_path: Path) -> None:
    plan = plan_rows(numbered_store(tmp_path, [8] * 5), 8)
    batch = plan.build(np.array([3]), 3)
    assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
        ["input_ids", "targets", "position_ids", "token_mask", "document_ids"], (3, 8)
    )
    assert [str(array.dtype) for array in batch.values()] == [
        "int64",
        "int64",
        "int64",
        "bool",
        "int32",
    ]
    for filler in (1, 2):
        assert (batch["targets"][filler] == IGNORED).all()
        assert (batch["document_ids"][filler] == -1).all()
        assert not batch["token_mask"][filler].any()
        assert (batch["input_ids"][filler] == plan.store.pad_id).all()
    empty = plan.build(np.empty(0, np.int64), 2)
    assert (empty["targets"] == IGNORED).all()
    assert not empty["token_mask"].any()


def test_fingerprint_follows_all_that_decides_the_rows(tmp_path: Path) -> None:
    store = numbered_store(tmp_path / "a", [5, 9, 30])
    other = numbered_store(tmp_path / "b", [5, 9, 31])
    plans = [plan_rows(store, 8), plan_rows(store, 9), plan_rows(store, 8, "none")]
    plans.append(plan_rows(other, 8))
    assert len({plan.fingerprint for plan in plans}) == 4
    assert plan_rows(store, 8).fingerprint == plans[0].fingerprint


def test_the_plan_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = numbered_store(tmp_path, [5, 9, 30, 3])
    fresh = plan_rows(store, 8)
    monkeypatch.setattr(packing, "_arrays", lambda *_: pytest.fail("planned again"))
    kept = plan_rows(store, 8)
    assert pieces_of(kept) == pieces_of(fresh)


@pytest.mark.parametrize("damage", ["truncated", "missing", "of another store", "no JSON"])
def test_a_damaged_plan_is_made_again(tmp_path: Path, damage: str) -> None:
    store = numbered_store(tmp_path, [5, 9, 30, 3])
    fresh = pieces_of(plan_rows(store, 8))
    (folder,) = (tmp_path / "plans").iterdir()
    if damage == "truncated":
        with open(folder / "starts.npy", "r+b") as file:
            file.truncate(100)
    elif damage == "missing":
        (folder / "row_ptr.npy").unlink()
    elif damage == "no JSON":
        (folder / "plan.json").write_text("{")
    else:
        text = (folder / "plan.json").read_text().replace('"fingerprint": "', '"fingerprint": "0')
        (folder / "plan.json").write_text(text)
    assert pieces_of(plan_rows(store, 8)) == fresh
    assert [path.name for path in (tmp_path / "plans").iterdir()] == [folder.name]
    assert packing._load(folder, plan_rows(store, 8).fingerprint) is not None


def test_a_folder_that_cannot_be_written_costs_no_more_than_time(tmp_path: Path) -> None:
    store = numbered_store(tmp_path, [5, 9, 30, 3])
    (tmp_path / "plans").write_text("a file where the folder would be")
    check_coverage(store, plan_rows(store, 8))


def test_unknown_packing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bestfit or none"):
        plan_rows(numbered_store(tmp_path, [5]), 8, "best")  # type: ignore[arg-type]


def test_pickling_a_plan_carries_no_data(tmp_path: Path, tokenizer_path: str) -> None:
    from minimind.data.tokenize.build import open_corpus
    from tests.unit.data.helpers import TEXTS, write_jsonl

    data = write_jsonl(tmp_path / "a.jsonl", [text * 20 for text in TEXTS] * 50)
    store = open_corpus([data], tokenizer_path, cache_dir=str(tmp_path / "cache"))
    plan = plan_rows(store, 64)
    pickled = pickle.dumps(plan)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301 - our own bytes
    rows = np.arange(plan.n_rows)
    for name, array in plan.build(rows, len(rows)).items():
        assert np.array_equal(array, again.build(rows, len(rows))[name])
