"""``drill``: interrupts tiny runs on this cluster in every way and compares the weights.

The verdict is bitwise, on the files that the training leaves: an undisturbed run is the measure.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.slurm import client as slurm
from launcher.spec.options import TRAIN_MODULE
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import job_spec, runs_dir_flag, runs_folder
from launcher.submit.submission import submit
from launcher.supervise import host
from minimind.errors import SubmissionError
from minimind.rundir import causes
from minimind.rundir.events import Kind, of_attempt
from minimind.system.durable import write_text_durably
from minimind.system.terminal import note

PARTS = ("term", "usr2", "kill", "time", "node")
STEPS = 150
INTERRUPT_AT = 20
POLL_SECONDS = 0.1
TRAIN = [
    *("--hidden_size", "64", "--num_hidden_layers", "2", "--max_seq_len", "64"),
    *("--batch_size", "2", "--accumulation_steps", "1", "--epochs", "100000"),
    *("--log_interval", "1", "--save_interval", "25", "--num_workers", "0", "--deterministic"),
]


@dataclass(frozen=True)
class Result:
    """PASS, FAIL or SKIP of one part, and what was seen."""

    part: str
    verdict: str
    text: str


class Drill:
    """The runs of one drill, in folders of their own below the runs folder."""

    def __init__(
        self, options: dict[str, Any], profile: dict[str, Any], *, cpu: bool, timeout: float
    ) -> None:
        self.options = options
        self.profile = profile
        self.timeout = timeout
        self.stamp = time.strftime("%Y%m%d-%H%M%S")
        self.train = [*TRAIN, *(["--device", "cpu"] if cpu else [])]
        self.corpus = runs_folder(options.get("runs_dir"), profile) / f"drill-{self.stamp}.jsonl"

    def run(self, parts: list[str]) -> list[Result]:
        """The undisturbed run, then every part; a part that is not possible here is a SKIP."""
        interruptions: dict[str, Callable[[RunFolder], None]] = {
            "term": lambda run: _signal(run, signal.SIGTERM),
            "usr2": lambda run: _signal(run, signal.SIGUSR2),
            "kill": lambda run: _signal(run, signal.SIGKILL),
            "node": _fail_node,
        }
        undisturbed = self._start("undisturbed", STEPS)
        expected = self._finish(undisturbed)
        results = []
        for part in parts:
            reason = self._impossible(part)
            if reason:
                results.append(Result(part, "SKIP", reason))
                continue
            note(f"drill: {part}")
            try:
                if part == "time":
                    results.append(self._time_limit(_steps_per_second(undisturbed)))
                    continue
                run = self._start(part, STEPS)
                self._train_a_little(run)
                interruptions[part](run)
                results.append(self._judge(part, run, expected))
            except DrillError as error:
                results.append(Result(part, "FAIL", str(error)))
        return results

    def _time_limit(self, steps_per_second: float) -> Result:
        """Two runs of about a minute and a half, one of them under a limit of one minute."""
        steps = max(STEPS, int(90 * steps_per_second))
        expected = self._finish(self._start("time-undisturbed", steps))
        return self._judge("time", self._start("time", steps, time="1"), expected)

    def _judge(self, part: str, run: RunFolder, expected: str) -> Result:
        weights = self._finish(run)
        ends = [e for e in run.events() if e["event"] == Kind.ATTEMPT_ENDED]
        ended = [end["cause"] for end in ends]
        lost = _lost_steps(run)
        seen = f"{' → '.join(ended)}; {lost} steps trained twice"
        if weights != expected:
            return Result(part, "FAIL", f"the weights differ from an undisturbed run's ({seen})")
        if len(ended) < 2:
            return Result(part, "SKIP", "the run ended before it was interrupted")
        if part in ("term", "usr2", "time") and lost:
            return Result(part, "FAIL", f"steps were lost although there was a warning ({seen})")
        return Result(part, "PASS", f"weights equal bit for bit ({seen})")

    def _impossible(self, part: str) -> str:
        on_slurm = slurm.available() and self.profile.get("cluster") != "local"
        if part == "node":
            if not on_slurm:
                return "there are no nodes to lose"
            if os.getuid() != 0:
                return "only an administrator may set a node down"
        return ""

    def _start(self, part: str, steps: int, **options: Any) -> RunFolder:
        name = f"drill-{self.stamp}-{part}"
        given = {**self.options, **options, "max_restarts": 3}
        train = [*self.train, "--max_steps", str(steps), "--data_path", str(self.corpus)]
        spec = job_spec(name, given, self.profile, TRAIN_MODULE, train)
        if not self.corpus.exists():
            write_corpus(self.corpus)
        submit(spec, {})
        return RunFolder(spec.run_dir)

    def _finish(self, run: RunFolder) -> str:
        """Waits for the run's end; returns the digest of its weights."""
        self._until(lambda: run.final() is not None, run, "the end")
        final = run.final()
        assert final is not None
        if final.cause != causes.DONE:
            raise DrillError(f"{run.name} did not finish: {final.reason}")
        return weights_digest(Path(run.spec().save_dir))

    def _train_a_little(self, run: RunFolder) -> None:
        self._until(lambda: _steps(run) >= INTERRUPT_AT, run, "the first steps")

    def _until(self, condition: Callable[[], bool], run: RunFolder, what: str) -> None:
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > deadline:
                raise DrillError(f"{what} of {run.name} did not come within {self.timeout:.0f} s")
            if run.final() is not None and what != "the end":
                why = f"launcher why {run.name}{runs_dir_flag(run)}"
                raise DrillError(f"{run.name} ended early; see {why}")
            time.sleep(POLL_SECONDS)


