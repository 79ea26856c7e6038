"""Real (non-padding) tokens per second: our trainer against its peers, on the same work.

- ours: `python -m minimind.train_pretrain` with its defaults, from its metrics.jsonl
- upstream: upstream MiniMind's own train_pretrain.py, unchanged (--upstream DIR, your clone)
- hf: Hugging Face Trainer with Qwen3ForCausalLM; packed rows, bf16, compiled
- plain: a plain PyTorch loop with Qwen3ForCausalLM; packed rows, bf16, compiled

In the rows that hf and plain pack, documents see each other, which spares them a mask; in ours
they do not. All train the same corpus with the same tokenizer, rows of the same length and as many
rows a step; on a CPU without bf16, hf and plain compute in fp32, as ours does by itself. The
runs alternate. Each run's warm-up (imports, data, compilation, then --warmup seconds) is not
measured. MFU is real tokens/s · FLOPs per token / peak, for all alike.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
    number,
    read_result,
    run_process,
    say,
    spread,
    table,
    trainer_command,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus, padding
from benchmarks.peak import best_rate, precisions
from benchmarks.peers.upstream import check_clone, scratch_folder
from minimind.data.tokenizer import tokenizer_folder
from minimind.distributed.device import device_name, pick_device
from minimind.model import MiniMindConfig
from minimind.planning.cards import data_sheet_peak
from minimind.planning.flops import flops_per_token
from minimind.rundir.metrics import read_metrics
from minimind.system.process import available_cores

PEERS = ("upstream", "hf", "plain")


@dataclass(frozen=True)
class Size:
    """One model at one row length, and what is expected of it on a CPU and on a GPU."""

    hidden_size: int
    num_hidden_layers: int
    max_seq_len: int
    use_moe: int
    cpu_rows: int
    gpu_rows: int
    cpu_target: float | None
    """Least ratio to upstream on a CPU."""

    def flags(self, on_gpu: bool) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "max_seq_len": self.max_seq_len,
            "use_moe": self.use_moe,
            "batch_size": self.gpu_rows if on_gpu else self.cpu_rows,
        }

    def flops_per_token(self) -> float:
        config = MiniMindConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            use_moe=bool(self.use_moe),
        )
        return flops_per_token(config, self.max_seq_len)


SIZES = {
    "256x4": Size(256, 4, 256, 0, cpu_rows=16, gpu_rows=128, cpu_target=2.6),
    "512x8": Size(512, 8, 512, 0, cpu_rows=8, gpu_rows=64, cpu_target=4.0),
    "768x16": Size(768, 16, 512, 0, cpu_rows=4, gpu_rows=64, cpu_target=None),
    "moe512x8": Size(512, 8, 512, 1, cpu_rows=8, gpu_rows=64, cpu_target=5.0),
}
GPU_UPSTREAM_TARGET, GPU_MFU_TARGET, PEER_TARGET = 3.0, 45.0, 1.05


def speed_from_metrics(path: Path, warmup_seconds: float) -> dict[str, Any]:
    """Real tokens per second of a run between its first point after the warm-up and its last.

    Every point counts the tokens since the point before it; whatever the run did in between
    (checkpoints, logging) is in its time.

    Raises:
        BenchmarkError: fewer than two points are left.
    """
    points = [p for p in read_metrics(path) if "tokens_per_second" in p]
    if points:
        began = points[0]["time"] - points[0]["elapsed_seconds"]
        points = [p for p in points if p["time"] - began >= warmup_seconds]
    if len(points) < 2:
        raise BenchmarkError(f"{path}: no two points after the warm-up; raise --seconds")
    tokens = sum(p["tokens_per_second"] * p["elapsed_seconds"] for p in points[1:])
    seconds = points[-1]["time"] - points[0]["time"]
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "warmup_seconds": points[0]["time"] - began,
        "memory_gb": points[-1].get("host_memory_gb", 0.0),
    }


class Runner:
    """Starts each trainer once at a size and reads its speed."""

    def __init__(self, args: Any, work: Path, data: Path, on_gpu: bool) -> None:
        self.args = args
        self.work = work
        self.data = data
        self.on_gpu = on_gpu
        self.cache = str(work / "cache")
        self.accumulation_steps = args.accumulation_steps or (8 if on_gpu else 1)

    def measure(self, size: Size, name: str) -> Mapping[str, Any]:
        flags = {**size.flags(self.on_gpu), "accumulation_steps": self.accumulation_steps}
        if name == "ours":
            result = self._ours(flags)
        elif name == "upstream":
            result = self._upstream(flags)
        else:
            result = self._peer({"hf": "hf_trainer", "plain": "plain_loop"}[name], flags)
        say(f"  {result['tokens_per_second']:,.0f} real tok/s over {result['seconds']:.0f} s")
        return result

    def _ours(self, flags: dict[str, Any]) -> Mapping[str, Any]:
        run = self.work / "ours"
        shutil.rmtree(run, ignore_errors=True)
        minutes = (self.args.warmup + self.args.seconds) / 60
        updates_per_line = 20 if self.on_gpu else 1
        command = trainer_command(
            {
                **flags,
                "data_path": self.data,
                "cache_dir": self.cache,
                "save_dir": run / "out",
                "checkpoint_dir": run / "checkpoints",
                "epochs": 1000,
                "max_minutes": minutes,
                "log_interval": self.accumulation_steps * updates_per_line,
            },
            self.args.ours_flags,
        )
        run_process(command, env=environment(self.args.threads))
        return speed_from_metrics(run / "out" / "metrics.jsonl", self.args.warmup)

    def _upstream(self, flags: dict[str, Any]) -> Mapping[str, Any]:
        folder = scratch_folder(self.work / "upstream", tokenizer_folder())
        given = {
            **flags,
            "upstream": Path(self.args.upstream).resolve(),
            "warmup_seconds": self.args.warmup,
            "seconds": self.args.seconds,
            "data_path": self.data,
            "epochs": 1000,
            "num_workers": min(8, available_cores()),
        }
        command = [sys.executable, "-m", "benchmarks.peers.upstream"]
        command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
        output, _ = run_process(command, env=self._peer_environment(), cwd=folder)
        return read_result(output)

    def _peer(self, module: str, flags: dict[str, Any]) -> Mapping[str, Any]:
        given = {
            **flags,
            "warmup_seconds": self.args.warmup,
            "seconds": self.args.seconds,
            "data_path": self.data,
            "cache_dir": self.cache,
        }
        command = [sys.executable, "-m", f"benchmarks.peers.{module}"]
        command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
        output, _ = run_process(command, env=self._peer_environment(), cwd=self.work)
        return read_result(output)

    def _peer_environment(self) -> dict[str, str]:
        home = {"HF_HOME": str(self.work / "huggingface"), "HF_HUB_OFFLINE": "1"}
        return environment(self.args.threads, peers=True, **home)


def rows_of(
    name: str,
    size: Size,
    runs: Mapping[str, list[Mapping[str, Any]]],
    peaks: Mapping[str, float],
) -> list[list[Any]]:
    """The table's rows for one size: ours first, with its ratios to the others."""
    speeds = {who: spread(found, "tokens_per_second") for who, found in runs.items()}
    flops = size.flops_per_token()
    rows = []
    for who, speed in speeds.items():
        ratio = ""
        if who != "ours" and "ours" in speeds:
            ratio = f"{number(speeds['ours'].median / speed.median)}×"
        mfu = [f"{100 * speed.median * flops / peak:.1f} %" for peak in peaks.values()]
        memory = spread(runs[who], "memory_gb").median
        warmup = spread(runs[who], "warmup_seconds").median
        rows.append([name, who, str(speed), ratio, *mfu, f"{memory:.2f}", f"{warmup:.0f}"])
    return rows


