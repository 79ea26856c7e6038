import types

import pytest

from minimind.planning.flops import flops_per_token

SMALL = types.SimpleNamespace(
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    intermediate_size=832,
    vocab_size=6400,
    use_moe=False,
    num_experts=4,
    num_experts_per_tok=1,
    moe_intermediate_size=832,
)


def vary(**changes):
    return types.SimpleNamespace(**{**vars(SMALL), **changes})


def test_the_figures_of_the_design():
    large = vary(hidden_size=512, num_hidden_layers=8, head_dim=64, intermediate_size=1664)
    assert flops_per_token(SMALL, 256) / 1e6 == pytest.approx(31.5, abs=0.05)
    assert flops_per_token(large, 512) / 1e6 == pytest.approx(192.7, abs=0.05)


def test_every_term_by_hand():
    config = vary(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4)
    config.num_key_value_heads, config.intermediate_size, config.vocab_size = 1, 10, 100
    q, k, v, o, norms = 8 * 8, 8 * 4, 8 * 4, 8 * 8, 8 + 8 + 4 + 4 + 8
    expected = 6 * (q + k + v + o + norms + 3 * 8 * 10 + 100 * 8) + 6 * 1 * 16 * 8
    assert flops_per_token(config, 16) == expected


def test_moe_counts_the_visited_experts_and_the_router():
    top1 = flops_per_token(vary(use_moe=True), 256)
    top2 = flops_per_token(vary(use_moe=True, num_experts_per_tok=2), 256)
    assert top1 - flops_per_token(SMALL, 256) == 6 * 4 * 256 * 4
    assert top2 - top1 == 6 * 4 * 3 * 256 * 832
    more = flops_per_token(vary(use_moe=True, num_experts=8), 256)
    assert more - top1 == 6 * 4 * 256 * 4


def test_attention_grows_with_the_row():
    assert flops_per_token(SMALL, 512) - flops_per_token(SMALL, 256) == 6 * 4 * 256 * 256


def test_it_takes_the_model_configuration():
    model = pytest.importorskip("minimind.model")
    given = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = model.MiniMindConfig(**{name: getattr(SMALL, name) for name in given})
    assert flops_per_token(config, 256) == flops_per_token(SMALL, 256)
