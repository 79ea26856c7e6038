"""Data parallelism: what more ranks give, measured on this machine's cores and on paper beyond.

Measured: one rank on one core; two such runs at once that know nothing of each other (what the
machine's shared memory and clock leave of twice the speed); two ranks of one run. DDP's
efficiency is the last over the one before it. A separate short run counts, through a DDP
communication hook, how often gradients are exchanged and how much.

On paper: the ring all-reduce of benchmarks/links.py with the measured (CPU) or given (GPU)
speed of one rank and the link speeds of data sheets, all to be set by flags.
"""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import (
    BenchmarkError,
    Report,
    alternate,
    environment,
    main,
    make_parser,
    number,
    print_result,
    read_result,
    run_process,
    spread,
    table,
    trainer_command,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.links import Link, Step, efficiency, exposed_seconds, ring_seconds
from benchmarks.throughput import SIZES, speed_from_metrics
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.planning.cards import data_sheet_peak

GBIT = 1e9 / 8


def train_flags(folder: Path, data: Path, work: Path, args: Any) -> dict[str, Any]:
    size = SIZES[args.size]
    return {
        **size.flags(False),
        "batch_size": args.batch_size or size.cpu_rows,
        "accumulation_steps": args.accumulation_steps,
        "log_interval": args.accumulation_steps,
        "data_path": data,
        "cache_dir": work / "cache",
        "save_dir": folder / "out",
        "checkpoint_dir": folder / "checkpoints",
        "epochs": 1000,
        "num_workers": 0,
        "max_minutes": (args.warmup + args.seconds) / 60,
    }


def torchrun(ranks: int, words: list[str]) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc_per_node", str(ranks), *words]


def as_module(command: list[str]) -> list[str]:
    """``python -m minimind.train_pretrain …`` without the interpreter, for torchrun."""
    return command[1:]


def count_exchanges() -> None:
    """Child process: run the trainer with a hook that counts what DDP exchanges."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    passes: list[list[int]] = [[]]
    original = DistributedDataParallel.__init__

    def counted_init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

        # Without annotations: DDP compares them with its own classes, not with their names.
        def hook(group, bucket):
            passes[-1].append(bucket.buffer().numel() * bucket.buffer().element_size())
            if bucket.is_last():
                passes.append([])
            return allreduce_hook(group, bucket)

        self.register_comm_hook(None, hook)

    DistributedDataParallel.__init__ = counted_init  # type: ignore[method-assign]
    try:
        runpy.run_module("minimind.train_pretrain", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    # DDP lays its buckets out anew after the first pass.
    last = passes[-2]
    print_result({"passes": len(passes) - 1, "buckets": len(last), "bytes": sum(last)})


def measure_speed(name: str, work: Path, data: Path, args: Any) -> Mapping[str, Any]:
    """Real tokens/s of one kind of run."""
    folder = work / "ddp" / name.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    env = environment(1)
    if name == "two ranks":
        command = trainer_command(train_flags(folder, data, work, args), args.ours_flags)
        run_process(torchrun(2, as_module(command)), env=env)
        return speed_from_metrics(folder / "out" / "metrics.jsonl", args.warmup)
    copies = 1 if name == "one rank" else 2
    folders = [folder / str(number) for number in range(copies)]
    processes = []
    for one in folders:
        one.mkdir(parents=True)
        command = trainer_command(train_flags(one, data, work, args), args.ours_flags)
        with open(one / "output.txt", "w") as output:
            processes.append(subprocess.Popen(command, env=env, stdout=output, stderr=output))
    for process, one in zip(processes, folders, strict=True):
        if process.wait():
            raise BenchmarkError(f"a run ended with {process.returncode}; see {one}/output.txt")
    found = [speed_from_metrics(one / "out" / "metrics.jsonl", args.warmup) for one in folders]
    return {"tokens_per_second": sum(one["tokens_per_second"] for one in found)}


def measure_exchanges(work: Path, data: Path, args: Any) -> dict[str, Any]:
    """How often, and how much, DDP exchanges in an optimiser step."""
    folder = work / "ddp" / "count"
    shutil.rmtree(folder, ignore_errors=True)
    updates, micro_steps = 3, 4
    flags = {**train_flags(folder, data, work, args), "max_steps": updates, "batch_size": 2}
    flags |= {"max_minutes": 10, "accumulation_steps": micro_steps, "log_interval": micro_steps}
    words = trainer_command(flags, args.ours_flags)[3:]
    command = torchrun(2, ["-m", "benchmarks.ddp", "--count_exchanges", *words])
    counted = read_result(run_process(command, env=environment(1))[0])
    # The trainer exchanges once more before the first step: its warm-up pass.
    asked = {"updates": updates, "micro_steps": micro_steps}
    return {**counted, **asked, "exchanges": counted["passes"] - 1}


def gradient_bytes(size: str) -> float:
    """float32 gradients of all parameters, tied ones once."""
    with torch.device("meta"):
        model = MiniMindForCausalLM(
            MiniMindConfig(
                hidden_size=SIZES[size].hidden_size,
                num_hidden_layers=SIZES[size].num_hidden_layers,
                use_moe=bool(SIZES[size].use_moe),
            )
        )
    return 4.0 * sum(p.numel() for p in model.parameters())


def paper_rows(args: Any, cpu_micro_step: float | None) -> list[list[Any]]:
    rows = []

    def add(what: str, step: Step, ranks: int, link: Link) -> None:
        exchange = ring_seconds(step.gradient_bytes, ranks, link)
        waited = exposed_seconds(step, ranks, link)
        share = efficiency(step, ranks, link)
        rows.append(
            [
                what,
                ranks,
                f"{link.name}, {link.bytes_per_second / 1e9:g} GB/s",
                number(step.gradient_bytes / 1e6),
                number(1000 * step.seconds),
                number(1000 * exchange),
                number(1000 * waited),
                f"{share:.1%}",
                f"{ranks * share:.1f}×",
            ]
        )

    if cpu_micro_step is not None:
        step = Step(gradient_bytes(args.size), cpu_micro_step, args.accumulation_steps)
        ethernet = Link("10 Gbit/s Ethernet", args.ethernet_gbit * GBIT, args.ethernet_latency)
        add(f"{args.size}, CPU as measured", step, 16, ethernet)
    size = SIZES[args.gpu_size]
    peak = args.gpu_peak or data_sheet_peak("H100", "bfloat16") or 0.0
    tokens = size.max_seq_len * args.gpu_batch_size
    seconds = tokens * size.flops_per_token() / (peak * args.gpu_mfu)
    nvlink = Link("NVLink", args.nvlink_gb * 1e9, args.nvlink_latency)
    infiniband = Link("one NDR port a GPU", args.infiniband_gbit * GBIT, args.infiniband_latency)
    # Eight GPUs of a node share its one Ethernet port, and the ring crosses it once.
    shared = Link("one 100 Gbit/s port a node", 100 * GBIT, args.ethernet_latency)
    for accumulation_steps in (1, 8):
        step = Step(gradient_bytes(args.gpu_size), seconds, accumulation_steps)
        what = f"{args.gpu_size}, {args.gpu_batch_size} rows × {accumulation_steps}"
        add(what, step, 8, nvlink)
        add(what, step, 64, infiniband)
        add(what, step, 64, shared)
    return rows


def run() -> None:
    if sys.argv[1:2] == ["--count_exchanges"]:
        del sys.argv[1]
        count_exchanges()
    else:
        measure_all(parse())


def parse() -> Any:
    parser = make_parser("ddp", __doc__, "--size 256x4 --gpu_mfu 0.3")
    parser.add_argument("--size", choices=SIZES, default="256x4", help="measured here")
    parser.add_argument("--batch_size", type=int, default=0, help="rows; 0: the size's own")
    parser.add_argument("--accumulation_steps", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="measured; 0: on paper only")
    parser.add_argument("--warmup", type=float, default=10.0, help="seconds before, at least")
    parser.add_argument("--ethernet_gbit", type=float, default=10.0)
    parser.add_argument("--ethernet_latency", type=float, default=5e-5, metavar="SECONDS")
    parser.add_argument("--gpu_size", choices=SIZES, default="768x16")
    parser.add_argument("--gpu_batch_size", type=int, default=32, help="rows of a micro-step")
    parser.add_argument(
        "--gpu_mfu", type=float, default=0.3, help="of one GPU alone (0.3: measured on an H100)"
    )
    parser.add_argument("--gpu_peak", type=float, help="FLOP/s in bf16; default: an H100's")
    parser.add_argument("--nvlink_gb", type=float, default=450.0, help="GB/s, one way")
    parser.add_argument("--nvlink_latency", type=float, default=5e-6, metavar="SECONDS")
    parser.add_argument("--infiniband_gbit", type=float, default=400.0, help="a GPU")
    parser.add_argument("--infiniband_latency", type=float, default=1e-5, metavar="SECONDS")
    parser.add_argument("--ours_flags", default="", help="more flags for our trainer, in one word")
    return parser.parse_args()


def measure_all(args: Any) -> None:
    report = Report("ddp", __doc__ or "")
    cpu_micro_step = None
    if args.seconds:
        with work_folder(args.work_dir) as work:
            data, _ = benchmark_corpus(work)
            names = ["one rank", "two runs apart", "two ranks"]
            runs = alternate(names, lambda n: measure_speed(n, work, data, args), args.repeats)
            counted = measure_exchanges(work, data, args)
        speeds = {name: spread(found, "tokens_per_second") for name, found in runs.items()}
        one, apart, two = (speeds[name].median for name in names)
        rows = [
            ["one rank", str(speeds[names[0]]), "1.00×", ""],
            ["two runs that share nothing", str(speeds[names[1]]), f"{apart / one:.2f}×", ""],
            ["two ranks", str(speeds[names[2]]), f"{two / one:.2f}×", f"{two / apart:.1%}"],
        ]
        columns = ["on one core each", "real tok/s: median (min–max)", "speed-up", "DDP efficiency"]
        report.add(table(columns, rows))
        report.add(
            f"Gradients were exchanged {counted['exchanges']} times in {counted['updates']} "
            f"optimiser steps of {counted['micro_steps']} micro-steps, each time in "
            f"{counted['buckets']} buckets of {counted['bytes'] / 1e6:.1f} MB together "
            "(float32 gradients are "
            f"{gradient_bytes(args.size) / 1e6:.1f} MB)."
        )
        rows_a_step = args.batch_size or SIZES[args.size].cpu_rows
        cpu_micro_step = rows_a_step * SIZES[args.size].max_seq_len / one
        report.data.update(runs=runs, exchanges=counted)
    columns = ["on paper", "ranks", "slowest link", "gradients MB", "step ms", "all-reduce ms"]
    report.add(
        table(
            [*columns, "waited for ms", "efficiency", "speed-up"], paper_rows(args, cpu_micro_step)
        )
    )
    report.publish(args)


if __name__ == "__main__":
    main(run)
