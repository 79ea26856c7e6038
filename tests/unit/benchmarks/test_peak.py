import torch

from benchmarks import peak


def test_a_cpu_that_would_emulate_bfloat16_is_measured_in_float32_alone(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(peak, "cpu_has_bfloat16", lambda: False)
    assert peak.precisions(cpu) == (torch.float32,)
    assert peak.precisions(torch.device("cuda")) == (torch.float32, torch.bfloat16)
    monkeypatch.setattr(peak, "cpu_has_bfloat16", lambda: True)
    assert peak.precisions(cpu) == (torch.float32, torch.bfloat16)


def test_the_rate_is_flops_over_seconds():
    rates = peak.rate((64, 64, 64), torch.float32, torch.device("cpu"), seconds=0.01)
    assert len(rates) == 5
    assert all(0 < rate < 1e15 for rate in rates)
