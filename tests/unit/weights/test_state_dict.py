import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minimind.config import TrainConfig
from minimind.errors import WeightsError
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.training.build_model import init_model
from minimind.weights.state_dict import (
    infer_config,
    load_state_into,
    read_folder_settings,
    read_state_dict,
    read_weights,
)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        **changes,
    }
    return MiniMindForCausalLM(MiniMindConfig(**settings)).eval()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=torch.arange(20)[None] % 97).logits


SHAPES = [
    {},
    {"use_moe": True, "num_experts": 3},
    {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 16},
    {"tie_word_embeddings": False},
]


@pytest.mark.parametrize("shape", SHAPES, ids=["dense", "moe", "wide heads", "untied"])
def test_the_shape_comes_from_the_tensors(shape, tmp_path):
    model = make_model(**shape)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    state = read_state_dict(tmp_path / "w.pth")
    config = infer_config(state)
    for name in (
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
        "head_dim intermediate_size use_moe tie_word_embeddings"
    ).split():
        assert getattr(config, name) == getattr(model.config, name), name
    if model.config.use_moe:
        assert (config.num_experts, config.moe_intermediate_size) == (3, 48)
    copy = MiniMindForCausalLM(config).eval()
    load_state_into(copy, state, "w.pth")
    assert torch.equal(logits(copy), logits(model))


def test_experts_per_token_are_given():
    state = make_model(use_moe=True).state_dict()
    assert infer_config(state).num_experts_per_tok == 1
    assert infer_config(state, num_experts_per_tok=2).num_experts_per_tok == 2
    with pytest.raises(WeightsError, match="must not exceed"):
        infer_config(state, num_experts_per_tok=9)


def test_half_precision_loads_into_single(tmp_path):
    state = {name: tensor.half() for name, tensor in make_model().state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    model = make_model(seed=1)
    load_state_into(model, read_state_dict(tmp_path / "w.pth"), "w.pth")
    assert model.lm_head.weight.dtype == torch.float32
    assert torch.equal(model.model.norm.weight, state["model.norm.weight"].float())
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_checkpoint_gives_its_model(tmp_path):
    state = make_model().state_dict()
    torch.save({"model": state, "optimizer": {}, "epoch": 1, "step": 3}, tmp_path / "w.pt")
    assert read_state_dict(tmp_path / "w.pt").keys() == state.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_leave_no_trace_in_names(tmp_path, prefix):
    state = make_model().state_dict()
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


@pytest.mark.parametrize("shard", ["5GB", "8KB"], ids=["one file", "sharded"])
@pytest.mark.parametrize("moe", [False, True], ids=["qwen3", "qwen3 moe"])
def test_a_hugging_face_folder(tmp_path, shard, moe):
    import transformers

    kind = "Qwen3Moe" if moe else "Qwen3"
    extra = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        **(extra | {"norm_topk_prob": True} if moe else {}),
    )
    torch.manual_seed(0)
    qwen = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    qwen.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "8KB")

    state = read_state_dict(tmp_path)
    settings = read_folder_settings(tmp_path)
    model = MiniMindForCausalLM(infer_config(state, **settings)).eval()
    load_state_into(model, state, tmp_path)
    assert model.config.rope_theta == 5e5
    assert model.config.rms_norm_eps == 1e-5
    assert torch.allclose(logits(model), logits(qwen), atol=1e-5)


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.mark.parametrize("form", ["torch.save", "bare pickle"])
def test_code_is_refused_and_named(tmp_path, form):
    file, proof = tmp_path / "w.pth", tmp_path / "it-ran"
    state = {**make_model().state_dict(), "extra": Malicious(f"touch {proof}")}
    if form == "torch.save":
        torch.save(state, file)
    else:
        file.write_bytes(pickle.dumps(Malicious(f"touch {proof}"), protocol=2))
    with pytest.raises(
        WeightsError, match=r"^refused: .*w\.pth carries code: .*\.system"
    ) as caught:
        read_state_dict(file)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not proof.exists()


