"""What ``minimind export`` writes is the model that went in, for programs without our code."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    Qwen3ForCausalLM,
    Qwen3MoeForCausalLM,
)

from minimind.cli.export import main
from minimind.data.tokenizer import tokenizer_fingerprint
from minimind.errors import ConfigError, MiniMindError, WeightsError
from minimind.weights.pretrained import load_weights, open_pretrained
from minimind.weights.state_dict import read_state_dict

from .helpers import make_model, random_ids, write_checkpoint, write_weight

ARCHITECTURES = [
    pytest.param({}, id="dense"),
    pytest.param({"tie_word_embeddings": False}, id="untied"),
    pytest.param({"head_dim": 16}, id="free-head-dim"),
    pytest.param({"use_moe": True}, id="moe-top1"),
    pytest.param({"use_moe": True, "num_experts_per_tok": 2}, id="moe-top2"),
]


def export(*words):
    return main([str(word) for word in words])


@torch.inference_mode()
def logits(model, ids, **inputs):
    return model(input_ids=ids, **inputs).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_becomes_a_vanilla_qwen3_folder(architecture, tiny_tokenizer, tmp_path):
    model = make_model(**architecture)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "hf"
    assert export("--weight", checkpoint, "--format", "hf", "--out", out) == 0
    assert not list(out.glob("*.py"))

    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    expected = Qwen3MoeForCausalLM if model.config.use_moe else Qwen3ForCausalLM
    assert type(loaded) is expected
    ids = random_ids()
    ours = logits(model, ids)
    assert ours.abs().max() > 1
    torch.testing.assert_close(logits(loaded, ids), ours, rtol=0, atol=1e-5)

    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    torch.testing.assert_close(
        logits(loaded, ids, attention_mask=mask)[:, 9:],
        logits(model, ids, attention_mask=mask)[:, 9:],
        rtol=0,
        atol=1e-5,
    )
    same = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": []}
    assert torch.equal(loaded.generate(ids, **same), model.generate(ids, **same))


def test_the_folder_has_tokenizer_special_ids_and_card(tiny_tokenizer, tmp_path):
    weight = write_weight(tmp_path / "run", make_model(), tiny_tokenizer)
    out = tmp_path / "hf"
    export("--weight", weight, "--format", "hf", "--out", out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer_fingerprint(str(out)) == tokenizer_fingerprint(str(tiny_tokenizer))
    assert tokenizer("好的 checkpoint")["input_ids"]
    settings = json.loads((out / "config.json").read_text())
    generation = GenerationConfig.from_pretrained(out)
    for name, token in (("bos", 1), ("eos", 2), ("pad", 0)):
        assert getattr(tokenizer, f"{name}_token_id") == token
        assert settings[f"{name}_token_id"] == token
        assert getattr(generation, f"{name}_token_id") == token
    # transformers 4 would take Qwen3's default of 10,000 without it.
    assert settings["rope_theta"] == 1e6
    loader = json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert loader == "PreTrainedTokenizerFast"
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    assert "Qwen3" in card
    assert "trust_remote_code" not in card


def test_the_model_ends_its_text_at_the_tokenizer_s_end(tiny_tokenizer, tmp_path):
    """Upstream's converter leaves eos out, and generation runs on."""
    model = make_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[2] = 1.0
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.fill_(1.0)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    export("--weight", checkpoint, "--format", "hf", "--out", tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    output = loaded.generate(torch.tensor([[1, 50]]), max_new_tokens=9, do_sample=False)
    assert output.tolist() == [[1, 50, 2]]


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_yarn_is_written(moe, tiny_tokenizer, tmp_path):
    model = make_model(head_dim=64, use_moe=moe)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "hf"
    export("--weight", checkpoint, "--format", "hf", "--out", out, "--yarn")
    settings = json.loads((out / "config.json").read_text())
    assert settings["rope_parameters"]["rope_type"] == "yarn"
    assert settings["rope_scaling"]["factor"] == 16.0
    assert "theta" not in settings["rope_scaling"]
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    model.config.inference_rope_scaling = True
    scaled = make_model(head_dim=64, use_moe=moe, inference_rope_scaling=True)
    far = {"position_ids": torch.arange(3000, 3040)[None]}
    ids = random_ids(1)
    torch.testing.assert_close(
        logits(loaded, ids, **far), logits(scaled, ids, **far), rtol=0, atol=1e-5
    )
    # And a later export of that folder keeps it.
    assert open_pretrained(out).config.inference_rope_scaling


def test_yarn_of_a_checkpoint_is_kept(tiny_tokenizer, tmp_path):
    model = make_model(head_dim=64, inference_rope_scaling=True)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    export("--weight", checkpoint, "--format", "hf", "--out", tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert loaded.config.rope_parameters["rope_type"] == "yarn"


def test_experts_a_token_come_from_the_run(tiny_tokenizer, tmp_path):
    """A .pth does not tell; the config.toml beside it does."""
    model = make_model(use_moe=True, num_experts_per_tok=2)
    weight = write_weight(tmp_path / "run", model, tiny_tokenizer)
    export("--weight", weight, "--format", "hf", "--out", tmp_path / "hf")
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert settings["num_experts_per_tok"] == 2
    assert settings["num_experts"] == settings["num_local_experts"] == 4


def test_shards_hold_the_same_weights(tiny_tokenizer, tmp_path):
    model = make_model()
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "hf"
    words = ["--weight", checkpoint, "--format", "hf", "--out", out, "--max-shard-size", "20KB"]
    export(*words)
    assert len(list(out.glob("model-*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert torch.equal(logits(loaded, random_ids()), logits(model, random_ids()))


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_hf_minimind_carries_its_code(moe, tiny_tokenizer, tmp_path):
    model = make_model(use_moe=moe)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "hf"
    export("--weight", checkpoint, "--format", "hf-minimind", "--out", out)
    assert {path.name for path in out.glob("*.py")} == {
        "architecture.py",
        "configuration_minimind.py",
        "layers.py",
        "modeling_minimind.py",
    }
    assert "auto_map" in json.loads((out / "config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(
        out, trust_remote_code=True, dtype=torch.float32
    ).eval()
    torch.testing.assert_close(
        logits(loaded, random_ids()), logits(model, random_ids()), rtol=0, atol=1e-5
    )
    assert loaded.config.eos_token_id == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("form", ["hf", "hf-minimind", "pth"])
def test_every_form_leads_back_to_the_same_weights(architecture, form, tiny_tokenizer, tmp_path):
    """``--from_weight`` reads what was exported: the same tensors, bit for bit."""
    model = make_model(**architecture)
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / ("back_32.pth" if form == "pth" else "folder")
    words = ["--weight", checkpoint, "--format", form, "--out", out, "--dtype", "float32"]
    export(*words, "--no_check")
    state = read_state_dict(out)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and name not in state:
            assert model.config.tie_word_embeddings
            continue
        assert torch.equal(state[name], tensor), name
    words = [] if form != "pth" else [str(tiny_tokenizer)]
    loaded, _ = load_weights(
        out, "cpu", *words, num_experts_per_tok=model.config.num_experts_per_tok
    )
    assert torch.equal(logits(loaded, random_ids()), logits(model, random_ids()))


def test_pth_is_half_precision_with_both_tied_names(tiny_tokenizer, tmp_path):
    model = make_model()
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tiny_tokenizer)
    out = tmp_path / "w" / "pretrain_32.pth"
    export("--weight", checkpoint, "--format", "pth", "--out", out)
    state = torch.load(out, weights_only=True)
    assert set(state) == set(model.state_dict())
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    head, embedding = state["lm_head.weight"], state["model.embed_tokens.weight"]
    assert head.data_ptr() == embedding.data_ptr()
    assert torch.equal(embedding, model.model.embed_tokens.weight.half())


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", "float16"), ("bfloat16", "bfloat16"), ("float32", "float32")]
)
def test_the_precision_is_chosen(dtype, expected, tiny_tokenizer, tmp_path, capsys):
    weight = write_weight(tmp_path / "run", make_model(), tiny_tokenizer)
    out = tmp_path / "hf"
    export("--weight", weight, "--format", "hf", "--out", out, "--dtype", dtype, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["dtype"] == expected
    assert report["largest_logit_difference"] <= 1e-5
    assert report["files"]["model.safetensors"] == (out / "model.safetensors").stat().st_size
    stored = {str(tensor.dtype) for tensor in read_state_dict(out).values()}
    assert stored == {f"torch.{expected}"}
    assert json.loads((out / "config.json").read_text())["dtype"] == expected


def test_a_wrong_export_is_refused_and_leaves_nothing(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("minimind.export.hf.largest_logit_difference", lambda *_: 0.5)
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    with pytest.raises(MiniMindError, match="differs"):
        export("--weight", checkpoint, "--format", "hf", "--out", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_an_existing_folder_is_not_overwritten_by_chance(tiny_tokenizer, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    words = ["--weight", checkpoint, "--format", "hf", "--out", tmp_path / "hf", "--no_check"]
    export(*words)
    with pytest.raises(ConfigError, match="--force"):
        export(*words)
    (tmp_path / "hf" / "leftover").touch()
    export(*words, "--force")
    assert not (tmp_path / "hf" / "leftover").exists()
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="other things"):
        export("--weight", checkpoint, "--format", "hf", "--out", other, "--force")
    assert (other / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--format", "hf", "--out", "x", "--max_shard_size", "lots"], "--max_shard_size"),
        (["--format", "pth", "--out", "folder"], r"NAME\.pth"),
        (["--format", "tarot", "--out", "x"], "tarot"),
        (["--format", "hf"], "--out"),
    ],
)
def test_mistakes_are_named(words, complaint, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weight = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    with pytest.raises(ConfigError, match=complaint):
        export("--weight", weight, *words)


def test_a_tokenizer_that_moved_is_named(tiny_tokenizer, tmp_path):
    weight = write_weight(tmp_path / "run", make_model(), tmp_path / "gone")
    with pytest.raises(WeightsError, match="--tokenizer_path"):
        export("--weight", weight, "--format", "hf", "--out", tmp_path / "hf")
