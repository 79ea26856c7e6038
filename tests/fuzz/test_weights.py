"""Weight files, checkpoints and model folders: nothing executes, memory is bounded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from minimind.checkpoint.state import TrainState
from minimind.checkpoint.store import load_checkpoint
from minimind.cli.inspect import inspect, main
from minimind.errors import MiniMindError, WeightsError
from minimind.weights.state_dict import infer_config, read_folder_settings, read_state_dict
from tests.fuzz.damage import (
    damaged_bytes,
    damaged_json,
    damaged_value,
    fuzz,
    in_one_line,
    json_values,
    say,
)
from tests.unit.export.helpers import make_model, write_checkpoint


@pytest.fixture(scope="module")
def files(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    model = make_model()
    write_checkpoint(folder / "run.pt", model, tiny_tokenizer)
    torch.save({name: value.half() for name, value in model.state_dict().items()}, folder / "w.pth")
    model.save_pretrained(folder / "hf")
    return folder


def look(path: Path) -> None:
    """Read it in every way that a command does."""
    code, _, _ = say(main, [str(path), "--json"])
    assert code in (0, 2)
    try:
        state = read_state_dict(path)
        infer_config(state, **read_folder_settings(path))
    except MiniMindError as error:
        in_one_line(error)


@fuzz(data=st.data(), name=st.sampled_from(["run.pt", "w.pth"]))
def test_damaged_files(data: st.DataObject, name: str, files: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data.draw(damaged_bytes((files / name).read_bytes())))
        look(path)


@fuzz(data=st.data(), name=st.sampled_from(["config.json", "model.safetensors"]))
def test_damaged_model_folders(data: st.DataObject, name: str, files: Path) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "hf")
        shutil.copytree(files / "hf", folder)
        whole = (folder / name).read_bytes()
        damage = damaged_json(json.loads(whole)) if name == "config.json" else damaged_bytes(whole)
        (folder / name).write_bytes(data.draw(damage))
        look(folder)


tensors = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.zeros(2, 2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(1).expand(1 << 20, 1 << 20),
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, dtype=torch.float8_e4m3fn),
        torch.tensor([float("nan")]),
    ]
)


@fuzz(data=st.data(), checkpoint=st.booleans())
def test_whole_files_of_wrong_content(data: st.DataObject, checkpoint: bool, files: Path) -> None:
    """The checksums are right, and somebody meant harm."""
    name = "run.pt" if checkpoint else "w.pth"
    state = torch.load(files / name, weights_only=True)
    put = st.one_of(tensors, json_values)
    found = data.draw(damaged_value(state, put))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        torch.save(found, path)
        look(path)
        try:
            TrainState.from_dict(load_checkpoint(path), path)
        except WeightsError as error:
            in_one_line(error)


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    "bomb",
    [
        Call(os.system, "touch executed"),
        Call(eval, "open('executed', 'w')"),
        Call(bytearray, 1 << 40),
        Call(OrderedDict.fromkeys, range(10)),
        Call(getattr, "a", "format"),
        OrderedDict(a=Call(set, [1])),
    ],
)
@pytest.mark.parametrize("form", ["zip", "zip of protocol 4", "old", "bare"])
def test_hostile_pickles(
    bomb: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if form == "bare":
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        protocol = 4 if form.endswith("4") else 2
        torch.save(
            {"a": bomb, "b": torch.zeros(2)},
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=form != "old",
        )
    for read in (read_state_dict, load_checkpoint):
        with pytest.raises(WeightsError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
    assert inspect(path).problems
    assert not (tmp_path / "executed").exists()


def test_a_compressed_record_is_refused(files: Path, tmp_path: Path) -> None:
    """A few kilobytes that unpack to as much as one likes."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1 << 22)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(WeightsError, match="neither compresses nor repeats"):
        read_state_dict(path)
    with pytest.raises(WeightsError, match="neither compresses nor repeats"):
        load_checkpoint(path)


def test_tensors_that_claim_more_than_they_store_are_refused(files: Path, tmp_path: Path) -> None:
    state = torch.load(files / "w.pth", weights_only=True)
    for odd in (torch.zeros(1).half().expand(1 << 30), torch.zeros(4).to_sparse()):
        torch.save({**state, "model.norm.weight": odd}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"no plain tensors|_rebuild_sparse"):
            read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "name, tensor, message",
    [
        ("model.layers.999999.mlp.x", torch.zeros(1), "a layer is missing"),
        ("model.embed_tokens.weight", torch.zeros(3), "a shape is impossible"),
        ("model.layers.0.self_attn.q_norm.weight", torch.zeros(0), "a shape is impossible"),
        ("model.layers.0.mlp.gate.weight", torch.zeros(1 << 20, 1), "no MiniMind"),
    ],
)
def test_shapes_that_would_cost_much(
    name: str, tensor: torch.Tensor, message: str, files: Path
) -> None:
    state = read_state_dict(files / "w.pth")
    with pytest.raises(WeightsError, match=message):
        infer_config({**state, name: tensor})


@pytest.mark.parametrize(
    "name", ["pad_token_id", "bos_token_id", "rms_norm_eps", "rope_parameters"]
)
def test_settings_of_another_type_are_named(name: str, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(files / "hf", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: [1]}))
    with pytest.raises(WeightsError, match=rf"{name} cannot be \[1\]"):
        read_folder_settings(folder)
    assert inspect(folder).problems


@pytest.mark.parametrize(
    "name", ["world_size", "epoch", "config", "execution", "ranks", "data", "wandb_id"]
)
@pytest.mark.parametrize("value", [torch.zeros(0), -1, [1]], ids=str)
def test_a_checkpoint_of_another_type_names_what_is_wrong(
    name: str, value: Any, files: Path
) -> None:
    state = torch.load(files / "run.pt", weights_only=True)
    TrainState.from_dict(state, files / "run.pt")
    with pytest.raises(WeightsError, match=rf"its .*{name}.* cannot be used"):
        TrainState.from_dict({**state, name: value}, files / "run.pt")
