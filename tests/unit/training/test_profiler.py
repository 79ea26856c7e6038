import gzip
import json
import logging
import threading
from types import SimpleNamespace

import pytest
import torch

from minimind.telemetry.meters import StepTimer
from minimind.training import profiler as module
from minimind.training.profiler import SKIPPED_MICRO_STEPS, StepProfiler, kind_of, summary

CPU = torch.device("cpu")


def train(profiler, micro_steps):
    timer = StepTimer(CPU)
    for _ in range(micro_steps):
        with timer.section("compute"):
            torch.ones(64, 64) @ torch.ones(64, 64)
        profiler.step()
    profiler.close()


def test_a_trace_and_one_screen(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(StepProfiler(2, tmp_path / "profile", CPU), SKIPPED_MICRO_STEPS + 1 + 2 + 5)
    with gzip.open(tmp_path / "profile" / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("aten::mm") == 2
    assert names.count("compute") == 2
    text = (tmp_path / "profile" / "summary.txt").read_text()
    assert text.strip() in caplog.text
    assert len(text.splitlines()) < 30
    assert "  loop: compute" in text
    longest = next(line for line in text.splitlines() if line.startswith("  aten::mm"))
    assert longest.endswith("1.0×")


def test_a_run_that_ends_early_says_that_there_is_no_profile(tmp_path, caplog):
    train(StepProfiler(2, tmp_path / "profile", CPU), 1)
    assert "no profile" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_a_run_that_ends_midway_has_what_was_traced(tmp_path):
    train(StepProfiler(50, tmp_path / "profile", CPU), SKIPPED_MICRO_STEPS + 1 + 3)
    text = (tmp_path / "profile" / "summary.txt").read_text()
    assert text.startswith("profile of 3 micro-steps")


def test_training_does_not_wait_for_the_trace_and_a_stop_not_for_long(
    tmp_path, monkeypatch, caplog
):
    release = threading.Event()
    monkeypatch.setattr(module, "SECONDS_AFTER_STOP", 0.0)
    monkeypatch.setattr(StepProfiler, "_write_files", lambda self, finished: release.wait())
    profiler = StepProfiler(2, tmp_path / "profile", CPU)
    profiler.stopping = True
    train(profiler, SKIPPED_MICRO_STEPS + 1 + 2 + 5)
    release.set()
    assert "no profile: it is not written 0 s after a stop" in caplog.text


def test_a_trace_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "profile").touch()
    train(StepProfiler(2, tmp_path / "profile", CPU), SKIPPED_MICRO_STEPS + 1 + 2 + 5)
    assert "no profile: FileExistsError" in caplog.text


def test_shares_are_of_own_time():
    def event(key, own, calls=4, device=0.0):
        return SimpleNamespace(
            key=key,
            self_cpu_time_total=own,
            self_device_time_total=device,
            cpu_time_total=1000.0,
            count=calls,
        )

    events = [event("aten::mm", 3000.0), event("aten::add", 1000.0), event("data", 9.0)]
    text = summary(events, 2, "cpu")
    assert "75.0 %" in text
    assert "25.0 %" in text
    assert "1.50" in text
    on_gpu = summary([event("nvjet_gemm", 1.0, device=2000.0), event("aten::mm", 9.0)], 2, "cuda")
    assert "100.0 %" in on_gpu


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("graph_0_cpp_fused__softmax__to_copy_3", "compiled kernels"),
        ("aten::_fused_adamw_", "optimiser"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "exchange between ranks"),
        ("aten::_log_softmax", "loss"),
        ("enumerate(DataLoader)#_MultiProcessingDataLoaderIter", "waiting for data"),
        ("aten::mul", "elementwise and other operators"),
    ],
)
def test_kinds(name, kind):
    assert kind_of(name) == kind
