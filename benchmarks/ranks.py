"""Ranks that share the processors of one machine: a launched run beside a single rank that has all.

Every arm is started as users start it, with no number of threads given. `--old` measures another
version's launcher in the same turns.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import (
    REPOSITORY,
    Report,
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
from benchmarks.throughput import SIZES, speed_from_metrics

OF_OLD, OF_ONE = 4.0, 0.9
"""What the ranks together are to reach of the old version's speed, and of a single rank's."""


def measure(name: str, work: Path, data: Path, args: Any) -> Mapping[str, Any]:
    """Real tokens/s of one arm."""
    folder = work / "ranks" / name.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size = SIZES[args.size]
    flags = {
        **size.flags(False),
        "batch_size": size.cpu_rows,
        "accumulation_steps": 1,
        "log_interval": 1,
        "data_path": data,
        "cache_dir": work / "cache",
        "save_dir": folder / "out",
        "checkpoint_dir": folder / "checkpoints",
        "epochs": 1000,
        "max_minutes": (args.warmup + args.seconds) / 60,
    }
    training = trainer_command(flags)
    env, code = environment(), REPOSITORY
    env.pop("OMP_NUM_THREADS", None)
    command = training
    if name != "one rank":
        launched = ["-m", "launcher", "run", "--procs", str(args.ranks), "--name", "measured"]
        command = [training[0], *launched, "--runs-dir", str(folder), "--", *training[3:]]
    if name == "old ranks":
        # Python finds modules where it is started, too: there must be the old ones.
        command[0], code = args.old, Path(args.old).parents[2]
        env["PYTHONPATH"] = str(code)
    run_process(command, env=env, cwd=code)
    return speed_from_metrics(folder / "out" / "metrics.jsonl", args.warmup)


def run() -> None:
    parser = make_parser("ranks", __doc__, "--old /clones/old/.venv/bin/python")
    parser.add_argument("--old", default="", metavar="PYTHON", help="of the version beside it")
    parser.add_argument("--size", choices=SIZES, default="256x4")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="measured")
    parser.add_argument("--warmup", type=float, default=20.0, help="seconds before, at least")
    args = parser.parse_args()
    report = Report("ranks", __doc__ or "")
    arms = ["one rank", "ranks", *(["old ranks"] if args.old else [])]
    load_before = os.getloadavg()[0]
    with work_folder(args.work_dir) as work:
        data, _ = benchmark_corpus(work)
        found = alternate(arms, lambda name: measure(name, work, data, args), args.repeats)
    report.data.update(found)
    speeds = {name: spread(runs, "tokens_per_second") for name, runs in found.items()}
    rows = [
        [name if name == "one rank" else f"{args.ranks} {name}", speed]
        for name, speed in speeds.items()
    ]
    report.add(table([f"{args.size}", "real tokens/s"], rows))
    ranks = speeds["ranks"].median
    report.add(f"Of one rank: {verdict(ranks / speeds['one rank'].median, OF_ONE)}.")
    if args.old:
        report.add(f"Of the old version: {verdict(ranks / speeds['old ranks'].median, OF_OLD)}.")
    report.add(f"Load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after.")
    report.publish(args)


if __name__ == "__main__":
    main(run)
