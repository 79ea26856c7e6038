"""Names and shapes of the weights, as upstream MiniMind writes them; their initial values."""

from __future__ import annotations

import pytest
import torch

from minimind.model import MiniMindConfig, MiniMindForCausalLM

from .helpers import ARCHITECTURES, small_model

OUTSIDE_LAYERS = {
    "model.embed_tokens.weight": (97, 32),
    "model.norm.weight": (32,),
    "lm_head.weight": (97, 32),
}
ATTENTION_AND_NORMS = {
    "self_attn.q_proj.weight": (32, 32),
    "self_attn.k_proj.weight": (16, 32),
    "self_attn.v_proj.weight": (16, 32),
    "self_attn.o_proj.weight": (32, 32),
    "self_attn.q_norm.weight": (8,),
    "self_attn.k_norm.weight": (8,),
    "input_layernorm.weight": (32,),
    "post_attention_layernorm.weight": (32,),
}
DENSE_MLP = {
    "mlp.gate_proj.weight": (48, 32),
    "mlp.up_proj.weight": (48, 32),
    "mlp.down_proj.weight": (32, 48),
}
MOE_MLP = {
    "mlp.gate.weight": (3, 32),
    "mlp.experts.0.gate_proj.weight": (24, 32),
    "mlp.experts.0.up_proj.weight": (24, 32),
    "mlp.experts.0.down_proj.weight": (32, 24),
    "mlp.experts.1.gate_proj.weight": (24, 32),
    "mlp.experts.1.up_proj.weight": (24, 32),
    "mlp.experts.1.down_proj.weight": (32, 24),
    "mlp.experts.2.gate_proj.weight": (24, 32),
    "mlp.experts.2.up_proj.weight": (24, 32),
    "mlp.experts.2.down_proj.weight": (32, 24),
}


@pytest.mark.parametrize(
    "architecture, mlp",
    [({}, DENSE_MLP), ({"use_moe": True, "num_experts": 3}, MOE_MLP)],
    ids=["dense", "moe"],
)
def test_names_and_shapes(architecture, mlp):
    expected = dict(OUTSIDE_LAYERS)
    for layer in range(2):
        for name, shape in {**ATTENTION_AND_NORMS, **mlp}.items():
            expected[f"model.layers.{layer}.{name}"] = shape
    state = small_model(**architecture).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_every_expert_matrix_is_a_2d_parameter_of_its_own():
    model = small_model(use_moe=True)
    experts = [p for name, p in model.named_parameters() if ".experts." in name]
    assert len(experts) == 2 * 4 * 3
    assert all(type(p) is torch.nn.Parameter and p.ndim == 2 for p in experts)


def test_head_and_embedding_are_one_tensor():
    state = small_model().state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    untied = small_model(tie_word_embeddings=False).state_dict()
    assert untied["lm_head.weight"].data_ptr() != untied["model.embed_tokens.weight"].data_ptr()


def test_rotary_buffers_are_not_saved():
    model = small_model()
    buffers = dict(model.named_buffers())
    assert set(buffers) == {"model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq"}
    assert not set(buffers) & set(model.state_dict())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initial_weights_come_from_the_seed(architecture):
    first, again, other = (small_model(seed, **architecture).state_dict() for seed in (7, 7, 8))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        if "norm" not in name:
            assert not torch.equal(tensor, other[name]), name


def test_initial_weights_are_normal_with_the_configured_deviation():
    torch.manual_seed(0)
    model = MiniMindForCausalLM(
        MiniMindConfig(num_hidden_layers=1, use_moe=True, initializer_range=0.05)
    )
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        else:
            assert tensor.std().item() == pytest.approx(0.05, rel=0.05), name
            assert abs(tensor.mean().item()) < 0.005, name


def test_default_sizes():
    """30.0 M parameters (dense) and 91.4 M (MoE)."""
    with torch.device("meta"):
        dense = MiniMindForCausalLM(MiniMindConfig())
        moe = MiniMindForCausalLM(MiniMindConfig(use_moe=True))
    per_layer = 512 * 512 * 2 + 512 * 256 * 2 + 2 * 64 + 2 * 512
    expert = 3 * 512 * 1664
    outside = 6400 * 512 + 512
    assert sum(p.numel() for p in dense.parameters()) == 8 * (per_layer + expert) + outside
    assert sum(p.numel() for p in moe.parameters()) == (
        8 * (per_layer + 4 * expert + 4 * 512) + outside
    )
