from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from minimind.data.mixture import open_plan
from minimind.distributed.world import World
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.training.evaluate import evaluate


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_batch_is_heard_of_and_the_loss_is_that_of_all_rows(
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
    heard: list[None] = []
    scores = evaluate(
        model,
        plan,
        plan.store,
        batch_size=batch_size,
        world=World(0, 1, 0, torch.device("cpu")),
        autocast=contextlib.nullcontext(),
        each_batch=lambda: heard.append(None),
    )
    assert len(heard) == -(-plan.n_rows // batch_size)
    assert model.training
    # An untrained model is about as good as guessing.
    guess = torch.tensor(plan.store.vocab_size).log().item()
    assert abs(scores["eval_loss"] - guess) < 0.5
