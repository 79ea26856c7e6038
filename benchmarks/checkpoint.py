"""What checkpoints cost: the stall of training, the bytes on the disk, and a stop on SIGTERM.

A save holds training up while the state is copied; the write goes on in the background, where
it slows the steps beside it. Both count as stall here. Training runs with a save every few
steps to see many of them, and the share is worked out for the default --save_interval at the
micro-step's measured time. With the default --batch_size (32 rows) a micro-step takes longer
on a CPU, and the share is less.

The entropy of the state is 12 bytes a parameter: float32 weights and two AdamW moments, each
tensor once. The last table sends SIGTERM to a training run and waits for its end.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import (
    BenchmarkError,
    Report,
    alternate,
    environment,
    main,
    make_parser,
    read_jsonl,
    run_process,
    say,
    spread,
    table,
    trainer_command,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from minimind.config import TrainConfig
from minimind.errors import EXIT_RUN_ME_AGAIN
from minimind.rundir.metrics import read_metrics

SIZES = {
    "256x4": {"hidden_size": 256, "num_hidden_layers": 4, "max_seq_len": 256},
    "512x8": {"hidden_size": 512, "num_hidden_layers": 8, "max_seq_len": 512},
    "768x16": {"hidden_size": 768, "num_hidden_layers": 16, "max_seq_len": 512},
}
STALL_TARGET, BYTES_TARGET, STOP_TARGET = 1.0, 1.1, 10.0
BYTES_PER_PARAMETER = 12
"""float32 weight, AdamW's first and second moment."""