def truncated(data):
    return data[: len(data) // 2]


def headless(data):
    return b"\0" * 100 + data[100:]


@pytest.mark.parametrize("damage", [lambda d: b"", truncated, headless, lambda d: b"not weights"])
def test_a_damaged_file_is_one_clear_line(tmp_path, damage):
    file = tmp_path / "w.pth"
    torch.save(make_model().state_dict(), file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(WeightsError, match=r"w\.pth is damaged(, or no|: record)") as caught:
        read_state_dict(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1, "b": torch.zeros(1)}, {}, torch.zeros(3)], ids=str
)
def test_a_foreign_file_holds_no_weights(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no weights"):
        read_state_dict(tmp_path / "w.pth")


def test_a_missing_path(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors"):
        read_state_dict(tmp_path)
    with pytest.raises(WeightsError, match=r"no config\.json"):
        read_folder_settings(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 50)
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ["x"]}')
    with pytest.raises(WeightsError, match=r"index\.json is damaged"):
        read_state_dict(tmp_path)
    index = '{"weight_map": {"x": "../outside.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path.parent / "outside.safetensors").write_bytes(b"\xff")
    with pytest.raises(WeightsError, match=r"lacks outside\.safetensors"):
        read_state_dict(tmp_path)


def test_weights_of_another_architecture():
    with pytest.raises(WeightsError, match=r"no model\.embed_tokens\.weight"):
        infer_config(nn.Linear(2, 2).state_dict())


def old_names(moe: bool) -> list[str]:
    """What upstream's code of 2024 and early 2025 saved of a layer, read off its own files."""
    attention = [f"layers.0.attention.{w}.weight" for w in ("wq", "wk", "wv", "wo")]
    experts = [f"experts.{i}" for i in range(4)] + ["shared_experts"] if moe else [""]
    mlps = [f"layers.0.feed_forward.{e}.{w}.weight" for e in experts for w in ("w1", "w2", "w3")]
    gate = ["layers.0.feed_forward.gate.weight"] if moe else []
    norms = ["layers.0.attention_norm.weight", "layers.0.ffn_norm.weight", "norm.weight"]
    names = ["tok_embeddings.weight", *attention, *mlps, *gate, *norms, "output.weight"]
    return [name.replace("..", ".") for name in names]


@pytest.mark.parametrize("moe", [False, True])
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
def test_weights_of_upstreams_first_generation_are_named(tmp_path, moe, wrapper):
    state = {wrapper + name: torch.zeros(2, 2, dtype=torch.half) for name in old_names(moe)}
    torch.save(state, tmp_path / "pretrain_512.pth")
    named = "weights of upstream MiniMind from before 26 April 2025"
    found = read_state_dict(tmp_path / "pretrain_512.pth")
    with pytest.raises(WeightsError, match=f"these are {named}"):
        infer_config(found)
    with pytest.raises(WeightsError, match=f"the weights in x.pth are {named}") as caught:
        load_state_into(make_model(), found, "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("moe", [False, True])
def test_weights_of_upstreams_second_generation_are_named(moe):
    state = make_model(use_moe=moe).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith("_norm.weight")}
    if moe:
        for part in ("gate_proj", "up_proj", "down_proj"):
            state[f"model.layers.0.mlp.shared_experts.0.{part}.weight"] = torch.zeros(2, 2)
    with pytest.raises(WeightsError, match="without q_norm and k_norm") as caught:
        infer_config(state)
    assert ("shared experts" in str(caught.value)) == moe
    with pytest.raises(WeightsError, match="from 26 April 2025 to 23 March 2026"):
        load_state_into(make_model(use_moe=moe), state, "x.pth")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_weights_under_the_keys_of_other_trainers(tmp_path, key):
    model = make_model()
    torch.save({key: model.state_dict(), "epoch": 1}, tmp_path / "w.ckpt")
    state = read_state_dict(tmp_path / "w.ckpt")
    copy = make_model(seed=1)
    load_state_into(copy, state, "w.ckpt")
    assert torch.equal(logits(copy), logits(model))


@pytest.mark.parametrize("shards", [1, 2])
def test_a_folder_with_pickled_weights(tmp_path, shards):
    model = make_model()
    state = dict(model.state_dict())
    (tmp_path / "config.json").write_text('{"rope_theta": 5e5, "rope_scaling": null}')
    if shards == 1:
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        files = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(state)}
        for file in set(files.values()):
            torch.save({n: t for n, t in state.items() if files[n] == file}, tmp_path / file)
        index = json.dumps({"metadata": {}, "weight_map": files})
        (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    found = read_weights(tmp_path)
    assert found.settings == {"rope_theta": 5e5}
    copy = make_model(seed=1)
    load_state_into(copy, found.state, tmp_path)
    assert torch.equal(copy.lm_head.weight, model.lm_head.weight)


def test_a_pickle_in_a_model_folder_runs_no_code(tmp_path):
    proof = tmp_path / "it-ran"
    state = {**make_model().state_dict(), "extra": Malicious(f"touch {proof}")}
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"refused: .*pytorch_model\.bin carries code"):
        read_weights(tmp_path)
    assert not proof.exists()


