"""How long a run makes no steps after one of its ranks has died, on a Slurm of this machine.

Two ranks on two nodes of the development cluster, which lets a requeued job wait as Slurm does by
default. One rank is killed once the run has saved; measured is the time from there to the first
optimizer step after it, and what of it went into what. `--old` measures another version beside this
one, through a Python that imports it. The caches are warm: each version has had a run before.

`--fault node` sets down one of three nodes instead: a job that goes on with the two that are left
(`--min-nodes 2`) beside one that Slurm runs again on three.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    REPOSITORY,
    BenchmarkError,
    Report,
    alternate,
    main,
    make_parser,
    read_jsonl,
    say,
    spread,
    table,
    verdict,
    work_folder,
)
from benchmarks.corpus import benchmark_corpus
from benchmarks.startup import SIZES
from minimind.rundir.metrics import read_lines

FLAGS = {**SIZES["256x4"], "device": "cpu", "batch_size": 4, "log_interval": 1, "max_steps": 100000}
SAVE_EVERY = 10
SECONDS_TARGET = 15.0
SHARE_TARGET = 1 / 8
NODE_SHARE_TARGET = 1 / 5
WAIT_SECONDS = 600.0
BASE_PORT = 15800


@dataclass(frozen=True)
class Arm:
    """One side of the comparison: whose launcher, with which options, meets which fault."""

    python: str
    options: tuple[str, ...]
    break_it: Callable[[Cluster, Path], None]


class Cluster:
    """The development cluster, and the launcher of a version on it."""

    def __init__(self, folder: Path, data: Path, cache: Path) -> None:
        self.folder, self.data, self.cache = folder, data, cache
        self.runs = folder / "runs"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PYTHONPATH"))}
        conf = str(folder / "slurm" / "slurm.conf")
        self.environment = {**clean, "SLURM_CONF": conf, "OMP_NUM_THREADS": "1"}

    def command(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode:
            raise BenchmarkError(f"{words[:6]} … ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def devcluster(self, *words: str) -> None:
        place = ("--folder", str(self.folder / "slurm"))
        self.command(sys.executable, str(REPOSITORY / "slurm" / "devcluster"), *words, *place)

    def submit(self, arm: Arm, name: str) -> Path:
        """Submits a run of the version that the arm's Python imports; returns its folder."""
        flags = {**FLAGS, "data_path": self.data, "cache_dir": self.cache}
        flags |= {"save_interval": SAVE_EVERY, "accumulation_steps": 1}
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        place = ("--partition", "low", "--gpus", "1", "--runs-dir", str(self.runs), *arm.options)
        self.command(arm.python, "-m", "launcher", "submit", "--name", name, *place, "--", *words)
        return self.runs / name


@contextlib.contextmanager
def cluster(work: Path, nodes: int, delay: int) -> Iterator[Cluster]:
    # munged wants folders above its socket that everyone can enter.
    work.chmod(0o755)
    data = benchmark_corpus(work)[0]
    found = Cluster(work, data, work / "cache")
    options = ("--nodes", str(nodes), "--gpus", "1", "--requeue-delay", str(delay))
    found.devcluster("up", *options, "--base-port", str(BASE_PORT))
    try:
        yield found
    finally:
        found.devcluster("down")


def kill_a_rank(place: Cluster, run: Path) -> None:
    os.kill(rank_process(run, 1), signal.SIGKILL)


def set_a_node_down(place: Cluster, run: Path) -> None:
    """As an administrator does; its slurmd lives, and the cluster takes it back at once."""
    place.command("scontrol", "update", "nodename=n3", "state=down", "reason=benchmark")


