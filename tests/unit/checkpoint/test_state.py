"""What a checkpoint holds is a contract: its keys, their order, and what of them is optional."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minimind.checkpoint.state import Progress, SavedModel, TrainState
from minimind.errors import WeightsError
from tests.checkpoints import train_state

PATH = Path("run.pt")


def test_keys_and_their_order_are_frozen() -> None:
    saved = train_state(3).to_dict()
    assert list(saved) == [
        "format",
        "model",
        "optimizer",
        "scaler",
        "epoch",
        "step",
        "rows_done",
        "global_step",
        "tokens",
        "skipped_steps",
        "wandb_id",
        "world_size",
        "rows_per_update",
        "ranks",
        "config",
        "execution",
        "model_config",
        "data",
        "origin",
    ]
    assert saved["format"] == 1
    assert list(saved["ranks"][0]) == ["rng", "meter", "grad_norm"]
    assert list(saved["execution"]) == ["device", "dtype", "compile", "attention"]


def test_what_is_written_comes_back() -> None:
    state = train_state(3)
    assert TrainState.from_dict(state.to_dict(), PATH) == state


def test_a_checkpoint_from_before_there_was_a_choice_of_execution() -> None:
    saved = train_state().to_dict()
    del saved["execution"]
    assert TrainState.from_dict(saved, PATH).execution is None


def test_a_checkpoint_from_before_weights_knew_their_tokenizer() -> None:
    saved = train_state().to_dict()
    for found in (None, 3):
        assert TrainState.from_dict({**saved, "origin": found}, PATH).origin == {}
    del saved["origin"]
    assert TrainState.from_dict(saved, PATH).origin == {}


OPTIONAL = ("format", "origin")


@pytest.mark.parametrize("name", [n for n in train_state().to_dict() if n not in OPTIONAL])
def test_what_is_missing_is_named(name: str) -> None:
    saved = train_state().to_dict()
    if name in ("execution", "wandb_id"):
        saved[name] = 1
    else:
        del saved[name]
    with pytest.raises(WeightsError, match=rf"run\.pt .*: its (.*, )?{name}(, .*)? cannot be used"):
        TrainState.from_dict(saved, PATH)


class TestTheModelAlone:
    def test_of_a_checkpoint(self) -> None:
        state = train_state(3)
        found = SavedModel.of(state.to_dict())
        assert found == SavedModel(state.model, {}, state.config, state.progress, {})

    def test_of_plain_weights(self) -> None:
        weights = {"a": torch.zeros(1)}
        assert SavedModel.of(weights) == SavedModel(weights, None, {}, None)

    def test_of_a_checkpoint_with_little_in_it(self) -> None:
        weights = {"a": torch.zeros(1)}
        assert SavedModel.of({"model": weights, "epoch": 1}) == SavedModel(weights, None, {}, None)
        found = SavedModel.of({"model": weights, "global_step": 7, "tokens": "many"})
        assert found.progress == Progress(global_step=7)
