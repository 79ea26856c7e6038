"""Packed rows and one document a row give every document the same loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.data.packing import RowPlan, plan_rows
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from tests.unit.data.helpers import make_store


def loss_of_documents(model: torch.nn.Module, plan: RowPlan) -> dict[int, float]:
    """Summed cross-entropy of each document, by where it begins in the token stream."""
    batch = {
        name: torch.from_numpy(array)
        for name, array in plan.build(np.arange(plan.n_rows), plan.n_rows).items()
    }
    targets = batch.pop("targets")
    with torch.no_grad():
        logits = model(**batch).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(targets)
    result = {}
    for row in range(plan.n_rows):
        pieces = range(plan.layout.row_ptr[row], plan.layout.row_ptr[row + 1])
        for number, piece in enumerate(pieces):
            own = batch["token_mask"][row]
            if "document_ids" in batch:
                own = batch["document_ids"][row] == number
            result[int(plan.layout.starts[piece])] = float(losses[row][own].sum())
    return result


@pytest.mark.parametrize("use_moe", [False, True])
def test_packed_equals_separate(tmp_path: Path, use_moe: bool) -> None:
    random = np.random.RandomState(0)
    lengths = random.randint(3, 46, 60)
    lengths = random.permutation([*lengths, *(48 - lengths)])  # they combine without a rest
    docs = [[1, *random.randint(3, 100, length - 2), 2] for length in lengths]
    store = make_store(tmp_path, docs)
    packed, separate = plan_rows(store, 48, "bestfit"), plan_rows(store, 48, "none")
    assert packed.n_rows < separate.n_rows
    assert sorted(packed.layout.lengths) == sorted(map(len, docs))  # all of them whole

    torch.manual_seed(0)
    config = MiniMindConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, use_moe=use_moe, dropout=0.0
    )
    model = MiniMindForCausalLM(config).eval()
    one, other = loss_of_documents(model, packed), loss_of_documents(model, separate)
    assert one.keys() == other.keys()
    for start, loss in one.items():
        assert loss == pytest.approx(other[start], rel=1e-5)
    if not use_moe:  # there the loss includes the balance of the experts
        rows = np.arange(packed.n_rows)
        arrays = packed.build(rows, packed.n_rows)
        arrays["shift_labels"] = arrays.pop("targets")
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.no_grad():
            total = model(**batch, num_items_in_batch=1).loss
        assert float(total) == pytest.approx(sum(other.values()), rel=1e-5)