def measure(place: Cluster, arm: Arm, name: str) -> dict[str, float]:
    """Breaks a run that has saved; the seconds to its next step, and their parts."""
    run = place.submit(arm, name)
    points, events = run / "out" / "metrics.jsonl", run / "events.jsonl"
    try:
        _wait(lambda: _last_step(points) >= SAVE_EVERY + SAVE_EVERY // 2, "the first steps")
        load = os.getloadavg()[0]
        died_at = time.time()
        arm.break_it(place, run)
        _wait(lambda: _first_point(points, events), "a step after it")
        return {**_parts(points, events, died_at), "load": load}
    finally:
        job = next(e["job_id"] for e in read_jsonl(events) if e["event"] == "submitted")
        place.command("scancel", str(job))
        _wait(lambda: not _is_queued(place, str(job)), "the job to leave")
        shutil.rmtree(run)


def _parts(points: Path, events: Path, died_at: float) -> dict[str, float]:
    log = read_jsonl(events)
    ended = next(e["time"] for e in log if e["event"] == "attempt_ended")
    began = [e["time"] for e in log if e["event"] == "attempt_started"][1]
    trains = [e for e in log if e["event"] == "started"][1]
    first = _first_point(points, events)
    assert first is not None
    lost = _last_step(points, before=died_at)
    kept = max(e["step"] for e in log if e["event"] == "checkpointed" and e["time"] < began)
    steps = [p["time"] for p in _losses(points) if p["time"] < died_at]
    pace = (steps[-1] - steps[0]) / max(1, len(steps) - 1)
    total = first["time"] - died_at
    return {
        "total": total,
        "end of the others": ended - died_at,
        "queue": began - ended,
        "launch": trains["time"] - began - sum(trains["seconds"].values()),
        **trains["seconds"],
        "first step": first["time"] - trains["time"],
        "lost steps": (lost - kept) * pace,
        "ledger": total + (lost - kept) * pace,
    }


def _losses(points: Path) -> list[dict[str, Any]]:
    return [point for point in read_lines(points) if "loss" in point]


def _last_step(points: Path, before: float = float("inf")) -> int:
    return max((p["global_step"] for p in _losses(points) if p["time"] < before), default=0)


def _first_point(points: Path, events: Path) -> dict[str, Any] | None:
    """The first step of the second attempt."""
    begun = [e["time"] for e in read_jsonl(events) if e["event"] == "attempt_started"]
    if len(begun) < 2:
        return None
    return next((p for p in _losses(points) if p["time"] > begun[1]), None)


def rank_process(run: Path, rank: int) -> int:
    """The process of a rank of ``run`` on this machine, which all nodes are."""
    wanted = {f"MINIMIND_EVENTS={run}/events.jsonl", f"SLURM_PROCID={rank}"}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted <= set((folder / "environ").read_text().split("\0")):
                return int(folder.name)
    raise BenchmarkError(f"rank {rank} of {run} does not run")


def _is_queued(place: Cluster, job: str) -> bool:
    return job in place.command("squeue", "--noheader", "--format=%i").split()


def _wait(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what} did not come within {WAIT_SECONDS:.0f} s")
        time.sleep(0.1)


def run() -> None:
    parser = make_parser("restart", __doc__, "--old /clones/old/.venv/bin/python --repeats 5")
    parser.add_argument("--old", default="", metavar="PYTHON", help="of the version beside it")
    parser.add_argument("--fault", choices=("rank", "node"), default="rank")
    parser.add_argument("--requeue_delay", type=int, default=120, help="seconds, of the cluster")
    args = parser.parse_args()
    by_node = args.fault == "node"
    arms = node_arms() if by_node else rank_arms(args.old)
    report = Report("restart", __doc__ or "")
    nodes = 3 if by_node else 2
    with work_folder(args.work_dir) as work, cluster(work, nodes, args.requeue_delay) as place:
        count = 0

        def once(name: str) -> Mapping[str, Any]:
            nonlocal count
            count += 1
            return measure(place, arms[name], f"{name}-{count}")

        say("a run that fills the caches")
        once("new")
        runs = alternate(list(arms), once, args.repeats)
    report.add(parts_table(runs))
    new = spread(runs["new"], "total").median
    if not by_node:
        line = verdict(new, SECONDS_TARGET, at_most=True, unit=" s")
        report.add(f"From the death to the next step: {line}.")
    if "old" in runs:
        share = new / spread(runs["old"], "total").median
        target = NODE_SHARE_TARGET if by_node else SHARE_TARGET
        report.add(f"Of the old one's: {verdict(share, target, at_most=True)}.")
    report.data["runs"] = runs
    report.publish(args)


def rank_arms(old: str) -> dict[str, Arm]:
    """This version, and the one that the Python ``old`` imports."""
    pythons = {**({"old": old} if old else {}), "new": sys.executable}
    return {name: Arm(p, ("--nodes", "2"), kill_a_rank) for name, p in pythons.items()}


def node_arms() -> dict[str, Arm]:
    """A job that loses its nodes with the one, which is the older way, and a job that does not."""
    size = ("--nodes", "3")
    return {
        "old": Arm(sys.executable, size, set_a_node_down),
        "new": Arm(sys.executable, (*size, "--min-nodes", "2"), set_a_node_down),
    }


def parts_table(runs: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """Seconds of each part, a column for each version."""
    parts = list(runs["new"][0])
    rows = []
    for part in parts:
        kinds = [[run for run in found if part in run] for found in runs.values()]
        rows.append([part, *(str(spread(kind, part)) if kind else "–" for kind in kinds)])
    return table(["s", *runs], rows)


if __name__ == "__main__":
    main(run)
