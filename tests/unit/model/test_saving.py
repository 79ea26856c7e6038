from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM

from minimind.model import MiniMindForCausalLM, MiniMindModel

from .helpers import ARCHITECTURES, random_ids, small_model

LOAD_FROM_SAVED_CODE = """
import sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.modules["minimind"] = None  # any import of the package now fails
ids = torch.load("ids.pt", weights_only=True)


def load(name):
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(model.config).__module__.startswith("transformers_modules."), type(model.config)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model.eval()


models = {name: load(f"./{name}") for name in ("dense", "moe")}
outputs = {}
for name, model in models.items():
    outputs[name] = model(ids).logits.detach()
    outputs[name + "_generated"] = model.generate(ids, max_new_tokens=4, do_sample=False)

# The saved copy of the code and the package's own, together in one process.
del sys.modules["minimind"]
from minimind.model import MiniMindForCausalLM

ours = MiniMindForCausalLM.from_pretrained("./moe").eval()
assert type(ours) is not type(models["moe"])
for model in (models["moe"], ours):
    assert torch.equal(model(ids).logits, outputs["moe"])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
torch.save(outputs, "outputs.pt")
"""


def test_saved_folder_loads_without_the_package(tmp_path):
    ids = random_ids(2, 9)
    # One layer of experts, since that one is compiled, twice.
    moe = small_model(use_moe=True, num_experts_per_tok=2, num_hidden_layers=1)
    models = {"dense": small_model(), "moe": moe}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert {
            "architecture.py",
            "configuration_minimind.py",
            "layers.py",
            "modeling_minimind.py",
        } <= files
        auto_map = json.loads((tmp_path / name / "config.json").read_text())["auto_map"]
        assert auto_map == {
            "AutoConfig": "configuration_minimind.MiniMindConfig",
            "AutoModelForCausalLM": "modeling_minimind.MiniMindForCausalLM",
        }
    torch.save(ids, tmp_path / "ids.pt")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_SAVED_CODE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    for name, model in models.items():
        torch.testing.assert_close(outputs[name], model(ids).logits, rtol=0, atol=1e-6)
        generated = model.generate(ids, max_new_tokens=4, do_sample=False)
        assert torch.equal(outputs[name + "_generated"], generated)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_survive_saving(architecture, tmp_path):
    model = small_model(**architecture)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        assert ("lm_head.weight" in saved.keys()) != (  # noqa: SIM118 (not a dict)
            "model.embed_tokens.weight" in saved.keys()  # noqa: SIM118
        )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is MiniMindForCausalLM
    state = loaded.state_dict()
    assert set(state) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    with torch.no_grad():
        loaded.lm_head.weight[3, 4] = 42.0
    assert loaded.model.embed_tokens.weight[3, 4] == 42.0
    assert torch.equal(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_untied_weights_survive_saving(tmp_path):
    model = small_model(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    loaded = MiniMindForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


def test_a_plain_state_dict_with_both_tied_keys_loads():
    """The form of MiniMind's .pth files."""
    model, other = small_model(0, use_moe=True), small_model(1, use_moe=True)
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    other.load_state_dict(state, strict=True)
    assert torch.equal(other.lm_head.weight, model.lm_head.weight.half().float())
    assert other.lm_head.weight is other.model.embed_tokens.weight


def test_base_model_loads_from_the_same_folder(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is MiniMindModel
    ids = random_ids(1, 6)
    torch.testing.assert_close(
        base(ids).last_hidden_state, model.model(ids).last_hidden_state, rtol=0, atol=0
    )


def test_yarn_can_be_switched_on_when_loading(tmp_path):
    model = small_model(max_position_embeddings=32768, head_dim=64)
    model.save_pretrained(tmp_path)
    scaled = MiniMindForCausalLM.from_pretrained(tmp_path, inference_rope_scaling=True)
    plain = MiniMindForCausalLM.from_pretrained(tmp_path)
    assert plain.model.rotary_emb.rope_type == "default"
    assert scaled.model.rotary_emb.rope_type == "yarn"
    assert not torch.equal(scaled.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
