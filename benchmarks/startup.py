"""How long a run takes from the start of its process to its first step, and on a resume.

The split (imports, data, model, compile …) is what the trainer itself records in its `started`
event; the first step ends when its point is in metrics.jsonl. The token store is warm, as in
every start but the first, and so is the compile cache unless --cold_compile.

The second table resumes in an epoch of --rows rows (one short document each, a store built by
the real tokeniser), from a real checkpoint: as saved after one step, and with its position
moved to 99 % of the epoch.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
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
from minimind.rundir.metrics import read_metrics

SIZES = {
    "256x4": {"hidden_size": 256, "num_hidden_layers": 4, "max_seq_len": 256, "batch_size": 16},
    "512x8": {"hidden_size": 512, "num_hidden_layers": 8, "max_seq_len": 512, "batch_size": 8},
    "768x16": {"hidden_size": 768, "num_hidden_layers": 16, "max_seq_len": 512, "batch_size": 4},
}
TINY = {"hidden_size": 64, "num_hidden_layers": 1, "max_seq_len": 16, "batch_size": 8}
"""The model of the resume: what takes time there is the data, not the model."""

WARM_STORE_TARGET = 1.0
"""Seconds for the data part of a start."""


def start_once(folder: Path, flags: Mapping[str, Any], extra: str, steps: int) -> dict[str, float]:
    """Run to ``steps`` optimiser steps in all; return the seconds of each part of the start."""
    events = folder / "events.jsonl"
    events.unlink(missing_ok=True)
    command = trainer_command(
        {
            "accumulation_steps": 1,
            "log_interval": 1,
            "max_steps": steps,
            "save_dir": folder / "out",
            "checkpoint_dir": folder / "checkpoints",
            **flags,
        },
        extra,
    )
    env = environment(MINIMIND_EVENTS=str(events), TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"))
    began = time.time()
    run_process(command, env=env)
    started = next(e for e in read_jsonl(events) if e["event"] == "started")
    points = [p for p in read_metrics(folder / "out" / "metrics.jsonl") if "loss" in p]
    first = next(p["time"] for p in points if p["time"] >= began)
    parts = dict(started["seconds"])
    parts["first step"] = first - started["time"]
    parts["total"] = first - began
    return parts


def short_documents(path: Path, n_rows: int) -> None:
    """Write ``n_rows`` documents of a few words each from a list of common words."""
    words = "the a of to in is it for on with that as by this be are from or an not".split()
    generator = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, n_rows, 100_000):
            count = min(100_000, n_rows - start)
            lines = (" ".join(generator.choices(words, k=5)) for _ in range(count))
            file.writelines(f'{{"text": "{line}"}}\n' for line in lines)


def move_checkpoint(source: Path, target: Path, share: float, n_rows: int) -> int:
    """Copy a checkpoint with its position at ``share`` of the epoch; return its optimiser step."""
    from minimind.checkpoint.state import TrainState
    from minimind.checkpoint.store import load_checkpoint, save_tensors

    state = TrainState.from_dict(load_checkpoint(source), source)
    batch_size = state.rows_per_update
    step = max(1, int(n_rows * share) // batch_size)
    progress = replace(state.progress, step=step, rows_done=step * batch_size, global_step=step)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(replace(state, progress=progress).to_dict(), target)
    return step


def measure_resume(work: Path, n_rows: int, repeats: int) -> dict[str, list[Mapping[str, Any]]]:
    data = work / f"rows{n_rows}.jsonl"
    if not data.exists():
        say(f"writing {n_rows:,} short documents")
        short_documents(data, n_rows)
    flags = {
        **TINY,
        "data_path": data,
        "pack": "none",
        "num_workers": 0,
        "cache_dir": work / "cache",
        "from_resume": "1",
    }
    first = work / "resume" / "first"
    say("tokenising them, once, and training one step")
    start_once(first, {**flags, "from_resume": "0"}, "", steps=1)
    saved = first / "checkpoints" / "pretrain_64.pt"
    if not saved.exists():
        raise BenchmarkError(f"no checkpoint {saved}")

    def measure(name: str) -> Mapping[str, Any]:
        share = {"0 %": 0.0, "99 %": 0.99}[name]
        folder = work / "resume" / name.replace(" %", "")
        shutil.rmtree(folder, ignore_errors=True)
        moved = folder / "checkpoints" / saved.name
        step = move_checkpoint(saved, moved, share, n_rows)
        return start_once(folder, flags, "", steps=step + 1)

    return alternate(["0 %", "99 %"], measure, repeats)


def run() -> None:
    parser = make_parser("startup", __doc__, "--sizes 512x8 --rows 10000000")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["256x4", "512x8"])
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="of the resumed epoch; 0: skip"
    )
    parser.add_argument("--cold_compile", action="store_true", help="empty the compile cache")
    parser.add_argument("--data_path", default="", metavar="FILE", help="jsonl, not the sample")
    parser.add_argument("--ours_flags", default="", help="more flags for our trainer, in one word")
    args = parser.parse_args()
    report = Report("startup", __doc__ or "")
    with work_folder(args.work_dir) as work:
        data = Path(args.data_path).resolve() if args.data_path else benchmark_corpus(work)[0]

        def measure(name: str) -> Mapping[str, Any]:
            folder = work / "start" / name
            if args.cold_compile:
                shutil.rmtree(folder / "inductor", ignore_errors=True)
            flags = {**SIZES[name], "data_path": data, "cache_dir": work / "cache"}
            return start_once(folder, flags, args.ours_flags, steps=1)

        if args.sizes:
            for name in args.sizes:
                say(f"{name}: a first start, which fills the caches")
                measure(name)
            runs = alternate(args.sizes, measure, args.repeats)
            report.add(parts_table("size", runs))
            report.data["start"] = runs
        if args.rows:
            resumes = measure_resume(work, args.rows, args.repeats)
            report.add(parts_table(f"resumed at, of {args.rows:,} rows", resumes))
            after = {
                name: Spread.of([run["total"] - run["imports"] for run in found])
                for name, found in resumes.items()
            }
            report.add(
                f"Seconds after the imports, resumed at 0 %: {after['0 %']}; at 99 %: "
                f"{after['99 %']}."
            )
            data_part = max(spread(found, "data").median for found in resumes.values())
            line = verdict(data_part, WARM_STORE_TARGET, at_most=True, unit=" s")
            report.add(f"Opening the warm store of {args.rows:,} documents: {line}.")
            report.data["resume"] = resumes
    report.publish(args)


def parts_table(first_column: str, runs: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """Seconds of each part, a row for each kind of start."""
    parts = list(next(iter(runs.values()))[0])
    rows = [[name, *(str(spread(found, part)) for part in parts)] for name, found in runs.items()]
    return table([first_column, *(f"{part} s" for part in parts)], rows)


if __name__ == "__main__":
    main(run)
