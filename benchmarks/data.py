"""The data pipeline: tokenising speed, memory, start-up with a warm store, starvation.

Tokenising is our whole build (read, parse, encode, write, sync) beside the tokenizers
library's own `encode_batch_fast` over texts that are in memory already, on as many cores:
what the library can do at best. Both in a fresh process, after its imports; the runs alternate.

Memory is the sum over all processes of the build (proportional set size, so that shared pages
count once), polled, on a file of --big_gb made from real text, and on the same text in each
of --formats. Their speed is that of our build beside that of jsonl, in turns. The warm start
opens the jsonl file's store and row plan in a fresh process. Starvation is the share of a real
training run's time that its steps wait for data.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import (
    BenchmarkError,
    Report,
    alternate,
    environment,
    main,
    make_parser,
    print_result,
    read_result,
    run_process,
    say,
    spread,
    table,
    trainer_command,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.formats import WRITERS, rewritten
from minimind.rundir.metrics import read_metrics
from minimind.system.process import available_cores

MEMORY_TARGET, START_TARGET, WAIT_TARGET, SPEED_TARGET = 600.0, 1.0, 1.0, 0.9


def build(data: Path, cache: Path, workers: int) -> None:
    """Child process: tokenise ``data`` into a store."""
    from minimind.data.tokenize.build import open_corpus
    from minimind.data.tokenizer import load_tokenizer

    load_tokenizer("")  # its imports: a training run has them anyway
    start = time.perf_counter()
    store = open_corpus([str(data)], cache_dir=str(cache), n_workers=workers)
    seconds = time.perf_counter() - start
    print_result({"mb_per_second": store.n_bytes / 1e6 / seconds, "seconds": seconds})


def encode(data: Path) -> None:
    """Child process: the tokenizers library alone, on RAYON_NUM_THREADS threads."""
    from tokenizers import Tokenizer

    from minimind.data.tokenizer import tokenizer_folder

    tokenizer = Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json"))
    with open(data, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    n_bytes = sum(len(text.encode()) for text in texts)
    start = time.perf_counter()
    for first in range(0, len(texts), 1000):
        tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
    seconds = time.perf_counter() - start
    print_result({"mb_per_second": n_bytes / 1e6 / seconds, "seconds": seconds})


def open_warm(data: Path, cache: Path) -> None:
    """Child process: what a training run does with a store that exists."""
    from minimind.data.packing import plan_rows
    from minimind.data.tokenize.build import open_corpus

    start = time.perf_counter()
    plan = plan_rows(open_corpus([str(data)], cache_dir=str(cache)), 512)
    seconds = time.perf_counter() - start
    print_result({"seconds": seconds, "rows": plan.n_rows, "tokens": plan.store.n_tokens})


def child(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.data", "--child", *map(str, words)]


def enlarge(source: Path, target: Path, size: int) -> None:
    """Write ``size`` bytes of jsonl: documents made of the source's lines in new orders."""
    with open(source, encoding="utf-8") as file:
        lines = [line for row in file for line in json.loads(row)["text"].split("\n") if line]
    generator = random.Random(0)
    written = 0
    with open(target, "w", encoding="utf-8") as out:
        while written < size:
            generator.shuffle(lines)
            it = iter(lines)
            while document := list(itertools.islice(it, generator.randint(2, 30))):
                row = json.dumps({"text": "\n".join(document)}, ensure_ascii=False) + "\n"
                written += len(row.encode())
                out.write(row)


