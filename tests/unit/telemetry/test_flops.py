import pytest
import torch

from minimind.telemetry import flops
from minimind.telemetry.flops import peak_flops


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