def lost_seconds(points: Sequence[Mapping[str, Any]], saves: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that one save costs training: its copy, and the slow-down while it is written.

    Args:
        points: one for each micro-step, in order: ``time`` of its end, ``elapsed_seconds``,
            and ``checkpoint_seconds``, the copy's share of them.
        saves: ``time`` at which each save was durable, and the ``seconds`` that it took.

    Raises:
        BenchmarkError: no step was free of saves, or no save was seen.
    """
    if not saves:
        raise BenchmarkError("no save was seen; raise --steps")

    def written_meanwhile(point: Mapping[str, Any]) -> bool:
        begin, end = point["time"] - point["elapsed_seconds"], point["time"]
        return any(s["time"] > begin and s["time"] - s["seconds"] < end for s in saves)

    bare = [p["elapsed_seconds"] - p["checkpoint_seconds"] for p in points]
    free = [b for b, p in zip(bare, points, strict=True) if not written_meanwhile(p)]
    if not free:
        raise BenchmarkError("a save was under way at every step; raise --save_every")
    usual = statistics.median(free)
    slowed = sum(b - usual for b, p in zip(bare, points, strict=True) if written_meanwhile(p))
    copied = sum(p["checkpoint_seconds"] for p in points)
    # No write speeds training up: below zero it is noise.
    return (copied + max(0.0, slowed)) / len(saves)


def measure_saves(folder: Path, flags: Mapping[str, Any], args: Any) -> dict[str, float]:
    shutil.rmtree(folder, ignore_errors=True)
    events = folder / "events.jsonl"
    run_process(
        trainer_command(
            {
                **flags,
                "max_steps": args.steps,
                "save_interval": args.save_every,
                "save_dir": folder / "out",
                "checkpoint_dir": folder / "checkpoints",
            },
            args.ours_flags,
        ),
        env=environment(MINIMIND_EVENTS=str(events)),
    )
    # The first steps warm up, and the save at the end is not beside any training.
    points = [p for p in read_metrics(folder / "out" / "metrics.jsonl") if "loss" in p]
    last = points[-1]["global_step"]
    saves = [e for e in read_jsonl(events) if e["event"] == "checkpointed" and e["step"] < last]
    # A save falls into the time of the point after it: its line was written before.
    steps = points[args.save_every : -1]
    seen = [s for s in saves if s["step"] > args.save_every]
    # The first save takes fresh memory; the later ones are what the run goes on with.
    lost = lost_seconds(steps, seen)
    micro_step = statistics.median(p["elapsed_seconds"] for p in steps)
    interval = TrainConfig().save_interval
    return {
        "copy": statistics.mean(p["checkpoint_seconds"] for p in steps) * len(steps) / len(seen),
        "lost": lost,
        "durable": statistics.median(s["seconds"] for s in seen),
        "micro_step": micro_step,
        "stall_percent": 100 * lost / (interval * micro_step + lost),
        **state_bytes(folder / "checkpoints", folder / "out", int(flags["hidden_size"])),
    }


def state_bytes(checkpoints: Path, out: Path, hidden_size: int) -> dict[str, float]:
    """Bytes of the newest checkpoint and its weights file, beside what they must hold."""
    from minimind.checkpoint.state import SavedModel
    from minimind.checkpoint.store import load_checkpoint

    checkpoint = checkpoints / f"pretrain_{hidden_size}.pt"
    weights = SavedModel.of(load_checkpoint(checkpoint, mmap=True)).weights
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in weights.values()}
    parameters = sum(tensors.values())
    return {
        "parameters": parameters,
        "bytes": checkpoint.stat().st_size,
        "weight_bytes": (out / f"pretrain_{hidden_size}.pth").stat().st_size,
        "ratio": checkpoint.stat().st_size / (BYTES_PER_PARAMETER * parameters),
    }


def measure_stop(folder: Path, flags: Mapping[str, Any], args: Any) -> dict[str, float]:
    """Send SIGTERM in mid-training; seconds until the save is durable, and until exit code 75."""
    shutil.rmtree(folder, ignore_errors=True)
    events = folder / "events.jsonl"
    command = trainer_command(
        {
            **flags,
            "save_dir": folder / "out",
            "checkpoint_dir": folder / "checkpoints",
            "save_interval": 1_000_000,
        },
        args.ours_flags,
    )
    folder.mkdir(parents=True)
    metrics = folder / "out" / "metrics.jsonl"
    with open(folder / "output.txt", "w") as output:
        env = environment(MINIMIND_EVENTS=str(events))
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        try:
            points: list[dict[str, Any]] = []
            while len(points) < 3 and process.poll() is None:
                time.sleep(0.05)
                points = [p for p in read_metrics(metrics) if "loss" in p]
            if process.poll() is not None:
                raise BenchmarkError(f"it ended by itself; see {folder / 'output.txt'}")
            # In the middle of a step, as a scheduler would.
            time.sleep(points[-1]["elapsed_seconds"] / 2)
            sent = time.time()
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=300)
            ended = time.time()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != EXIT_RUN_ME_AGAIN:
        raise BenchmarkError(f"the stopped run ended with {code}, not {EXIT_RUN_ME_AGAIN}")
    checkpoint = folder / "checkpoints" / f"pretrain_{flags['hidden_size']}.pt"
    if not checkpoint.exists():
        raise BenchmarkError(f"the stopped run left no {checkpoint}")
    durable = [e["time"] for e in read_jsonl(events) if e["event"] == "checkpointed"]
    return {
        "durable_seconds": durable[-1] - sent,
        "stop_seconds": ended - sent,
        "micro_step": points[-1]["elapsed_seconds"],
    }


def run() -> None:
    parser = make_parser("checkpoint", __doc__, "--sizes 512x8 768x16")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["512x8", "768x16"])
    parser.add_argument("--stop_size", choices=[*SIZES, "none"], default="768x16")
    parser.add_argument("--batch_size", type=int, default=2, help="rows of a micro-step")
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of each run")
    parser.add_argument("--save_every", type=int, default=8, help="steps between saves")
    parser.add_argument("--ours_flags", default="", help="more flags for our trainer, in one word")
    args = parser.parse_args()
    if args.steps < 3 * args.save_every:
        raise BenchmarkError("--steps must be three times --save_every or more")
    report = Report("checkpoint", __doc__ or "")
    with work_folder(args.work_dir) as work:
        data, _ = benchmark_corpus(work)
        common = {
            "data_path": data,
            "cache_dir": work / "cache",
            "batch_size": args.batch_size,
            "accumulation_steps": 1,
            "log_interval": 1,
            "epochs": 1000,
        }

        def measure(name: str) -> Mapping[str, Any]:
            return measure_saves(work / "save" / name, {**common, **SIZES[name]}, args)

        runs = alternate(args.sizes, measure, args.repeats)
        rows, sizes, lines = [], [], []
        for name, found in runs.items():
            value = {key: spread(found, key) for key in found[0]}
            keys = ("micro_step", "copy", "lost", "durable", "stall_percent")
            rows.append([name, *(str(value[key]) for key in keys)])
            entropy = BYTES_PER_PARAMETER * value["parameters"].median
            sizes.append(
                [
                    name,
                    f"{value['parameters'].median / 1e6:.2f} M",
                    f"{entropy / 1e6:.1f}",
                    f"{value['bytes'].median / 1e6:.1f}",
                    f"{value['ratio'].median:.4f}",
                    f"{value['weight_bytes'].median / 1e6:.1f}",
                ]
            )
            stall, ratio = value["stall_percent"].median, value["ratio"].median
            lines.append(
                f"- {name}: stall {verdict(stall, STALL_TARGET, at_most=True, unit=' %')}; "
                f"bytes {verdict(ratio, BYTES_TARGET, at_most=True)}"
            )
        interval = TrainConfig().save_interval
        columns = ["copy s", "lost to a save s", "durable after s"]
        report.add(table(["size", "micro-step s", *columns, f"stall % at every {interval}"], rows))
        report.add(
            table(
                ["size", "parameters", "state MB", "checkpoint MB", "ratio", "weights file MB"],
                sizes,
            )
        )
        report.data["saves"] = runs
        if args.stop_size != "none":
            flags = {**common, **SIZES[args.stop_size]}
            say(f"{args.stop_size}: SIGTERM")
            stops = [measure_stop(work / "stop", flags, args) for _ in range(args.repeats)]
            durable = spread(stops, "durable_seconds")
            line = verdict(durable.median, STOP_TARGET, at_most=True, unit=" s")
            lines.append(
                f"- {args.stop_size}: SIGTERM in mid-step to a durable checkpoint: {durable} s, "
                f"{line}; to the process's end: {spread(stops, 'stop_seconds')} s; "
                f"a micro-step there takes {spread(stops, 'micro_step')} s"
            )
            report.data["stops"] = stops
        report.add("\n".join(lines))
    report.publish(args)


if __name__ == "__main__":
    main(run)
