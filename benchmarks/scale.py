"""What grows, and how: ranks, runs, a sweep, an event log, a corpus. Anyone can rerun it.

    .venv/bin/python benchmarks/scale.py            all parts, at the sizes of docs/reliability.md
    .venv/bin/python benchmarks/scale.py runs --sizes 100,1000,10000

Each line: the part, its size, what was done, seconds, and the memory of the process that did it.
Every measurement runs in a process of its own, so that memory is its own, too. Nothing here
needs a GPU, a cluster or a network.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZES = {
    "ranks": [8, 64, 128],
    "runs": [100, 1000, 4000],
    "sweep": [100, 500, 1000],
    "events": [1000, 10_000, 100_000],
    "corpus": [1_000_000, 10_000_000, 40_000_000],
}
ROUNDS = 200
Line = tuple[str, float]
"""What was done, and its seconds."""


@contextlib.contextmanager
def timed(lines: list[Line], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    lines.append((what, time.perf_counter() - start))


def ranks(size: int, folder: Path) -> list[Line]:
    """Stop agreement, event log and folder lock over real gloo between ``size`` processes."""
    import torch
    import torch.distributed as dist

    from minimind.checkpoint.run_lock import FolderLock
    from minimind.distributed.stop_consensus import Agreement
    from minimind.distributed.world import World
    from minimind.errors import ConfigError
    from minimind.rundir.events import EventLog
    from minimind.system.process import free_port

    torch.set_num_threads(1)
    port = free_port()

    def rank(number: int) -> None:
        lines: list[Line] = []
        with timed(lines, "all ranks meet (gloo)"):
            dist.init_process_group(
                "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=size
            )
            world = World(number, size, number, torch.device("cpu"))
            agreement = Agreement(size)
        dist.barrier()
        start = time.perf_counter()
        stopped_at = -1
        for step in range(ROUNDS):
            # The last rank is told to stop halfway; all must learn it at the same poll.
            (stop,) = agreement.poll(float(number == size - 1 and step >= ROUNDS // 2))
            if stop and stopped_at < 0:
                stopped_at = step
        agreement.drain()
        each = (time.perf_counter() - start) / ROUNDS
        lines.append(("one poll of the stop agreement", each))
        agreed = set(world.gather(stopped_at))
        assert agreed == {ROUNDS // 2 + 1}, agreed
        events = EventLog(folder / "events.jsonl")
        dist.barrier()
        with timed(lines, f"{20 * size} events appended by all ranks at once"):
            for step in range(20):
                events.append("checkpointed", step=step, rank=number)
            dist.barrier()
        lock, mine = FolderLock(folder / "run.lock"), True
        with timed(lines, "one of them takes the folder's lock"):
            try:
                lock.acquire()
            except ConfigError:
                mine = False
            held = world.gather(mine)
        assert sum(held) == 1, held
        if mine:
            lock.release()
        if number == 0:
            from minimind.rundir.events import read_events

            found = read_events(folder / "events.jsonl")
            assert len(found) == 20 * size, "an event was lost or torn"
            (folder / "lines").write_text(json.dumps(lines))
        dist.barrier()

    children = []
    for number in range(size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                rank(number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    failed = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(failed), f"{sum(map(bool, failed))} ranks failed"
    return [(what, seconds) for what, seconds in json.loads((folder / "lines").read_text())]


def make_run(folder: Path, name: str, points: int = 50, events: int = 20) -> None:
    """A run as a day of preemptions leaves it."""
    from launcher.spec.job_spec import JobSpec
    from launcher.spec.run_folder import RunFolder

    run = RunFolder(folder / name)
    out = run.root / "out"
    for path in (run.attempts / "1", out):
        path.mkdir(parents=True)
    spec = JobSpec(name=name, run_dir=str(run.root), workdir=str(folder), save_dir=str(out))
    run.spec_file.write_text(spec.to_json())
    lines: list[dict[str, Any]] = [{"time": 0.0, "event": "submitted", "job_id": "1"}]
    for number in range(1, events // 4 + 1):
        at = 100.0 * number
        lines += [
            {"time": at, "event": "attempt_started", "attempt": number, "nodes": ["n1"]},
            {"time": at + 1, "event": "started", "step": number * 10},
            {"time": at + 50, "event": "checkpointed", "step": number * 10 + 10},
            {"time": at + 60, "event": "attempt_ended", "attempt": number, "cause": "preempted",
             "exit_code": 75, "step": number * 10 + 10, "progressed": True, "trained": True},
        ]  # fmt: skip
    run.events_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    logged = [
        {"time": 100.0 + step, "epoch": 0, "step": step, "global_step": step, "total_steps": 10**6,
         "loss": 3.0, "logits_loss": 3.0, "learning_rate": 1e-3, "tokens_per_second": 1e4}
        for step in range(points)
    ]  # fmt: skip
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))


def command(*words: str) -> None:
    """One command of the launcher, its output thrown away."""
    from launcher.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(list(words)) == 0, words


def runs(size: int, folder: Path) -> list[Line]:
    """``status`` and ``list`` of ``size`` runs."""
    for number in range(size):
        make_run(folder, f"run-{number}")
    lines: list[Line] = []
    with timed(lines, "launcher status"):
        command("status", "--runs-dir", str(folder))
    with timed(lines, "launcher status --json"):
        command("status", "--json", "--runs-dir", str(folder))
    with timed(lines, "launcher list"):
        command("list", "--runs-dir", str(folder))
    return lines


def sweep(size: int, folder: Path) -> list[Line]:
    """A sweep of ``size`` points: checked, and its folders made as an array's submission does."""
    from launcher.slurm import client as slurm
    from launcher.submit import submission

    # The two things that a machine without a cluster lacks: what its site is, and sbatch.
    slurm.available = lambda: True
    slurm.read_site = lambda: slurm.Site()
    submission._submit_slurm = lambda run, spec, points=None: [
        f"1_{index}" for index in range(size)
    ]
    rates = ",".join(f"{1e-4 + 1e-6 * number:.6f}" for number in range(size))
    lines: list[Line] = []
    where = ("--runs-dir", str(folder), "--cluster", "slurm")
    with timed(lines, "launcher sweep --dry-run"):
        command("sweep", "--name", "d", "--vary", f"learning_rate={rates}", "--dry-run", *where)
    with timed(lines, "launcher sweep, all but sbatch"):
        command("sweep", "--name", "s", "--vary", f"learning_rate={rates}", *where)
    slurm.available = lambda: False
    with timed(lines, "launcher status of it"):
        command("status", "--runs-dir", str(folder))
    return lines


