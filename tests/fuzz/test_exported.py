"""GGUF and ONNX files from anybody: one line, no endless loop, bounded memory."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from minimind.cli.export import main as export
from minimind.errors import WeightsError
from minimind.weights.state_dict import read_weights
from tests.fuzz.damage import damaged_bytes, fuzz, say, weights_taken
from tests.unit.export.helpers import make_model, write_checkpoint

gguf = pytest.importorskip("gguf")
onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "moe"])
def gguf_file(
    request: pytest.FixtureRequest, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    weight = write_checkpoint(folder / "run.pt", make_model(use_moe=request.param), tiny_tokenizer)
    words = ["--weight", str(weight), "--format", "gguf", "--out", str(folder / "m.gguf")]
    assert say(export, words)[0] == 0
    return folder / "m.gguf"


@fuzz(data=st.data(), head=st.booleans())
def test_damaged_gguf(data: st.DataObject, head: bool, gguf_file: Path) -> None:
    whole = gguf_file.read_bytes()
    # Most of the file is weights, where no damage shows; what is parsed comes first.
    size = 4000 if head else len(whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        path.write_bytes(data.draw(damaged_bytes(whole[:size])) + whole[size:])
        weights_taken(path)


def set_number(path: Path, name: str, value: int) -> None:
    """Overwrites a 32-bit number in a GGUF file."""
    field = gguf.GGUFReader(path, "r+").fields[name]
    field.parts[field.data[0]][0] = value


@pytest.mark.parametrize("name", ["block_count", "expert_count"])
@pytest.mark.parametrize("value", [2**32 - 1, 10**6])
def test_numbers_that_no_file_has_tensors_for(
    name: str, value: int, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Names of four thousand million layers would fill the memory."""
    weight = write_checkpoint(tmp_path / "run.pt", make_model(use_moe=True), tiny_tokenizer)
    path = tmp_path / "m.gguf"
    words = ["--weight", str(weight), "--format", "gguf", "--out", str(path)]
    assert say(export, words)[0] == 0
    set_number(path, f"qwen3moe.{name}", value)
    with pytest.raises(WeightsError, match="it has no tensors for"):
        read_weights(path)


@pytest.mark.parametrize("kind", ["UINT8", "STRING", "ARRAY"])
def test_a_list_that_claims_to_go_on_for_ever(kind: str, tmp_path: Path) -> None:
    """Behind the end of the file the package finds empty values, as many as one likes."""
    path = tmp_path / "m.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    types = gguf.GGUFValueType
    path.write_bytes(head + struct.pack("<IIQ", types.ARRAY, types[kind], 1 << 62) + b"\1" * 8)
    with pytest.raises(WeightsError, match="damaged, or no GGUF file"):
        read_weights(path)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a graph as the export stores them; the graph itself is never run."""
    state = {n: t.numpy() for n, t in make_model().state_dict().items() if n != "lm_head.weight"}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in state.items()]
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)
    assert all(
        torch.equal(t, torch.from_numpy(state[n])) for n, t in read_weights(path).state.items()
    )
    return path


@fuzz(data=st.data())
def test_damaged_onnx(data: st.DataObject, onnx_file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data.draw(damaged_bytes(onnx_file.read_bytes())))
        weights_taken(path)


KINDS = st.sampled_from(sorted(onnx.TensorProto.DataType.values()))
SIZES = st.sampled_from([-1, 0, 1, 2, 2**31, 2**62])


@fuzz(kind=KINDS, dims=st.lists(SIZES, max_size=4), raw=st.binary(max_size=16))
def test_onnx_tensors_of_any_type_and_shape(kind: int, dims: list[int], raw: bytes) -> None:
    tensor = onnx.TensorProto(name="model.embed_tokens.weight", data_type=kind, raw_data=raw)
    tensor.dims.extend(dims)
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model.SerializeToString())
        weights_taken(path)


def outside(tensor: Any, folder: Path) -> str:
    return str(folder.parent / "secret.bin")


@pytest.mark.parametrize(
    "place",
    [
        outside,
        lambda tensor, folder: "../secret.bin",
        lambda tensor, folder: "link.bin",
        lambda tensor, folder: "/dev/zero",
        lambda tensor, folder: "",
    ],
)
def test_data_outside_of_the_folder_is_not_read(
    place: Callable[[Any, Path], str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\1" * 16)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    tensor = onnx.TensorProto(name="model.embed_tokens.weight", data_type=1, data_location=1)
    tensor.dims.extend([2, 2])
    tensor.external_data.add(key="location", value=place(tensor, folder))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="damaged, or no ONNX file"):
        read_weights(folder / "model.onnx")
