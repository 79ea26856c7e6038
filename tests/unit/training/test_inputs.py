"""What ranks compare before they train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import minimind
from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.errors import WeightsError
from minimind.training import inputs
from minimind.training.inputs import digest_of_weights, read_first_weights
from minimind.weights.state_dict import StoredWeights

ALONE = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def test_code_is_known_by_every_source_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = inputs._read_code().parts
    copy = tmp_path / "minimind"
    shutil.copytree(Path(minimind.__file__).parent, copy)
    monkeypatch.setattr(minimind, "__file__", str(copy / "__init__.py"))
    assert inputs._read_code().parts == here
    with (copy / "training/step.py").open("a") as file:
        file.write("\n")
    assert inputs._read_code().parts != here


def test_flags_of_the_host_may_differ_and_others_may_not() -> None:
    here = inputs._read_flags(TrainConfig(data_path=["/a/text.jsonl"], num_workers=2)).parts
    there = inputs._read_flags(
        TrainConfig(data_path=["/b/text.jsonl"], num_workers=8, save_dir="/scratch", device="cpu")
    ).parts
    assert here == there
    other = inputs._read_flags(TrainConfig(data_path=["/a/text.jsonl"], learning_rate=0.1)).parts
    assert {name for name in here if here[name] != other[name]} == {"--learning_rate"}
    held_out = TrainConfig(data_path=["/a/text.jsonl"], eval_data_path=["/a/held_out.jsonl"])
    assert inputs._read_flags(held_out).parts["--eval_data_path"] == "given"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_known_by_every_bit_and_setting(dtype: torch.dtype) -> None:
    state = {"b": torch.ones(3, dtype=dtype), "a": torch.ones(2, 4, dtype=dtype).T}
    one = digest_of_weights(StoredWeights(state, {"rope_theta": 1e6}))
    swapped = dict(reversed(state.items()))
    assert digest_of_weights(StoredWeights(swapped, {"rope_theta": 1e6})) == one
    assert digest_of_weights(StoredWeights(state, {"rope_theta": 1e4})) != one
    state["b"] = state["b"].clone()
    state["b"][1] = -1
    assert digest_of_weights(StoredWeights(state, {"rope_theta": 1e6})) != one


def test_weights_that_cannot_be_read_are_an_error_and_no_difference(tmp_path: Path) -> None:
    config = TrainConfig(data_path=["x"], from_weight="nobody", save_dir=str(tmp_path))
    with pytest.raises(WeightsError, match=r"--from_weight nobody: .*no .*nobody_512\.pth$"):
        read_first_weights(config, ALONE)
    (tmp_path / "pretrain_512.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"nobody_512\.pth; there are pretrain_512\.pth"):
        read_first_weights(config, ALONE)
    assert read_first_weights(TrainConfig(data_path=["x"]), ALONE) is None