def test_a_tied_head_may_be_absent():
    state = make_model().state_dict()
    del state[HEAD]
    assert infer_config(state).tie_word_embeddings
    model = make_model(seed=1)
    load_state_into(model, state, "w.pth")
    assert torch.equal(logits(model), logits(make_model()))
    with pytest.raises(WeightsError, match=r"missing: lm_head\.weight"):
        load_state_into(make_model(tie_word_embeddings=False), state, "w.pth")


def test_an_untied_head_does_not_vanish_in_a_tied_model():
    state = make_model(tie_word_embeddings=False).state_dict()
    with pytest.raises(WeightsError, match=r"lm_head\.weight differs"):
        load_state_into(make_model(), state, "w.pth")


def test_what_does_not_fit_is_named_and_the_model_unchanged():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = make_model(seed=1, num_hidden_layers=3, intermediate_size=64).state_dict()
    del state["model.norm.weight"]
    with pytest.raises(WeightsError) as caught:
        load_state_into(model, state, "other.pth")
    message = str(caught.value)
    assert "other.pth" in message
    assert "model.layers.0.mlp.gate_proj.weight [64, 32] for [48, 32]" in message
    assert "6 of another shape" in message
    assert "and 1 more" in message
    assert "1 missing: model.norm.weight" in message
    assert "11 unexpected: model.layers.2.self_attn.q_proj.weight" in message
    assert "\n" not in message
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_reading_code_stays_safe_in_a_fresh_process(tmp_path):
    """The same refusal through the console command: one line, exit code 2, nothing run."""
    file, proof = tmp_path / "w.pth", tmp_path / "it-ran"
    torch.save({"model": Malicious(f"touch {proof}")}, file)
    command = [sys.executable, "-m", "minimind", "generate", "--weight", str(file), "--prompt", "a"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("minimind generate: error: refused:")
    assert "Traceback" not in done.stderr
    assert not proof.exists()


def test_a_checkpoint_s_rope_settings_are_read_with_its_weights(tmp_path):
    """A .pt as --from_weight starts a run that computes what the checkpoint's model did."""
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    config = MiniMindConfig(vocab_size=64, inference_rope_scaling=True, rms_norm_eps=1e-5, **size)
    model = MiniMindForCausalLM(config)
    saved = {"model": model.state_dict(), "model_config": config.to_dict(), "config": {}}
    torch.save(saved, tmp_path / "w.pt")
    train = TrainConfig(from_weight=str(tmp_path / "w.pt"), **size)
    store = SimpleNamespace(vocab_size=64, bos_id=1, eos_id=2, pad_id=0)
    stored = read_weights(tmp_path / "w.pt")
    started = init_model(train, store, torch.device("cpu"), None, stored)
    assert started.config.rope_parameters == config.rope_parameters
    assert started.config.rms_norm_eps == 1e-5
    assert torch.equal(started.lm_head.weight, model.lm_head.weight)
