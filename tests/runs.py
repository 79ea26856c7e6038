"""Real pretraining runs for tests: processes, ranks, signals, and exact comparison.

Processes are forked from a server that has already imported torch, so that a run starts in
tenths of a second. They are real processes all the same: they are signalled and killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minimind.rundir.layout import OutputPaths
from minimind.rundir.metrics import read_metrics
from minimind.system.process import free_port
from minimind.training import announce

if TYPE_CHECKING:
    from minimind.training.trainer import Trainer

FORKSERVER = multiprocessing.get_context("forkserver")
PRELOADED = ["tests.preload"]
FORKSERVER.set_forkserver_preload(PRELOADED)

WAIT_SECONDS = 120.0

Hook = Callable[["Trainer"], None]
"""What is called before each micro-batch."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll until ``condition`` holds; fail the test when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.005)


def rank_main(
    argv: list[str], environ: dict[str, str], output: str, on_micro_batch: Hook | None = None
) -> None:
    """The body of one rank's process; without ``LOSS_CURVE`` it draws none, which takes a while."""
    os.environ.update(environ)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # As in a process that was not forked from a server: loader workers are this one's children.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    from minimind.train_pretrain import main

    if "LOSS_CURVE" not in environ:
        announce.plot_loss_curve = lambda metrics, png: None  # type: ignore[assignment]
    held_at = environ.get("HELD_AT")
    sys.exit(main(argv, on_micro_batch or (hold_at(int(held_at)) if held_at else None)))


def hold_at(at_step: int) -> Hook:
    """Let this rank go on from its micro-step ``at_step`` only once it is signalled.

    A run of a second or two would be over before a test that has to wait for a processor.
    """
    numbers = itertools.count(1)

    def hold(trainer: Trainer) -> None:
        if next(numbers) >= at_step:
            wait_until(lambda: trainer.stop.stop_flag.signal_number > 0, "the signal")

    return hold


@dataclass
class Run:
    """One run's folders and flags; may be started again and again."""

    folder: Path
    flags: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    patience: float = WAIT_SECONDS
    """Seconds without a word after which a run is given up; to compile takes minutes on a busy
    processor."""

    @property
    def save_dir(self) -> Path:
        return self.folder / "out"

    @property
    def checkpoint_dir(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def output(self) -> str:
        """What all ranks of all attempts printed."""
        return "".join(p.read_text() for p in sorted(self.folder.glob("output.*")))

    def argv(self, **changes: Any) -> list[str]:
        flags = {"save_dir": self.save_dir, "checkpoint_dir": self.checkpoint_dir}
        words = []
        for name, value in {**flags, **self.flags, **changes}.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not False:
                words += [f"--{name}", str(value)]
        return words

    def start(
        self,
        world_size: int = 1,
        target: Callable[..., None] = rank_main,
        held_at: int | None = None,
        **changes: Any,
    ) -> list[Any]:
        """Start all ranks; returns their processes. ``held_at``: see :func:`hold_at`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        processes = []
        for rank in range(world_size):
            environ = dict(self.environ)
            if held_at is not None:
                environ["HELD_AT"] = str(held_at)
            if world_size > 1:
                environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(world_size),
                    "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            process = FORKSERVER.Process(
                target=target,
                args=(self.argv(**changes), environ, str(self.folder / f"output.{rank}")),
            )
            process.start()
            processes.append(process)
        return processes

    def finish(self, processes: Sequence[Any]) -> list[int]:
        """Wait for all ranks, as long as they get on; their exit codes."""
        written = -1
        for process in processes:
            while process.join(self.patience) is None and process.is_alive():
                before, written = written, self._written()
                if written == before:
                    for other in processes:
                        other.kill()
                    raise AssertionError(f"rank did not end; output:\n{self.output}")
        return [process.exitcode for process in processes]

    def _written(self) -> int:
        """Grows with every point that is logged, and with every line that a rank prints."""
        files = [*self.folder.glob("output.*"), self.save_dir / "metrics.jsonl"]
        return sum(path.stat().st_size for path in files if path.exists())

    def complete(self, world_size: int = 1, **changes: Any) -> Run:
        """Run to the end, and insist on success."""
        codes = self.finish(self.start(world_size, **changes))
        assert codes == [0] * world_size, self.output
        return self

    def interrupt(
        self, number: signal.Signals, at_step: int, world_size: int = 1, **changes: Any
    ) -> list[int]:
        """Run, signal every rank once ``at_step`` micro-steps are on record, and wait."""
        processes = self.start(world_size, held_at=at_step, **changes)
        pid = processes[0].pid
        wait_until(
            lambda: (
                sum(record["pid"] == pid for record in self.records()) >= at_step
                or not all(process.is_alive() for process in processes)
            ),
            f"step {at_step}",
            self.patience,
        )
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return self.finish(processes)

    def records(self, rank: int = 0) -> list[dict[str, Any]]:
        """The row record of a rank: one entry a micro-step."""
        return list(_lines(self.save_dir / f"rows.rank{rank}.jsonl"))

    def trained_rows(self) -> list[tuple[int, int]]:
        """(epoch, row) in the order trained, by all ranks, whatever their number was when."""
        order = []
        for path in OutputPaths(self.save_dir).all_rows():
            rank = int(path.name.split(".")[1][4:])
            order += [(r["global_step"], r["step"], rank, r) for r in self.records(rank)]
        order.sort(key=lambda entry: entry[:3])
        return [(r["epoch"], row) for *_, r in order for row in r["rows"]]

    def losses(self) -> dict[tuple[int, int], tuple[float, float]]:
        """(epoch, step) → (loss, gradient norm) of every logged point."""
        points = [p for p in read_metrics(self.save_dir / "metrics.jsonl") if "loss" in p]
        return {(p["epoch"], p["step"]): (p["loss"], p["grad_norm"]) for p in points}

    def scores(self) -> dict[tuple[int, int], tuple[float, float]]:
        """(epoch, step) → (held-out loss, bits per byte) of every evaluation."""
        points = [p for p in read_metrics(self.save_dir / "metrics.jsonl") if "eval_loss" in p]
        return {(p["epoch"], p["step"]): (p["eval_loss"], p["bits_per_byte"]) for p in points}

    def samples(self) -> dict[tuple[int, int, str], str]:
        """(epoch, step, prompt) → text of every sample."""
        found = _lines(self.save_dir / "samples.jsonl")
        return {(p["epoch"], p["step"], p["prompt"]): p["text"] for p in found}

    def state(self) -> dict[str, Any]:
        """The final checkpoint."""
        (path,) = (p for p in self.checkpoint_dir.glob("*.pt") if p.name.count(".") == 1)
        return torch.load(path, weights_only=True)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested states differ in any bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: length"]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}/{i}")]
    return [] if a == b else [f"{path}: {a!r} is not {b!r}"]


STATE_KEYS = ("model", "optimizer", "scaler", "epoch", "step", "global_step", "rows_done", "tokens")


def assert_same_run(a: Run, b: Run) -> None:
    """Weights, optimiser, position, random numbers and logged losses agree bit for bit."""
    first, second = a.state(), b.state()
    for key in (*STATE_KEYS, "ranks"):
        assert differences(first[key], second[key], key) == []
    assert a.losses() == b.losses()