class DrillError(SubmissionError):
    """A part of the drill could not be carried out; the message says why."""


def weights_digest(folder: Path) -> str:
    """SHA-256 over the tensors of the weight file, not over its zip container."""
    import zipfile

    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise DrillError(f"{folder} has {len(files)} weight files, expected one")
    digest = hashlib.sha256()
    with zipfile.ZipFile(files[0]) as archive:
        for name in sorted(archive.namelist()):
            inside = name.partition("/")[2]
            if inside == "data.pkl" or inside.startswith("data/"):
                digest.update(inside.encode())
                digest.update(archive.read(name))
    return digest.hexdigest()


def write_corpus(path: Path) -> None:
    """A text that is the same everywhere; what it says does not matter here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [hashlib.sha256(str(i).encode()).hexdigest()[: 3 + i % 6] for i in range(4000)]
    lines = [json.dumps({"text": " ".join(words[i : i + 40])}) for i in range(0, 4000, 20)]
    write_text_durably(path, "\n".join(lines) + "\n")


def _steps_per_second(run: RunFolder) -> float:
    points = run.points()
    times = [point["time"] for point in points if "loss" in point]
    return len(times) / max(times[-1] - times[0], 1e-3) if times else 1.0


def _steps(run: RunFolder) -> int:
    points = run.points()
    return max((int(point.get("global_step", 0)) for point in points), default=0)


def _lost_steps(run: RunFolder) -> int:
    points = run.points()
    steps = [point["global_step"] for point in points if "loss" in point]
    return len(steps) - len(set(steps))


def _signal(run: RunFolder, number: signal.Signals) -> None:
    spec = run.spec()
    if spec.cluster == "slurm":
        step = run.reported_step(max(run.attempt_numbers()))
        slurm.signal_step(str(run.job_id()), step, number)
        return
    pid = host.supervisor_pid(run.events())
    if pid is None:
        raise DrillError(f"{run.name} does not run")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), number)


def _fail_node(run: RunFolder) -> None:
    numbers = run.attempt_numbers()
    began = of_attempt(run.events(), numbers[-1])[0]
    node = began["nodes"][-1]
    answer = slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=drill")
    if answer.returncode != 0:
        raise DrillError(f"scontrol: {answer.stderr.strip()}")
    try:
        deadline = time.monotonic() + 120
        while not any(e["event"] == Kind.ATTEMPT_ENDED for e in run.events()):
            if time.monotonic() > deadline:
                raise DrillError("the loss of the node was not noticed within 120 s")
            time.sleep(POLL_SECONDS)
    finally:
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
