from __future__ import annotations

import math

import pytest
from transformers import AutoConfig

from minimind.model import MiniMindConfig


def test_defaults():
    config = MiniMindConfig()
    expected = {
        "vocab_size": 6400,
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "intermediate_size": 1664,
        "moe_intermediate_size": 1664,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "inference_rope_scaling": False,
        "use_moe": False,
        "num_experts": 4,
        "num_experts_per_tok": 1,
        "norm_topk_prob": True,
        "router_aux_loss_coef": 5e-4,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.model_type == "minimind"


@pytest.mark.parametrize("hidden_size", [256, 512, 768, 1008])
def test_intermediate_size_follows_hidden_size(hidden_size):
    size = MiniMindConfig(hidden_size=hidden_size).intermediate_size
    assert size % 64 == 0
    assert 0 <= size - hidden_size * math.pi < 64


@pytest.mark.parametrize(
    "values, message",
    [
        ({"hidden_size": 100}, "multiple of num_attention_heads"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": 63}, "even"),
        ({"intermediate_size": 0}, "intermediate_size"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"initializer_range": math.nan}, "initializer_range"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
        ({"hidden_act": "nonesuch"}, "hidden_act"),
        ({"use_moe": True, "num_experts": 0}, "num_experts"),
        ({"use_moe": True, "num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"use_moe": True, "router_aux_loss_coef": -1.0}, "router_aux_loss_coef"),
        ({"use_moe": True, "moe_intermediate_size": 100}, "multiple of 8"),
        ({"use_moe": True, "hidden_size": 36, "num_attention_heads": 2, "num_key_value_heads": 1},
         "multiple of 8"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MiniMindConfig(**values)


def test_expert_limits_do_not_bind_a_dense_model():
    assert MiniMindConfig(moe_intermediate_size=100).moe_intermediate_size == 100


def test_head_dim_may_be_given():
    assert MiniMindConfig(hidden_size=100, head_dim=16).head_dim == 16


def test_yarn_is_a_switch():
    config = MiniMindConfig(inference_rope_scaling=True, rope_theta=5e5)
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 5e5,
        "factor": 16.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": 1.0,
    }
    assert config.rope_parameters == yarn
    config.inference_rope_scaling = False
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 5e5}
    config.inference_rope_scaling = True
    assert config.rope_parameters == yarn


def test_upstreams_config_keys_are_understood():
    config = MiniMindConfig.from_dict(
        {
            "rope_theta": 1e6,
            "inference_rope_scaling": True,
            "rope_scaling": {
                "type": "yarn",
                "factor": 16,
                "original_max_position_embeddings": 2048,
                "beta_fast": 32,
                "beta_slow": 1,
                "attention_factor": 1.0,
            },
            "flash_attn": True,
        }
    )
    assert config.inference_rope_scaling
    assert config.rope_parameters["factor"] == 16
    assert config.rope_theta == 1e6


def test_config_survives_saving(tmp_path):
    config = MiniMindConfig(
        hidden_size=64, use_moe=1, rope_theta=1e4, inference_rope_scaling=True, dropout=0.1
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
    assert type(loaded) is MiniMindConfig
    assert loaded.use_moe is True
    assert loaded.rope_theta == 1e4
    assert loaded.inference_rope_scaling
    assert loaded.to_diff_dict() == config.to_diff_dict()
    plain = MiniMindConfig.from_pretrained(tmp_path, inference_rope_scaling=False)
    assert plain.rope_parameters == {"rope_type": "default", "rope_theta": 1e4}


def test_a_callers_rope_dictionary_is_left_alone():
    given = {"rope_type": "linear", "factor": 2.0}
    config = MiniMindConfig(rope_parameters=given)
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}
    assert given == {"rope_type": "linear", "factor": 2.0}
