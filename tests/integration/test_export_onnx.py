"""What the unit tests of ONNX leave out, since each graph takes seconds to trace."""

from __future__ import annotations

import json

import pytest
import torch

from minimind.cli.export import main
from minimind.export.onnx import OnnxModel
from minimind.weights.onnx_layout import GRAPH
from minimind.weights.state_dict import read_state_dict
from tests.unit.export.helpers import make_model, random_ids, write_checkpoint

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@torch.inference_mode()
def test_a_mixture_of_experts_writes_the_same_tokens(tiny_tokenizer, tmp_path):
    model = make_model(use_moe=True, num_experts_per_tok=2, num_hidden_layers=1)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "onnx"
    assert main(["--weight", str(checkpoint), "--format", "onnx", "--out", str(out)]) == 0

    ids = random_ids(2, 12)
    expected = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=[])
    graph, text, new, past = OnnxModel(out / GRAPH), ids, ids, None
    for _ in range(20):
        logits, past = graph(new, torch.ones_like(text), past)
        new = logits[:, -1].argmax(-1, keepdim=True)
        text = torch.cat((text, new), dim=1)
    assert torch.equal(text, expected)

    state, trained = read_state_dict(out), model.state_dict()
    del trained["lm_head.weight"]
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[name], trained[name]) for name in trained)


@torch.inference_mode()
def test_a_graph_without_a_cache_scores_any_batch(tiny_tokenizer, tmp_path, monkeypatch):
    """And one whose weights are too large for its own file has them beside it."""
    monkeypatch.setattr("minimind.export.onnx.LARGEST_FILE", 1000)
    model = make_model(tie_word_embeddings=False, num_hidden_layers=1)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "onnx"
    words = ["--weight", str(checkpoint), "--format", "onnx", "--out", str(out)]
    assert main([*words, "--no_kv_cache"]) == 0
    graph = OnnxModel(out / GRAPH)
    assert (out / f"{GRAPH}_data").stat().st_size > (out / GRAPH).stat().st_size
    described = json.loads((out / "config.json").read_text())
    assert described["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    assert torch.equal(read_state_dict(out)["lm_head.weight"], model.lm_head.weight)
    assert [i.name for i in graph.session.get_inputs()] == [
        "input_ids",
        "attention_mask",
        "position_ids",
    ]
    for rows, length in ((1, 1), (3, 50)):
        ids = random_ids(rows, length)
        logits, past = graph(ids, torch.ones_like(ids))
        assert past == []
        torch.testing.assert_close(logits, model(input_ids=ids).logits, rtol=0, atol=1e-4)
