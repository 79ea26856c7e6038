"""A run that is watched in every way, and killed: the same run, and one curve of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from minimind.rundir.metrics import read_metrics
from tests.runs import Run, assert_same_run

MakeRun = Callable[..., Run]

pytest.importorskip("tensorboard")


def tensorboard_steps(save_dir: Path, tag: str) -> dict[int, float]:
    """What TensorBoard shows, read by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(save_dir / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    points = reader.Scalars(tag)
    steps = [point.step for point in points]
    assert steps == sorted(set(steps)), "a step is shown twice"
    return {point.step: point.value for point in points}


def test_samples_and_trackers_change_no_bit_and_survive_a_kill(make_run: MakeRun) -> None:
    """On two ranks: rank 0 samples while the other waits for it."""
    plain = make_run("plain", batch_size=1).complete(2)
    prompts = plain.folder / "prompts.txt"
    prompts.write_text("The old clock\n清晨的\n", encoding="utf-8")
    samples = {"sample_interval": 5, "sample_prompts": prompts}
    watched = make_run("watched", batch_size=1, tracker="tensorboard", **samples)
    assert watched.interrupt(signal.SIGKILL, 8, 2) == [-9, -9]
    assert watched.interrupt(signal.SIGTERM, 12, 2) == [75, 75]
    watched.complete(2)
    assert_same_run(plain, watched)

    metrics = read_metrics(watched.save_dir / "metrics.jsonl")
    points = [p for p in metrics if "loss" in p]
    records = read_metrics(watched.save_dir / "samples.jsonl")
    due = {(p["epoch"], p["step"]) for p in points if p["step"] % 5 == 0 or p["step"] == p["iters"]}
    sampled = {(r["epoch"], r["step"]) for r in records}
    assert sampled <= due
    # A run that is asked to stop samples no more in the steps up to its next save.
    assert len(due - sampled) <= 1
    assert {r["prompt"] for r in records} == {"The old clock", "清晨的"}
    assert len({r["text"] for r in records}) > 2

    # Every log line of a step is within the window of three micro-steps that ends in it.
    first = {}
    for point in points:
        at_boundary = point["step"] % 3 == 0 or point["step"] == point["iters"]
        first.setdefault(point["global_step"] + (not at_boundary), point)
    shown = tensorboard_steps(watched.save_dir, "loss")
    assert list(shown) == list(range(1, points[-1]["total_steps"] + 1))
    assert shown == pytest.approx({step: point["loss"] for step, point in first.items()})


def test_a_missing_tracker_package_stops_before_anything(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", tracker="tensorboard")
    codes = run.finish(run.start(target=without_tensorboard))
    assert codes == [2]
    assert "pip install tensorboard" in run.output
    assert not run.save_dir.exists()


def without_tensorboard(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank on a machine where TensorBoard is not installed."""
    import importlib.util

    from tests.runs import rank_main

    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name == "tensorboard" else found(name)  # type: ignore[assignment]
    rank_main(argv, environ, output)
