"""The GGUF file holds the model and its tokenizer; llama.cpp itself runs it in integration."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from minimind.cli.export import main
from minimind.errors import ConfigError, MiniMindError, WeightsError
from minimind.export.gguf import pre_tokenizer_name
from minimind.weights.pretrained import load_weights
from minimind.weights.state_dict import read_state_dict, read_weights

from .helpers import make_model, random_ids, write_checkpoint

gguf = pytest.importorskip("gguf")

ARCHITECTURES = [
    pytest.param({}, id="dense"),
    pytest.param({"tie_word_embeddings": False, "head_dim": 16}, id="untied-free-head-dim"),
    pytest.param({"use_moe": True, "num_experts_per_tok": 2}, id="moe-top2"),
    pytest.param({"head_dim": 64, "inference_rope_scaling": True}, id="yarn"),
]


def export(tmp_path, tokenizer, model, *words):
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tokenizer)
    out = tmp_path / "m.gguf"
    words = ["--weight", checkpoint, "--format", "gguf", "--out", out, *words]
    assert main([str(word) for word in words]) == 0
    return out


def fields(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_back_to_the_same_model(architecture, tiny_tokenizer, tmp_path):
    model = make_model(**architecture)
    out = export(tmp_path, tiny_tokenizer, model, "--dtype", "float32")
    state, expected = read_state_dict(out), model.state_dict()
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    loaded, _ = load_weights(out, tokenizer_path=str(tiny_tokenizer))
    for name in ("rope_parameters", "rms_norm_eps", "use_moe"):
        assert getattr(loaded.config, name) == getattr(model.config, name), name
    ids = random_ids()
    far = {"position_ids": torch.arange(3000, 3040)[None]}
    assert torch.equal(
        loaded(input_ids=ids, **far).logits,
        model(input_ids=ids, **far).logits,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_it_was_rounded(dtype, tiny_tokenizer, tmp_path, capsys):
    model = make_model(use_moe=True)
    out = export(tmp_path, tiny_tokenizer, model, "--dtype", dtype, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["dtype"] == dtype
    assert 0 < report["largest_weight_difference"] < 0.01
    state = read_state_dict(out)
    wanted = getattr(torch, dtype)
    for name, tensor in state.items():
        # Norms and routers stay in float32.
        wide = "norm" in name or "mlp.gate." in name
        assert tensor.dtype is (torch.float32 if wide else wanted), name
        assert torch.equal(tensor, model.state_dict()[name].to(tensor.dtype)), name


def test_eight_bits(tiny_tokenizer, tmp_path):
    model = make_model(intermediate_size=64)
    out = export(tmp_path, tiny_tokenizer, model, "--dtype", "q8_0")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    assert stored["blk.1.ffn_down.weight"].tensor_type.name == "Q8_0"
    assert stored["blk.1.ffn_norm.weight"].tensor_type.name == "F32"
    values = gguf.quants.dequantize(
        stored["token_embd.weight"].data, gguf.GGMLQuantizationType.Q8_0
    )
    ours = model.model.embed_tokens.weight.detach().numpy()
    # A block of 32 has steps of 1/127 of its largest, and rounding errs by half of one.
    assert np.abs(values - ours).max() <= np.abs(ours).max() / 127 * 0.51
    with pytest.raises(WeightsError, match="quantised"):
        read_state_dict(out)


def test_what_llama_cpp_needs_to_know(tiny_tokenizer, tmp_path):
    model = make_model(use_moe=True, num_experts_per_tok=2, vocab_size=390)
    values = fields(export(tmp_path, tiny_tokenizer, model))
    assert values["general.architecture"] == "qwen3moe"
    assert {
        name.removeprefix("qwen3moe."): value
        for name, value in values.items()
        if name.startswith("qwen3moe.") and isinstance(value, int)
    } == {
        "vocab_size": 390,
        "context_length": 512,
        "embedding_length": 32,
        "block_count": 2,
        "feed_forward_length": 24,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 24,
    }
    assert values["qwen3moe.rope.freq_base"] == 1e6


def test_the_tokenizer_goes_along(tiny_tokenizer, tmp_path):
    values = fields(export(tmp_path, tiny_tokenizer, make_model(vocab_size=390)))
    stored = json.loads((tiny_tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    prefix = "tokenizer.ggml."
    assert values[f"{prefix}model"] == "gpt2"
    assert values[f"{prefix}pre"] == "gpt-2"
    tokens = values[f"{prefix}tokens"]
    assert {token: i for i, token in enumerate(tokens[:384])} == stored["model"]["vocab"]
    assert values[f"{prefix}merges"] == [" ".join(pair) for pair in stored["model"]["merges"]]
    # Control, normal, and rows of the embedding that no token has.
    kinds = values[f"{prefix}token_type"]
    assert kinds == [3] * 3 + [1] * 381 + [5] * 6
    assert [values[f"{prefix}{name}_token_id"] for name in ("padding", "bos", "eos")] == [0, 1, 2]
    # As in pretraining, where every document begins with bos and ends with eos.
    assert values[f"{prefix}add_bos_token"] is True
    assert values[f"{prefix}add_eos_token"] is False


def test_the_chat_template_goes_along(tmp_path):
    from minimind.data.tokenizer import tokenizer_folder

    shipped = tokenizer_folder("")
    values = fields(export(tmp_path, shipped, make_model(vocab_size=6400)))
    template = (shipped / "chat_template.jinja").read_text(encoding="utf-8")
    assert values["tokenizer.chat_template"] == template


def byte_level(**settings):
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True, **settings}


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        {"type": "Whitespace"},
        byte_level(add_prefix_space=True),
        byte_level(use_regex=False),
        {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"\d"}},
                byte_level(use_regex=False),
            ],
        },
    ],
)
def test_a_pre_tokenizer_that_llama_cpp_may_not_know_is_refused(pre_tokenizer):
    with pytest.raises(ConfigError, match=r"llama\.cpp may not know"):
        pre_tokenizer_name({"model": {"type": "BPE"}, "pre_tokenizer": pre_tokenizer})


def test_a_tokenizer_without_bpe_is_refused():
    with pytest.raises(ConfigError, match="BPE"):
        pre_tokenizer_name({"model": {"type": "Unigram"}, "pre_tokenizer": byte_level()})


@pytest.mark.parametrize(
    ("model", "words", "complaint"),
    [
        ({"hidden_act": "gelu"}, [], "silu"),
        ({"use_moe": True, "norm_topk_prob": False}, [], "sum to 1"),
        ({}, ["--dtype", "q8_0"], "32"),
        ({}, ["--out", "folder"], r"NAME\.gguf"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(model, words, complaint, tiny_tokenizer, tmp_path):
    # The activation is in no checkpoint's tensors: the folder's config tells.
    if "hidden_act" in model or "norm_topk_prob" in model:
        from minimind.export.gguf import check_gguf

        with pytest.raises(ConfigError, match=complaint):
            check_gguf(make_model(**model).config, "float32")
        return
    with pytest.raises(ConfigError, match=complaint):
        export(tmp_path, tiny_tokenizer, make_model(**model), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_wrong_file_is_refused_and_leaves_nothing(tiny_tokenizer, tmp_path, monkeypatch):
    import minimind.export.gguf as module

    layout = module.gguf_layout

    def swapped(*arguments):
        names = layout(*arguments)
        key, query = "blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"
        return {**names, key: names[query], query: names[key]}

    write = module.write_gguf

    def write_wrongly(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(module, "gguf_layout", swapped)
            write(*arguments)

    monkeypatch.setattr(module, "write_gguf", write_wrongly)
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_norm.weight.fill_(3.0)
    with pytest.raises(MiniMindError, match="q_norm"):
        export(tmp_path, tiny_tokenizer, model, "--dtype", "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_files_that_are_no_model_of_ours(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"no such magic")
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(tmp_path / "a.gguf")
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path / "absent.gguf")
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match="architecture llama"):
        read_weights(tmp_path / "b.gguf")


def test_the_missing_package_is_named(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"gguf.*pip install 'minimind-cluster\[export\]'"):
        export(tmp_path, tiny_tokenizer, make_model())