def peak_memory(command: list[str], env: Mapping[str, str]) -> tuple[str, float]:
    """Run a program; return its output and the largest sum of its processes' PSS, in MB.

    Raises:
        BenchmarkError: it failed.
    """
    process = subprocess.Popen(
        command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    root = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        total = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                total += one.memory_full_info().pss
        except psutil.Error:  # one has just ended: this sample is not whole
            continue
        finally:
            peak = max(peak, total)
            time.sleep(0.1)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise BenchmarkError(f"the build ended with {process.returncode}:\n{output[-2000:]}")
    return output, peak / 1e6


def waiting_share(folder: Path, data: Path, cache: Path, args: Any) -> dict[str, float]:
    """A real training run; the percentage of its time that steps waited for their batch."""
    shutil.rmtree(folder, ignore_errors=True)
    flags = {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "max_seq_len": 256,
        "batch_size": 16,
        "accumulation_steps": 1,
        "data_path": data,
        "cache_dir": cache,
        "save_dir": folder / "out",
        "checkpoint_dir": folder / "checkpoints",
        "log_interval": 5,
        "epochs": 1000,
        "max_minutes": args.seconds / 60,
    }
    run_process(trainer_command(flags, args.ours_flags))
    # The first points have the loader's start and compilation in them.
    points = [p for p in read_metrics(folder / "out" / "metrics.jsonl") if "loss" in p][2:]
    if not points:
        raise BenchmarkError("the run was too short; raise --seconds")
    elapsed = sum(p["elapsed_seconds"] for p in points)
    return {"percent": 100 * sum(p["data_seconds"] for p in points) / elapsed}


def run() -> None:
    parser = make_parser("data", __doc__, "--big_gb 2")
    parser.add_argument("--speed_mb", type=float, default=100.0, help="size of the speed test")
    parser.add_argument(
        "--big_gb", type=float, default=2.0, help="size of the memory test; 0: skip"
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of the starvation test; 0: skip"
    )
    parser.add_argument(
        "--formats", nargs="*", choices=list(WRITERS), default=["parquet"], help="besides jsonl"
    )
    parser.add_argument("--ours_flags", default="", help="more flags for our trainer, in one word")
    parser.add_argument("--child", nargs="+", help="(what this program calls itself with)")
    args = parser.parse_args()
    if args.child:
        serve(*args.child)
    else:
        measure_all(args)


def serve(name: str, data: str, cache: str = "", workers: str = "1") -> None:
    """Be the child process that this program calls."""
    if name == "build":
        build(Path(data), Path(cache), int(workers))
    elif name == "encode":
        encode(Path(data))
    else:
        open_warm(Path(data), Path(cache))


def measure_all(args: Any) -> None:
    report = Report("data", __doc__ or "")
    cores = available_cores()
    with work_folder(args.work_dir) as work:
        sample, _ = benchmark_corpus(work)
        speed_file = work / f"speed{args.speed_mb:g}mb.jsonl"
        if not speed_file.exists():
            enlarge(sample, speed_file, int(args.speed_mb * 1e6))
        cache = work / "speed-cache"

        def measure(name: str) -> Mapping[str, Any]:
            who, _, threads = name.partition(" on ")
            count = int(threads.split()[0])
            if who == "ours":
                shutil.rmtree(cache, ignore_errors=True)
                words = child("build", speed_file, cache, count)
                return read_result(run_process(words, env=environment())[0])
            env = environment(RAYON_NUM_THREADS=str(count), TOKENIZERS_PARALLELISM="true")
            return read_result(run_process(child("encode", speed_file), env=env)[0])

        counts = sorted({1, cores})
        names = [f"{who} on {n} cores" for n in counts for who in ("ours", "library")]
        runs = alternate(names, measure, args.repeats)
        rows, lines = [], []
        for name, found in runs.items():
            speed = spread(found, "mb_per_second")
            count = int(name.partition(" on ")[2].split()[0])
            rows.append([name, str(speed), speed.median / count])
        report.add(table(["tokenising", "MB/s: median (min–max)", "MB/s a core"], rows))
        ours, library = (
            spread(runs[f"{who} on {cores} cores"], "mb_per_second").median
            for who in ("ours", "library")
        )
        lines.append(
            f"- ours / library alone on {cores} cores: {verdict(ours / library, SPEED_TARGET)}"
        )
        report.data["speed"] = runs
        if args.formats:
            lines += formats(speed_file, cache, args, report)
        if args.big_gb:
            lines += big_file(work, sample, args, report)
        if args.seconds:
            lines.append(starvation(work, sample, args, report))
        report.add("\n".join(lines))
    report.publish(args)


def formats(jsonl: Path, cache: Path, args: Any, report: Report) -> list[str]:
    """The same text in other formats, beside jsonl."""
    files = {"jsonl": jsonl, **{name: rewritten(jsonl, name) for name in args.formats}}

    def measure(name: str) -> Mapping[str, Any]:
        shutil.rmtree(cache, ignore_errors=True)
        words = child("build", files[name], cache, available_cores())
        return read_result(run_process(words, env=environment())[0])

    runs = alternate(list(files), measure, args.repeats)
    report.data["formats"] = runs
    speeds = {name: spread(found, "mb_per_second") for name, found in runs.items()}
    report.add(
        table(
            ["format", "MB/s of text: median (min–max)"],
            [[name, str(speed)] for name, speed in speeds.items()],
        )
    )
    return [
        f"- {name} / jsonl: {verdict(speeds[name].median / speeds['jsonl'].median, SPEED_TARGET)}"
        for name in args.formats
    ]


def starvation(work: Path, sample: Path, args: Any, report: Report) -> str:
    """What the step waits for its rows; a run too short to tell costs no other result."""
    try:
        shares = [
            waiting_share(work / "waiting", sample, work / "cache", args)
            for _ in range(args.repeats)
        ]
    except BenchmarkError as error:
        return f"- training at 256×4 waits for data: not measured ({error})"
    share = spread(shares, "percent")
    report.data["waiting"] = shares
    line = verdict(share.median, WAIT_TARGET, at_most=True, unit=" %")
    return f"- training at 256×4 waits for data {share} % of its time: {line}"


def big_file(work: Path, sample: Path, args: Any, report: Report) -> list[str]:
    """Memory of the build of a large file, and a start with its store."""
    big = work / f"big{args.big_gb:g}gb.jsonl"
    if not big.exists():
        say(f"writing {args.big_gb:g} GB of text")
        enlarge(sample, big, int(args.big_gb * 1e9))
    cache = work / "big-cache"
    shutil.rmtree(cache, ignore_errors=True)
    say("tokenising it")
    output, memory = peak_memory(child("build", big, cache, available_cores()), environment())
    built = read_result(output)
    warm_command = child("warm", big, cache)
    read_result(run_process(warm_command)[0])  # lays out the rows, once
    warm = [read_result(run_process(warm_command)[0]) for _ in range(args.repeats)]
    start = spread(warm, "seconds")
    report.data["big"] = {"memory_mb": memory, "build": built, "warm": warm}
    memory_line = verdict(memory, MEMORY_TARGET, at_most=True, unit=" MB")
    start_line = verdict(start.median, START_TARGET, at_most=True, unit=" s")
    others = [big_format(rewritten(big, name), name, cache, report) for name in args.formats]
    return [
        f"- building a store of {args.big_gb:g} GB: {built['seconds']:.0f} s, "
        f"{built['mb_per_second']:.1f} MB/s of text; peak memory of all processes {memory_line}",
        f"- opening that store and its {warm[0]['rows']:,} rows: {start} s, {start_line}",
        *others,
    ]


def big_format(big: Path, name: str, cache: Path, report: Report) -> str:
    """Memory of the build of a large file of another format."""
    shutil.rmtree(cache, ignore_errors=True)
    say(f"tokenising it as {name}")
    output, memory = peak_memory(child("build", big, cache, available_cores()), environment())
    report.data.setdefault("big formats", {})[name] = {"memory_mb": memory}
    memory_line = verdict(memory, MEMORY_TARGET, at_most=True, unit=" MB")
    speed = read_result(output)["mb_per_second"]
    return f"- the same as {name}: {speed:.1f} MB/s of text; peak memory {memory_line}"


if __name__ == "__main__":
    main(run)