def events(size: int, folder: Path) -> list[Line]:
    """A run with ``size`` events and as many logged points."""
    from launcher.spec.run_folder import RunFolder
    from launcher.supervise import attempt_log as attempt

    make_run(folder, "run", points=size, events=size)
    lines: list[Line] = []
    with timed(lines, "launcher status"):
        command("status", "--runs-dir", str(folder))
    with timed(lines, "launcher why"):
        command("why", "run", "--runs-dir", str(folder))
    run = RunFolder(folder / "run")
    number = attempt.begin(run, job_id="1", nodes=["n1"])
    with timed(lines, "supervisor: the end of an attempt"):
        attempt.end(run, run.spec(), number, "preempted", 75)
    return lines


def corpus(size: int, folder: Path) -> list[Line]:
    """The index of ``size`` documents: opening, packing, sampling. Tokens are a sparse file."""
    import numpy as np

    from minimind.data.packing import plan_rows
    from minimind.data.sampler import SkipBatchSampler
    from minimind.data.token_store import TokenStore

    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(5.0, 1.0, size).astype(np.int64) + 2, 20_000)
    offsets = np.zeros(size + 1, np.uint64)
    np.cumsum(lengths, out=offsets[1:])
    tokens = int(offsets[-1])
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "bytes.npy", lengths.astype(np.uint32))
    with (folder / "tokens.bin").open("wb") as file:
        file.truncate(2 * tokens)
    (folder / "rejected.jsonl").touch()
    names = ("tokens.bin", "offsets.npy", "bytes.npy", "rejected.jsonl")
    meta = {
        "format_version": 1,
        "dtype": "uint16",
        "counts": {"n_docs": size, "n_tokens": tokens, "n_bytes": 4 * tokens, "n_rejected": 0},
        "content_hash": "synthetic",
        "tokenizer": {"vocab_size": 6400, "bos_id": 1, "eos_id": 2, "pad_id": 0},
        "reject_reasons": {},
        "files": {name: (folder / name).stat().st_size for name in names},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    del lengths, offsets
    lines: list[Line] = []
    with timed(lines, "open the store"):
        store = TokenStore.open(folder)
    with timed(lines, "plan the rows (the first time)"):
        plan = plan_rows(store, 512)
    del plan
    with timed(lines, "open the plan (every other time)"):
        plan = plan_rows(store, 512)
    with timed(lines, "sampler: order of an epoch"):
        sampler = SkipBatchSampler(
            plan.n_rows, batch_size=32, rank=0, world_size=64, seed=1, epoch=0
        )
    with timed(lines, "build a batch of 32 rows"):
        plan.build(next(iter(sampler)), 32)
    return lines


PARTS: dict[str, Callable[[int, Path], list[Line]]] = {
    "ranks": ranks, "runs": runs, "sweep": sweep, "events": events, "corpus": corpus,
}  # fmt: skip


def measure(part: str, size: int) -> None:
    """One measurement in this process: prints its lines as JSON."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/tmp")) as name:
        lines = PARTS[part](size, Path(name))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if part == "ranks" else 0
    print(json.dumps({"lines": lines, "megabytes": max(own, child) / 1024}))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sizes", help="comma-separated, for all parts given")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one measurement")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]}; there are: {', '.join(PARTS)}")
    if options.one:
        measure(options.parts[0], int(options.sizes))
        return 0
    print(f"{'part':<8}{'size':>12}  {'what':<48}{'seconds':>10}{'MB':>8}")
    failed = False
    for part in options.parts or PARTS:
        sizes = [int(s) for s in options.sizes.split(",")] if options.sizes else SIZES[part]
        for size in sizes:
            words = [sys.executable, __file__, part, "--one", "--sizes", str(size)]
            process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                out, err = process.communicate(timeout=options.limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                out, err = "", f"more than {options.limit:.0f} s"
            if process.returncode != 0:
                last = (err.strip().splitlines() or ["killed"])[-1]
                print(f"{part:<8}{size:>12,}  BREAKS: {last}", flush=True)
                failed = True
                break
            found = json.loads(out.strip().splitlines()[-1])
            for what, seconds in found["lines"]:
                megabytes = f"{found['megabytes']:8.0f}"
                print(f"{part:<8}{size:>12,}  {what:<48}{seconds:>10.4f}{megabytes}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
