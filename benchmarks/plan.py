"""Whether a run takes the time and the memory that `minimind plan` said.

Plan and run alternate. Time is that of an update, of the run's without its first; memory is the
peak of the run's process, saves included. Both share the machine with whatever else runs there:
the load is in the table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    BenchmarkError,
    Report,
    Spread,
    alternate,
    environment,
    main,
    make_parser,
    run_process,
    spread,
    table,
    trainer_command,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from minimind.rundir.metrics import read_metrics

SIZES: dict[str, dict[str, Any]] = {
    "256x4": {"hidden_size": 256, "num_hidden_layers": 4, "max_seq_len": 256, "batch_size": 16},
    "512x8": {"hidden_size": 512, "num_hidden_layers": 8, "max_seq_len": 512, "batch_size": 8},
    "moe256x4": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "max_seq_len": 256,
        "batch_size": 16,
        "use_moe": 1,
    },
}
TIME_TARGET, MEMORY_TARGET = 20.0, 15.0
"""Percent that a plan may be off."""


def plan_once(flags: Mapping[str, Any], extra: str) -> Mapping[str, Any]:
    """What ``minimind plan`` says: seconds of an update, bytes measured and by arithmetic."""
    command = trainer_command(flags, extra)
    command[1:3] = ["-m", "minimind", "plan", "--json"]
    found = json.loads(run_process(command, quiet=False)[0])
    memory = found["memory_bytes"]
    if memory["measured"] is None:
        raise BenchmarkError("nothing was measured: see above")
    return {
        "seconds": found["seconds_per_update"],
        "bytes": memory["measured"],
        "arithmetic": memory["total"],
    }


def run_once(folder: Path, flags: Mapping[str, Any], extra: str) -> Mapping[str, Any]:
    """What a run of these flags takes, and the machine's load when it ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    places = {"save_dir": folder / "out", "checkpoint_dir": folder / "checkpoints"}
    command = trainer_command({**flags, **places, "log_interval": 1}, extra)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise BenchmarkError(f"the run failed: {(folder / 'log').read_text()[-2000:]}")
    points = [p for p in read_metrics(folder / "out" / "metrics.jsonl") if "loss" in p]
    seconds = Spread.of([p["elapsed_seconds"] for p in points[1:]])
    unit = 1 if sys.platform == "darwin" else 1024
    total = sum(p["elapsed_seconds"] for p in points[1:])
    return {
        "seconds": total / seconds.runs,
        "bytes": usage.ru_maxrss * unit,
        "load": os.getloadavg()[0],
    }


def plan_or_run(
    folder: Path, flags: Mapping[str, Any], extra: str, which: str
) -> Mapping[str, Any]:
    return plan_once(flags, extra) if which == "plan" else run_once(folder, flags, extra)


def percent_off(said: float, real: float) -> float:
    """How far from the truth, whichever way."""
    return 100 * abs(said - real) / real


def run() -> None:
    parser = make_parser("plan", __doc__, "--sizes 512x8 --steps 10")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--ours_flags", default="--compile off", help="more flags, in one word")
    args = parser.parse_args()
    report = Report("plan", __doc__ or "")
    rows, lines = [], []
    with work_folder(args.work_dir) as work:
        data = benchmark_corpus(work)[0]
        for name in args.sizes:
            flags = {
                **SIZES[name],
                "data_path": data,
                "cache_dir": work / "cache",
                "accumulation_steps": 1,
                "max_steps": args.steps,
            }
            measure = partial(plan_or_run, work / name, flags, args.ours_flags)
            found = alternate(["plan", "run"], measure, args.repeats)
            report.data[name] = {who: list(map(dict, runs)) for who, runs in found.items()}
            said, real = found["plan"], found["run"]
            rows.append(
                [
                    name,
                    str(spread(said, "seconds")),
                    str(spread(real, "seconds")),
                    spread(said, "bytes").median / 1e9,
                    spread(said, "arithmetic").median / 1e9,
                    spread(real, "bytes").median / 1e9,
                    str(spread(real, "load")),
                ]
            )
            for what, key, target in (
                ("time", "seconds", TIME_TARGET),
                ("memory", "bytes", MEMORY_TARGET),
            ):
                off = percent_off(spread(said, key).median, spread(real, key).median)
                lines.append(f"- {name}, {what}: {verdict(off, target, at_most=True, unit=' %')}")
    report.add(
        table(
            [
                "size",
                "planned s an update",
                "real",
                "planned GB",
                "by arithmetic",
                "real GB",
                "load",
            ],
            rows,
        )
    )
    report.add("\n".join(lines))
    report.publish(args)


if __name__ == "__main__":
    main(run)
