"""What each part of the fast path brings: our trainer, with one part taken away at a time.

- as it is: the defaults
- every other line: the same without what it names

All train the same corpus with rows of the same length and as many rows a step. The runs
alternate; each run's warm-up (imports, data, compilation, then --warmup seconds) is not
measured. Speeds are real (non-padding) tokens per second.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Report,
    alternate,
    environment,
    main,
    make_parser,
    number,
    run_process,
    say,
    spread,
    table,
    trainer_command,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.throughput import SIZES, Size, speed_from_metrics
from minimind.distributed.device import has_bfloat16, pick_device

WHOLE = "as it is"


@dataclass(frozen=True)
class Without:
    """A part of the fast path, and how a user turns it off."""

    flags: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


CPU_PARTS = {
    "compilation": Without("--compile off"),
    "attention by matrix products": Without("--attention sdpa"),
    "queries in blocks": Without("--attention eager"),
    # Any setting of glibc's allocator keeps ours away; this one is its default.
    "freed memory kept": Without(environment={"MALLOC_PERTURB_": "0"}),
    "packed rows": Without("--pack none"),
    "bfloat16": Without("--dtype float32"),
}
GPU_PARTS = {
    "compilation": Without("--compile off"),
    "attention by blocks": Without("--attention sdpa"),
    "packed rows": Without("--pack none"),
    "bfloat16": Without("--dtype float32"),
}


def measure(args: Any, work: Path, data: Path, size: Size, part: Without) -> dict[str, Any]:
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    on_gpu = pick_device().type != "cpu"
    command = trainer_command(
        {
            **size.flags(on_gpu),
            "accumulation_steps": 1,
            "data_path": data,
            "cache_dir": work / "cache",
            "save_dir": run / "out",
            "checkpoint_dir": run / "checkpoints",
            "epochs": 1000,
            "max_minutes": (args.warmup + args.seconds) / 60,
            # A line of the log waits for a GPU.
            "log_interval": 20 if on_gpu else 1,
        },
        part.flags,
    )
    run_process(command, env={**environment(args.threads), **part.environment})
    result = speed_from_metrics(run / "out" / "metrics.jsonl", args.warmup)
    say(f"  {result['tokens_per_second']:,.0f} real tok/s over {result['seconds']:.0f} s")
    return result


def run() -> None:
    parser = make_parser("ablation", __doc__, "--sizes 256x4 512x8")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["256x4", "512x8"])
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in each run")
    parser.add_argument("--warmup", type=float, default=15.0, help="seconds before, at least")
    parser.add_argument("--data_path", default="", metavar="FILE", help="jsonl, not the sample")
    parser.add_argument("--threads", type=int, help="cores that the trainer computes on")
    args = parser.parse_args()
    device = pick_device()
    parts = {WHOLE: Without(), **(CPU_PARTS if device.type == "cpu" else GPU_PARTS)}
    if not has_bfloat16(device):
        del parts["bfloat16"]  # Such a device computes in another precision by itself.
    report = Report("ablation", __doc__ or "")
    rows = []
    with work_folder(args.work_dir) as work:
        data = Path(args.data_path).resolve() if args.data_path else benchmark_corpus(work)[0]
        for name in args.sizes:
            say(f"{name}: {SIZES[name]}")

            def run_without(part: str, size: Size = SIZES[name]) -> dict[str, Any]:
                return measure(args, work, data, size, parts[part])

            runs = alternate(list(parts), run_without, args.repeats)
            whole = spread(runs[WHOLE], "tokens_per_second").median
            for part, found in runs.items():
                speed = spread(found, "tokens_per_second")
                brings = "" if part == WHOLE else f"{number(whole / speed.median)}×"
                label = part if part == WHOLE else f"without {part}"
                memory = spread(found, "memory_gb").median
                rows.append([name, label, str(speed), brings, memory])
            report.data[name] = {part: list(map(dict, found)) for part, found in runs.items()}
    columns = ["size", "trainer", "real tok/s: median (min–max)", "it brings", "host GB"]
    report.add(table(columns, rows))
    report.publish(args)


if __name__ == "__main__":
    main(run)
