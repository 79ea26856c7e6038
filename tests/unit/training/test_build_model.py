"""The model of a run, and what there is before it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from minimind.checkpoint.state import Execution
from minimind.config import TrainConfig
from minimind.data.mixture import open_plan
from minimind.distributed.world import World
from minimind.model import MiniMindConfig
from minimind.model.configuration_minimind import YARN_PARAMETERS
from minimind.model.language_model import LanguageModel
from minimind.planning.flops import flops_per_token
from minimind.training.build_model import init_model, make_replica, planned_flops
from minimind.training.evaluate import evaluate
from minimind.training.optimizer import Optimizers
from minimind.training.precision import make_scaler
from minimind.training.schedule import Schedule
from minimind.training.step import TrainStep
from minimind.weights.state_dict import StoredWeights


@pytest.mark.parametrize(
    ("n_rows", "total_steps", "rows"),
    [(1000, 40, 2000), (1000, 10, 640), (5, 2, 10)],
    ids=["whole epochs", "ended by max_steps", "updates that are mostly empty"],
)
def test_planned_flops_count_rows_that_there_are(n_rows: int, total_steps: int, rows: int) -> None:
    model = MiniMindConfig(hidden_size=64, num_hidden_layers=1)
    plan: Any = SimpleNamespace(n_rows=n_rows, max_seq_len=128)
    schedule = Schedule(rows_per_micro_step=16, accumulation_steps=4, total_steps=total_steps)
    flops = planned_flops(TrainConfig(epochs=2), model, plan, schedule, world_size=2)
    assert flops == pytest.approx(rows / 2 * 128 * flops_per_token(model, 128))


def test_nothing_is_compiled_once_training_has_begun(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop would have to wait for it."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    def compile_counted(model: nn.Module, **flags: Any) -> None:
        nn.Module.compile(model, backend=backend, **flags)

    monkeypatch.setattr(LanguageModel, "compile", compile_counted)
    paths, tokenizer = [str(tiny_corpus)], str(tiny_tokenizer)
    plan = open_plan(paths, tokenizer, max_seq_len=32, cache_dir=str(tmp_path))
    config = TrainConfig(
        batch_size=3, max_seq_len=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    world = World(0, 1, 0, torch.device("cpu"))
    autocast: Any = contextlib.nullcontext()
    model = init_model(config, plan.store, world.device, None)
    execution = Execution("cpu", "float32", True, "sdpa")
    replica = make_replica(model, plan, config, world, autocast, execution, held_out=plan)
    prepared = len(graphs)
    assert prepared >= 2, "one with gradients, one without"

    step = TrainStep(
        config,
        world,
        model,
        Optimizers(model, config),
        make_scaler(world.device, "float32"),
        autocast,
    )
    step.replica = replica
    for number, rows in enumerate(([0, 1, 2], [3, 4, 5], [6])):
        batch = plan.build(np.array(rows), config.batch_size)
        step.forward_backward(batch, scored=50, exchange=True)
        step.update(number)
        assert evaluate(model, plan, plan.store, batch_size=3, world=world, autocast=autocast)
    assert len(graphs) == prepared


@pytest.mark.parametrize(
    "flags", [{"gradient_checkpointing": True}, {"attention": "flex_attention"}], ids=str
)
def test_what_the_plain_network_lacks_is_trained_in_transformers_class(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path, flags: dict[str, Any]
) -> None:
    plan = open_plan(
        [str(tiny_corpus)], str(tiny_tokenizer), max_seq_len=32, cache_dir=str(tmp_path)
    )
    config = TrainConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, **flags)
    model = init_model(config, plan.store, torch.device("cpu"), None)
    assert isinstance(model, PreTrainedModel)


def test_scaled_positions_of_first_weights_are_kept(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    plan = open_plan(
        [str(tiny_corpus)], str(tiny_tokenizer), max_seq_len=32, cache_dir=str(tmp_path)
    )
    weights = tmp_path / "first.pth"
    weights.touch()
    config = TrainConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, from_weight=str(weights)
    )
    found = []
    for rope in (YARN_PARAMETERS, {"rope_type": "default"}):
        settings = {"rope_parameters": {"rope_theta": 5e5, **rope}, "rms_norm_eps": 1e-5}
        plain = init_model(config, plan.store, torch.device("cpu"), None)
        stored = StoredWeights(plain.state_dict(), settings, {}, None)
        found.append(init_model(config, plan.store, torch.device("cpu"), None, stored))
    assert [isinstance(model, PreTrainedModel) for model in found] == [True, False]
    assert [model.config.rope_theta for model in found] == [5e5, 5e5]
    assert found[1].config.rms_norm_eps == 1e-5
