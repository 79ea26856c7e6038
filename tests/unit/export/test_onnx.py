"""The ONNX graph is the model, in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from minimind.cli.export import main
from minimind.cli.inspect import inspect
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError, MiniMindError, WeightsError
from minimind.export.onnx import OnnxModel, causal_mask
from minimind.weights.origin import Origin
from minimind.weights.pretrained import load_weights
from minimind.weights.state_dict import read_state_dict, read_weights

from .helpers import make_model, random_ids, write_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def exported(model, tiny_tokenizer, tmp_path_factory):
    """A dense model with a cache, and what the command said of it."""
    folder = tmp_path_factory.mktemp("onnx")
    checkpoint = write_checkpoint(folder / "run.pt", model, tiny_tokenizer)
    words = ["--weight", checkpoint, "--format", "onnx", "--out", folder / "out", "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([str(word) for word in words]) == 0
    return folder / "out", json.loads(printed.getvalue())


def test_the_command_reports_the_difference(exported):
    folder, report = exported
    assert 0 < report["largest_logit_difference"] <= 1e-4
    assert report["kv_cache"] is True
    assert report["files"]["model.onnx"] == (folder / "model.onnx").stat().st_size
    # The exporter would write its stack traces along, and with them this machine's paths.
    assert b"site-packages" not in (folder / "model.onnx").read_bytes()
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


def test_inspect_knows_the_graph_and_what_is_wrong_with_it(exported, tmp_path):
    folder = tmp_path / "onnx"
    shutil.copytree(exported[0], folder)
    graph = folder / "model.onnx"
    found = inspect(graph)
    assert (found.kind, found.problems) == ("ONNX graph", [])
    assert found.facts["inputs"].startswith("input_ids [batch, length], attention_mask")
    assert found.facts["cache"] == "keys and values of 2 layers"
    assert "2 layers of 32" in found.facts["shape"]
    assert found.checked[-1] == "the graph, by onnx's checker"
    assert len(found.lines()) <= 10
    whole = inspect(folder)
    assert (whole.kind, whole.problems) == ("ONNX model folder", [])
    assert whole.facts["tokenizer"].startswith("384 entries")

    changed = onnx.load(str(graph))
    changed.graph.node[3].op_type = "NoSuchOperator"
    onnx.save(changed, str(graph))
    assert any("graph invalid" in problem for problem in inspect(graph).problems)
    graph.write_bytes(graph.read_bytes()[:1000])
    assert any("damaged" in problem for problem in inspect(graph).problems)


def test_inputs_and_outputs_are_named_as_runtimes_expect(exported):
    graph = onnx.load(str(exported[0] / "model.onnx"), load_external_data=False).graph

    def shapes(values):
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    inputs, outputs = shapes(graph.input), shapes(graph.output)
    assert list(inputs)[:3] == ["input_ids", "attention_mask", "position_ids"]
    assert inputs["input_ids"] == inputs["position_ids"] == ["batch", "length"]
    assert inputs["attention_mask"] == ["batch", "total"]
    assert inputs["past_key_values.1.value"] == ["batch", 2, "past", 8]
    assert outputs["logits"] == ["batch", "length", 384]
    assert outputs["present.1.value"] == ["batch", 2, "total", 8]
    # TensorRT takes no sequences.
    assert not [node.op_type for node in graph.node if "Sequence" in node.op_type]


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "parts"), [(1, [1, 1, 1]), (3, [7, 2, 9]), (2, [30])])
def test_any_batch_and_length_in_any_parts(model, exported, rows, parts):
    graph = OnnxModel(exported[0] / "model.onnx")
    ids = random_ids(rows, sum(parts))
    ours = model(input_ids=ids).logits
    assert ours.abs().max() > 1
    past, seen, theirs = None, 0, []
    for part in parts:
        logits, past = graph(
            ids[:, seen : seen + part], torch.ones((rows, seen + part), dtype=torch.int64), past
        )
        theirs.append(logits)
        seen += part
    torch.testing.assert_close(torch.cat(theirs, dim=1), ours, rtol=0, atol=1e-4)


def test_greedy_generation_is_equal_token_by_token(model, exported):
    """A batch whose second row is padded on the left, 24 tokens, with the cache."""
    graph = OnnxModel(exported[0] / "model.onnx")
    ids = random_ids(2, 10)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    expected = model.generate(
        ids, attention_mask=mask, max_new_tokens=24, do_sample=False, eos_token_id=[]
    )
    text, new, past = ids, ids, None
    for _ in range(24):
        logits, past = graph(new, mask, past)
        new = logits[:, -1].argmax(-1, keepdim=True)
        text = torch.cat((text, new), dim=1)
        mask = torch.cat((mask, torch.ones_like(new)), dim=1)
    assert len(set(text[0, 10:].tolist())) > 3
    assert torch.equal(text, expected)


def test_the_model_card_s_program_writes_what_the_model_writes(model, exported, capsys):
    folder, _ = exported
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    exec(program.replace("FOLDER", str(folder)), {})  # noqa: S102 (it is what is under test)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = tokenizer(tokenizer.bos_token + "The", add_special_tokens=False, return_tensors="pt")
    output = model.generate(**start, max_new_tokens=40, do_sample=False, eos_token_id=[])
    assert capsys.readouterr().out == tokenizer.decode(output[0]) + "\n"


def test_back_to_the_same_weights(model, exported):
    """From the folder and from the file, bit for bit, with tokenizer and settings."""
    folder, _ = exported
    for path in (folder, folder / "model.onnx"):
        state = read_state_dict(path)
        expected = model.state_dict()
        del expected["lm_head.weight"]
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        loaded, tokenizer = load_weights(path)
        assert len(tokenizer) == 384
        with torch.inference_mode():
            ids = random_ids()
            assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_graph_says_itself_which_tokenizer_it_belongs_to(exported, tiny_tokenizer):
    """Copied away from its folder it is still known."""
    folder, _ = exported
    expected = Origin.of_tokenizer(load_tokenizer(str(tiny_tokenizer)))
    assert read_weights(folder / "model.onnx").origin == expected


def test_padding_sees_itself_and_real_tokens_see_no_padding():
    mask = causal_mask(torch.tensor([[0, 0, 1, 1]]), length=3)
    assert mask[0, 0].int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_a_graph_that_differs_is_refused(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("minimind.export.onnx.write_onnx", lambda *_: None)
    monkeypatch.setattr("minimind.export.onnx.largest_onnx_difference", lambda *_: float("nan"))
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    with pytest.raises(MiniMindError, match="differs from the model by nan"):
        main(["--weight", str(checkpoint), "--format", "onnx", "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    with pytest.raises(ConfigError, match=rf"{package}.*pip install 'minimind-cluster\[export\]'"):
        main(["--weight", str(checkpoint), "--format", "onnx", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["onnx", "--dtype", "float16"], "float32"),
        (["onnx", "--dtype", "q8_0"], "gguf"),
        (["hf", "--no_kv_cache"], "--no_kv_cache"),
        (["tensorrt", "--max_length", "1"], "--max_length"),
        (["tensorrt", "--max_batch_size", "0"], "--max_batch_size"),
    ],
)
def test_flags_that_do_not_go_together(words, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        main(["--weight", "absent.pth", "--out", str(tmp_path / "out"), "--format", *words])


def test_no_weights_in_an_onnx_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not protobuf")
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.onnx")
    empty = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(empty), str(tmp_path / "model.onnx"))
    with pytest.raises(WeightsError, match="no weights"):
        read_state_dict(tmp_path / "model.onnx")
