"""Run folders as the launcher and the trainer leave them, written with the trainer's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minimind.config import TrainConfig, write_config_file
from minimind.system.jsonl import JsonLog

START = 1_800_000_000.0


def point(step: int, **values: Any) -> dict[str, Any]:
    """A training point of a run that makes a step a second."""
    return {
        "time": START + 20 + step,
        "epoch": 0,
        "step": step,
        "global_step": step,
        "total_steps": 100,
        "loss": 2 + 6 / step,
        "learning_rate": 1e-3,
        "grad_norm": 1.5,
        "tokens": 1000 * step,
        "tokens_per_second": 1000.0,
        "mfu": 0.25,
        "elapsed_seconds": 10.0,
        "data_seconds": 0.5,
        "compute_seconds": 7.0,
        "optimizer_seconds": 1.0,
        "checkpoint_seconds": 0.5,
        "host_memory_gb": 0.5,
        **values,
    }


def evaluation(step: int) -> dict[str, Any]:
    return {
        **{key: point(step)[key] for key in ("time", "epoch", "step", "global_step")},
        "eval_loss": 2.5 + 6 / step,
        "bits_per_byte": 1.75,
    }


def sample(step: int, prompt: str = "The", text: str = " sea") -> dict[str, Any]:
    place = {key: point(step)[key] for key in ("time", "epoch", "step", "global_step")}
    return {**place, "prompt": prompt, "text": text}


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    log = JsonLog(path)
    for record in records:
        log.write(record)
    log.close()


def write_output(
    out: Path,
    metrics: list[dict[str, Any]],
    samples: list[dict[str, Any]] | None = None,
    **flags: Any,
) -> Path:
    """What the trainer leaves in its ``--save_dir``."""
    write_lines(out / "metrics.jsonl", metrics)
    if samples is not None:
        write_lines(out / "samples.jsonl", samples)
    write_config_file(TrainConfig(**flags), out / "config.toml")
    environment = {"time": START, "parameters": 4_980_000, "ranks": 2, "device": "Some CPU"}
    (out / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return out


EVENTS: list[dict[str, Any]] = [
    {"time": START, "event": "submitted", "job_id": "5", "cluster": "slurm"},
    {"time": START + 10, "event": "attempt_started", "attempt": 1, "nodes": ["n1", "n2"]},
    {"time": START + 20, "event": "started", "step": 0},
    {"time": START + 60, "event": "checkpointed", "step": 40},
    {
        "time": START + 82,
        "event": "attempt_ended",
        "attempt": 1,
        "cause": "node_failure",
        "exit_code": 137,
    },
    {"time": START + 100, "event": "attempt_started", "attempt": 2, "nodes": ["n3", "n4"]},
    {"time": START + 105, "event": "started", "step": 40},
    {"time": START + 105, "event": "resumed", "step": 40},
    {"time": START + 165, "event": "finished", "step": 100},
    {"time": START + 166, "event": "attempt_ended", "attempt": 2, "cause": "done", "exit_code": 0},
    {"time": START + 166, "event": "run_ended", "cause": "done", "exit_code": 0},
]
METRICS: list[dict[str, Any]] = [
    *(point(step) for step in range(10, 70, 10)),
    {"time": START + 105, "event": "resumed", "epoch": 0, "step": 40, "global_step": 40},
    *(point(step, time=START + 65 + step) for step in range(50, 110, 10)),
    evaluation(100),
]
"""60 steps, 40 of them saved; then a node is lost, and the run goes on from step 40 to 100."""


def write_run(
    root: Path,
    events: list[dict[str, Any]] = EVENTS,
    metrics: list[dict[str, Any]] = METRICS,
    final: dict[str, Any] | None = None,
    samples: list[dict[str, Any]] | None = None,
    **flags: Any,
) -> Path:
    """A launcher's run folder; ``final``: how the run ended for good."""
    write_output(root / "out", metrics, samples, **flags)
    write_lines(root / "events.jsonl", events)
    spec = {"partition": "low", "nodes": 2, "env": {"TOKEN": "private"}, "cluster": "slurm"}
    (root / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    if final:
        marker = "DONE" if final["cause"] == "done" else "STOPPED"
        (root / marker).write_text(json.dumps(final), encoding="utf-8")
    return root


def write_done(root: Path, **values: Any) -> Path:
    final = {"cause": "done", "exit_code": 0, "reason": "finished"}
    return write_run(root, final=final, **values)
