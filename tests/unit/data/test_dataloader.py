from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minimind.data.dataloader import make_loader
from minimind.data.packing import RowPlan, plan_rows
from minimind.data.sampler import SkipBatchSampler, epoch_order
from tests.unit.data.helpers import make_store


@pytest.fixture
def plan(tmp_path: Path) -> RowPlan:
    return plan_rows(make_store(tmp_path, [[1, *range(3, 3 + i % 13), 2] for i in range(90)]), 16)


def sampler(plan: RowPlan, **changes: int) -> SkipBatchSampler:
    given = {"batch_size": 4, "rank": 0, "world_size": 2, "seed": 5, "epoch": 1, **changes}
    return SkipBatchSampler(plan.n_rows, **given)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_follow_the_sampler(plan: RowPlan, num_workers: int) -> None:
    order = epoch_order(plan.n_rows, 5, 1)
    read: list[int] = []
    batches = [
        list(make_loader(plan, sampler(plan, rank=r), num_workers=num_workers, pin_memory=False))
        for r in range(2)
    ]
    for pair in zip(*batches, strict=True):
        for batch in pair:
            rows = batch.pop("row_ids")
            assert rows.dtype == torch.int64
            read += rows.tolist()
            expected = plan.build(rows.numpy(), 4)
            assert batch.keys() == expected.keys()
            for name, tensor in batch.items():
                assert tensor.shape == (4, 16)
                assert torch.equal(tensor, torch.from_numpy(expected[name]))
    assert read == order.tolist()


def test_length_is_the_number_of_micro_steps(plan: RowPlan) -> None:
    follows = sampler(plan, start_row=9)
    loader = make_loader(plan, follows, num_workers=0, pin_memory=False)
    assert len(loader) == len(follows) == len(list(loader))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_random_state_is_left_alone(plan: RowPlan, num_workers: int) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(make_loader(plan, sampler(plan), num_workers=num_workers, pin_memory=False))
    assert torch.equal(torch.get_rng_state(), before)
