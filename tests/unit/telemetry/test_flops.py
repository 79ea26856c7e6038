import types

import pytest
import torch

from minimind.telemetry import flops
from minimind.telemetry.flops import data_sheet_peak, flops_per_token, peak_flops

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


@pytest.mark.parametrize(
    ("name", "dtype", "tf32", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, False, 989.4),
        ("NVIDIA H100 PCIe", torch.bfloat16, False, 756),
        ("NVIDIA H200", torch.float16, False, 989.4),
        ("NVIDIA A100-SXM4-80GB", torch.float32, False, 19.5),
        ("NVIDIA A100-SXM4-80GB", torch.float32, True, 156),
        ("NVIDIA A100-PCIE-40GB", torch.bfloat16, True, 312),
        ("NVIDIA A10", torch.bfloat16, False, 125),
        ("NVIDIA A10G", torch.bfloat16, False, 70),
        ("NVIDIA L4", torch.bfloat16, False, 121),
        ("NVIDIA L40S", torch.bfloat16, False, 362),
        ("Tesla V100-SXM2-32GB", torch.float16, False, 125),
        ("Tesla V100-SXM2-32GB", torch.bfloat16, False, 15.7),
        ("Tesla V100-SXM2-32GB", torch.float32, True, 15.7),
        ("Tesla T4", torch.float16, False, 65),
        ("NVIDIA GeForce RTX 3090", torch.bfloat16, False, 71.2),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, False, 165.2),
        ("NVIDIA GeForce RTX 4080 SUPER", torch.bfloat16, False, 104.4),
        ("NVIDIA GeForce RTX 5090", torch.bfloat16, False, 209.5),
        ("NVIDIA GeForce RTX 3060", torch.float32, False, 12.7),
        ("NVIDIA B200", torch.bfloat16, False, 2250),
    ],
)
def test_known_gpus(name, dtype, tf32, tera):
    assert data_sheet_peak(name, dtype, tf32) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA X9000",
        "AMD Instinct MI300X",
    ],
)
def test_other_gpus_are_not_guessed(name):
    assert data_sheet_peak(name, torch.bfloat16) is None


def test_a_known_gpu_is_not_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(flops, "_measured", None)
    peak, source = peak_flops("cuda:0", "bfloat16")
    assert peak == pytest.approx(989.4e12)
    assert source == "NVIDIA H100 80GB HBM3, dense bfloat16 peak of its data sheet"


def test_float32_follows_the_tf32_switch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert peak_flops("cuda", torch.float32)[0] == pytest.approx(19.5e12)
        torch.set_float32_matmul_precision("high")
        peak, source = peak_flops("cuda", torch.float32)
        assert peak == pytest.approx(156e12)
        assert "TF32" in source
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_cpu_is_measured_once_for_each_number_of_threads(monkeypatch):
    flops._measured.cache_clear()
    peak, source = peak_flops("cpu", "float32")
    assert 1e8 < peak < 1e14
    assert f"cpu with {torch.get_num_threads()} thread" in source
    assert peak_flops("cpu", torch.float32)[0] == peak
    assert flops._measured.cache_info().misses == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 97)
    peak_flops("cpu", "float32")
    assert flops._measured.cache_info().misses == 2


def test_it_takes_the_model_configuration():
    model = pytest.importorskip("minimind.model")
    given = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = model.MiniMindConfig(**{name: getattr(SMALL, name) for name in given})
    assert flops_per_token(config, 256) == flops_per_token(SMALL, 256)
