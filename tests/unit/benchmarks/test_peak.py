from types import SimpleNamespace

import pytest
import torch

from benchmarks import peak


@pytest.mark.parametrize("kind", ["cpu", "cuda", "npu"])
def test_a_device_that_would_emulate_bfloat16_is_measured_in_float32_alone(monkeypatch, kind):
    device = SimpleNamespace(type=kind)
    monkeypatch.setattr(peak, "has_bfloat16", lambda device: False)
    assert peak.precisions(device) == (torch.float32,)
    monkeypatch.setattr(peak, "has_bfloat16", lambda device: True)
    assert peak.precisions(device) == (torch.float32, torch.bfloat16)


def test_every_accelerator_is_measured_with_a_gpus_products():
    assert peak.shapes("npu") == peak.shapes("cuda") != peak.shapes("cpu")


def test_the_rate_is_flops_over_seconds():
    rates = peak.rate((64, 64, 64), torch.float32, torch.device("cpu"), seconds=0.01)
    assert len(rates) == 5
    assert all(0 < rate < 1e15 for rate in rates)
