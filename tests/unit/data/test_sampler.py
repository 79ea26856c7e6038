from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.sampler import SkipBatchSampler, epoch_order


def test_the_order_is_frozen() -> None:
    # Checkpoints count positions in this order: these numbers may never change.
    assert epoch_order(10, seed=42, epoch=0).tolist() == [5, 0, 6, 4, 2, 7, 3, 1, 8, 9]
    assert epoch_order(10, seed=42, epoch=1).tolist() == [3, 1, 2, 9, 5, 0, 6, 8, 7, 4]


def test_the_order_depends_on_seed_and_epoch() -> None:
    orders = [epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        assert sorted(order) == list(range(1000))


sizes = st.integers(1, 9)


def samplers(n_rows: int, batch: int, world: int, start: int = 0) -> list[SkipBatchSampler]:
    return [
        SkipBatchSampler(
            n_rows, batch_size=batch, rank=r, world_size=world, seed=3, epoch=1, start_row=start
        )
        for r in range(world)
    ]


@given(n_rows=st.integers(0, 200), batch=sizes, world=sizes, data=st.data())
def test_ranks_share_the_global_order(
    n_rows: int, batch: int, world: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, n_rows))
    ranks = samplers(n_rows, batch, world, start)
    steps = list(zip(*ranks, strict=True))  # equally many on every rank
    assert len(steps) == len(ranks[0])
    rows = [row for step in steps for part in step for row in part]
    assert rows == epoch_order(n_rows, 3, 1)[start:].tolist()
    for m, step in enumerate(steps):
        assert ranks[0].global_rows(m).tolist() == np.concatenate(step).tolist()
        assert all(len(part) <= batch for part in step)
    if len(steps) > 1:
        assert all(len(part) == batch for part in steps[0])


@given(n_rows=st.integers(1, 200), batch=sizes, world=sizes, skip=st.integers(0, 50))
def test_skipping_equals_reading_on(n_rows: int, batch: int, world: int, skip: int) -> None:
    whole = samplers(n_rows, batch, world)
    skip = min(skip, len(whole[0]))
    start = min(skip * batch * world, n_rows)
    for full, rest in zip(whole, samplers(n_rows, batch, world, start), strict=True):
        expected = [ids.tolist() for ids in full][skip:]
        assert [ids.tolist() for ids in rest] == expected


def test_global_rows_of_several_steps() -> None:
    sampler = samplers(50, batch=4, world=3)[0]
    expected = np.concatenate([sampler.global_rows(m) for m in (1, 2, 3)])
    assert sampler.global_rows(1, 3).tolist() == expected.tolist()
    assert len(sampler.global_rows(4, 3)) == 2  # the epoch ends


def test_starting_late_reads_no_row_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import minimind.data.sampler as module

    class Watched(np.ndarray):
        lowest = 10**9

        def __getitem__(self, key: slice) -> np.ndarray:
            Watched.lowest = min(Watched.lowest, key.start)
            return np.asarray(self)[key]

    order = epoch_order(10_000, 3, 1).view(Watched)
    monkeypatch.setattr(module, "epoch_order", lambda *_: order)
    sampler = samplers(10_000, 2, 2, start=9_990)[1]
    assert sum(len(ids) for ids in sampler) == 4
    assert Watched.lowest == 9_992


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"rank": 2}, {"rank": -1}, {"start_row": 11}, {"start_row": -1}]
)
def test_impossible_arguments(wrong: dict[str, int]) -> None:
    good = {"batch_size": 2, "rank": 0, "world_size": 2, "seed": 0, "epoch": 0, "start_row": 0}
    with pytest.raises(ValueError, match=r"start_row|batch_size"):
        SkipBatchSampler(10, **{**good, **wrong})