def verdicts(
    name: str, size: Size, speeds: Mapping[str, Spread], peaks: Mapping[str, float], on_gpu: bool
) -> list[str]:
    """What was asked of this size, each with its figure, met or missed."""
    if "ours" not in speeds:
        return []
    ours = speeds["ours"].median
    lines = []
    target = GPU_UPSTREAM_TARGET if on_gpu else size.cpu_target
    if "upstream" in speeds and target is not None:
        lines.append(f"ours / upstream: {verdict(ours / speeds['upstream'].median, target)}")
    others = [speed.median for who, speed in speeds.items() if who != "ours"]
    if others:
        lines.append(f"ours / best peer: {verdict(ours / max(others), PEER_TARGET)}")
    if on_gpu and name == "768x16":
        # As the field counts it: of the data sheet's peak, where that is known.
        peak = peaks.get("data sheet", peaks["measured"])
        mfu = 100 * ours * size.flops_per_token() / peak
        lines.append(f"MFU: {verdict(mfu, GPU_MFU_TARGET, unit=' %')}")
    return [f"- {name}: {line}" for line in lines]


def run() -> None:
    parser = make_parser(
        "throughput", __doc__, "--upstream ../minimind --sizes 256x4 512x8 --seconds 60"
    )
    parser.add_argument("--upstream", default="", metavar="DIR", help="a clone of MiniMind")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=60.0, help="measured in each run")
    parser.add_argument("--warmup", type=float, default=20.0, help="seconds before, at least")
    parser.add_argument("--data_path", default="", metavar="FILE", help="jsonl, not the sample")
    parser.add_argument(
        "--accumulation_steps", type=int, default=0, help="0: 1 on a CPU, 8 on a GPU"
    )
    parser.add_argument("--threads", type=int, help="cores that each trainer computes on")
    parser.add_argument("--ours_flags", default="", help="more flags for our trainer, in one word")
    args = parser.parse_args()

    names = ["ours", *args.peers]
    if "upstream" in names and not args.upstream:
        say("no --upstream DIR: upstream's own trainer is left out")
        names.remove("upstream")
    if args.upstream:
        try:
            check_clone(Path(args.upstream))
        except FileNotFoundError as error:
            raise BenchmarkError(str(error)) from None
    device = pick_device()
    on_gpu = device.type != "cpu"
    dtype = precisions(device)[-1]
    peaks = {"measured": best_rate(dtype, device)}
    if on_gpu:
        sheet = data_sheet_peak(device_name(device), str(dtype)[6:])
        peaks |= {"data sheet": sheet} if sheet else {}
    report = Report("throughput", __doc__ or "")
    rows: list[list[Any]] = []
    lines: list[str] = []
    with work_folder(args.work_dir) as work:
        data = Path(args.data_path).resolve() if args.data_path else benchmark_corpus(work)[0]
        runner = Runner(args, work, data, on_gpu)
        for name in args.sizes:
            size = SIZES[name]
            say(f"{name}: {size}")
            runs = alternate(names, partial(runner.measure, size), args.repeats)
            rows += rows_of(name, size, runs, peaks)
            speeds = {who: spread(found, "tokens_per_second") for who, found in runs.items()}
            lines += verdicts(name, size, speeds, peaks, on_gpu)
            report.data[name] = {who: list(map(dict, found)) for who, found in runs.items()}
        lengths = sorted({SIZES[name].max_seq_len for name in args.sizes})
        corpus = [f"rows of {n}: {padding(data, n, runner.cache)}" for n in lengths]
    mfu_columns = [f"MFU of {name} peak" for name in peaks]
    columns = ["size", "trainer", "real tok/s: median (min–max)", "ours is", *mfu_columns]
    report.add(table([*columns, "host GB", "warm-up s"], rows))
    report.add("\n".join(lines))
    shown = ", ".join(f"{number(peak / 1e9)} GFLOP/s ({name})" for name, peak in peaks.items())
    report.add(f"Peak in {str(dtype)[6:]}: {shown}. Corpus: {'; '.join(corpus)}.")
    if not on_gpu:
        report.add("Not run here: a GPU, which this machine lacks. The command there is the same.")
    report.data["peak_flops"] = peaks
    report.publish(args)


if __name__ == "__main__":
    main(run)
