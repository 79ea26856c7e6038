from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from minimind.data.mixture import open_plan
from minimind.distributed.world import World
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.training import evaluate as evaluation
from minimind.training.evaluate import evaluate, score_batch


class TwoRanks:
    """One of two ranks, whose sums are twice its own."""

    world_size = 2
    device = torch.device("cpu")

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


@pytest.mark.parametrize("batch_size", [1, 4])
def test_it_asks_before_each_batch_whether_to_go_on_and_the_loss_is_that_of_all_rows(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path, batch_size: int
) -> None:
    plan = open_plan(
        [str(tiny_corpus)], str(tiny_tokenizer), max_seq_len=32, cache_dir=str(tmp_path)
    )
    torch.manual_seed(0)
    model = MiniMindForCausalLM(
        MiniMindConfig(
            vocab_size=plan.store.vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    ).train()
    asked: list[None] = []

    def scored(rank: int, most: int) -> dict[str, float] | None:
        """What ``rank`` of two finds in ``most`` batches."""
        asked.clear()

        def goes_on() -> bool:
            asked.append(None)
            return len(asked) <= most

        return evaluate(
            model,
            plan,
            plan.store,
            batch_size=batch_size,
            world=cast(World, TwoRanks(rank)),
            autocast=contextlib.nullcontext(),
            goes_on=goes_on,
        )

    n_batches = math.ceil(math.ceil(plan.n_rows / 2) / batch_size)
    for rank in (0, 1):
        scores = scored(rank, n_batches)
        assert len(asked) == n_batches, "both are asked equally often, whoever has more rows"
        assert model.training
        assert scored(rank, n_batches - 1) is None
        assert len(asked) == n_batches
        assert model.training
    assert scores is not None
    # An untrained model is about as good as guessing.
    guess = torch.tensor(plan.store.vocab_size).log().item()
    assert abs(scores["eval_loss"] - guess) < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_of_a_type_that_the_device_has(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(evaluation, "sum_dtype", lambda device: dtype)

    def model(**batch: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=torch.tensor(2.5))

    arrays = {"targets": torch.tensor([[3, -100, 4]])}
    scored = score_batch(
        cast(torch.nn.Module, model), arrays, torch.device("cpu"), contextlib.nullcontext()
    )
    assert (scored.dtype, scored.tolist()) == (dtype, [2.5, 2.0])
