"""The ONNX graph is the model, in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from minimind.cli.export import main
from minimind.cli.inspect import inspect
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError, MiniMindError, WeightsError
from minimind.export.onnx import OnnxModel, causal_mask
from minimind.export.quantised import FILES
from minimind.training.evaluate import score
from minimind.weights.onnx_layout import GRAPH
from minimind.weights.origin import Origin
from minimind.weights.pretrained import load_weights
from minimind.weights.state_dict import read_state_dict, read_weights
from tests.corpus import write_corpus

from .helpers import make_model, random_ids, write_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def exported(model, tiny_tokenizer, tmp_path_factory):
    """A dense model with a cache and all variants, and what the command said of it."""
    folder = tmp_path_factory.mktemp("onnx")
    checkpoint = write_checkpoint(folder / "run.pt", model, tiny_tokenizer)
    write_corpus(folder / "held_out.jsonl", count=8, seed=3)
    words = ["--weight", checkpoint, "--format", "onnx", "--out", folder / "out", "--json"]
    words += ["--variants", *FILES, "--eval_data_path", folder / "held_out.jsonl"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([str(word) for word in words]) == 0
    return folder / "out", json.loads(printed.getvalue())


def test_the_command_reports_the_difference(exported):
    folder, report = exported
    assert 0 < report["largest_logit_difference"] <= 1e-4
    assert report["kv_cache"] is True
    assert report["files"][GRAPH] == (folder / GRAPH).stat().st_size
    # The exporter would write its stack traces along, and with them this machine's paths.
    assert b"site-packages" not in (folder / GRAPH).read_bytes()
    onnx.checker.check_model(str(folder / GRAPH), full_check=True)


def test_inspect_knows_the_graph_and_what_is_wrong_with_it(exported, tmp_path):
    folder = tmp_path / "onnx"
    shutil.copytree(exported[0], folder)
    graph = folder / GRAPH
    found = inspect(graph)
    assert (found.kind, found.problems) == ("ONNX graph", [])
    assert found.facts["inputs"].startswith("input_ids [batch_size, sequence_length], attention_")
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
    graph = onnx.load(str(exported[0] / GRAPH), load_external_data=False).graph

    def shapes(values):
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    inputs, outputs = shapes(graph.input), shapes(graph.output)
    assert list(inputs)[:3] == ["input_ids", "attention_mask", "position_ids"]
    rows, length, past = "batch_size", "sequence_length", "past_sequence_length"
    assert inputs["input_ids"] == inputs["position_ids"] == [rows, length]
    assert inputs["attention_mask"] == [rows, f"{past} + {length}"]
    assert inputs["past_key_values.1.value"] == [rows, 2, past, 8]
    assert outputs["logits"] == [rows, length, 384]
    assert outputs["present.1.value"] == [rows, 2, f"{past} + {length}", 8]
    # TensorRT takes no sequences, MNN no IsNaN.
    assert not {n.op_type for n in graph.node} & {"SequenceConstruct", "SequenceAt", "IsNaN"}


def test_each_variant_is_scored_on_the_held_out_text(exported):
    """The graph as the model itself; the others near it, each as small as it says."""
    folder, report = exported
    losses = report["held_out_losses"]
    assert list(losses) == ["model.onnx", *FILES.values()]
    text = str(folder.parent / "held_out.jsonl")
    ours = score(folder, torch.device("cpu"), data_path=[text], max_seq_len=512)
    assert losses["model.onnx"] == pytest.approx(ours["loss"], rel=1e-5)
    assert losses["model_fp16.onnx"] == pytest.approx(ours["loss"], rel=1e-2)
    for name in FILES.values():
        assert losses[name] == pytest.approx(ours["loss"], rel=0.2)
        assert losses[name] != losses["model.onnx"]
        with pytest.raises(WeightsError, match="is quantised"):
            read_state_dict(folder / "onnx" / name)
        graph = onnx.load(str(folder / "onnx" / name)).graph
        wide = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        matrices = {t.name for t in wide if len(t.dims) == 2 and not t.name.endswith("_scales")}
        assert matrices == (set() if "fp16" in name else {"model.embed_tokens.weight"})
    card = ModelCard.load(folder / "README.md")
    figures = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert figures["nats per token, model_q4.onnx"] == round(losses["model_q4.onnx"], 4)
    assert card.data.to_dict()["library_name"] == "transformers.js"


def test_the_folder_is_what_optimum_writes(exported):
    """And what onnxruntime-genai asks for."""
    folder, _ = exported
    described = json.loads((folder / "genai_config.json").read_text())["model"]
    assert (folder / described["decoder"]["filename"]).is_file()
    names = described["decoder"]["inputs"] | described["decoder"]["outputs"]
    session = OnnxModel(folder / GRAPH).session
    known = {value.name for value in [*session.get_inputs(), *session.get_outputs()]}
    assert {name.replace("%d", "1") for name in names.values()} <= known
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["padding_side"] == "left"
    assert settings["model_max_length"] == described["context_length"] == 512


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "parts"), [(1, [1, 1, 1]), (3, [7, 2, 9]), (2, [30])])
def test_any_batch_and_length_in_any_parts(model, exported, rows, parts):
    graph = OnnxModel(exported[0] / GRAPH)
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
    graph = OnnxModel(exported[0] / GRAPH)
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
    for path in (folder, folder / GRAPH):
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
    assert read_weights(folder / GRAPH).origin == expected


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
        (["hf", "--variants", "q4"], "--variants"),
        (["tensorrt", "--max_length", "1"], "--max_length"),
        (["tensorrt", "--max_batch_size", "0"], "--max_batch_size"),
    ],
)
def test_flags_that_do_not_go_together(words, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        main(["--weight", "absent.pth", "--out", str(tmp_path / "out"), "--format", *words])


def test_a_graph_beside_its_configuration_is_still_read(model, exported, tmp_path):
    """As exports before the layout of Optimum had it."""
    shutil.copytree(exported[0], tmp_path / "old")
    shutil.move(tmp_path / "old" / GRAPH, tmp_path / "old" / "model.onnx")
    shutil.rmtree(tmp_path / "old" / "onnx")
    for path in (tmp_path / "old", tmp_path / "old" / "model.onnx"):
        loaded, tokenizer = load_weights(path)
        assert len(tokenizer) == 384
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


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
