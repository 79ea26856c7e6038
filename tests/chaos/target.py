"""What a fault needs of a run, wherever it runs; and the training that is run."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.corpus import write_corpus, write_tokenizer

VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "moe": {"use_moe": 1},
    "bfloat16": {"dtype": "bfloat16"},
    "unpacked": {"pack": "none"},
    "muon": {"optimizer": "muon"},
    "loader": {"num_workers": 1},
    "every-step": {"save_interval": 1, "accumulation_steps": 1, "max_steps": 300},
    "one-kept": {"keep_checkpoints": 1},
    "compiled": {"compile": "on"},
    "scored": {"eval_interval": 1, "sample_interval": 40, "epochs": 3},
}
"""Trainings that differ in what a resume has to restore."""

WATCHED = {
    "eval_interval": 6,
    "sample_interval": 12,
    "tracker": "tensorboard",
    "epochs": 3,
}
ASKED_FOR: dict[str, dict[str, Any]] = {
    "watched": WATCHED,
    "watched-profiled": {**WATCHED, "profile": 2},
    "watched-compiled": {**WATCHED, "compile": "on"},
}
"""Trainings with every kind of long work, which are not drawn: ``--variant watched``."""


HELD_OUT = "held_out.jsonl"
"""The text, beside that of the training, that is scored where a variant asks for it."""


def training_flags(folder: Path, epochs: int) -> dict[str, Any]:
    """Flags of a training of a few seconds on a corpus of its own, recorded in full."""
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / HELD_OUT, count=20, seed=1)
    return {
        "device": "cpu",
        "dtype": "float32",
        "data_path": write_corpus(folder / "tiny.jsonl", count=60),
        "tokenizer_path": write_tokenizer(folder / "tokenizer"),
        "num_workers": 0,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_seq_len": 64,
        "batch_size": 2,
        "accumulation_steps": 3,
        "epochs": epochs,
        "learning_rate": 1e-2,
        "log_interval": 1,
        "save_interval": 12,
        "keep_checkpoints": 3,
        "from_resume": "auto",
        "record_rows": True,
    }


PACE = 0.05
"""Seconds that each micro-batch waits where a start takes seconds: the training outlasts some."""


PATIENCE = 180.0
"""Seconds after which something that was to happen counts as never happening."""


LOOK_SECONDS = 0.05
"""Between two looks: one at all processes of a machine takes milliseconds that a run needs, too."""


class Lost(AssertionError):
    """The judge's or a target's finding: something was lost, or never came."""


def happens(condition: Callable[[], Any], seconds: float) -> Any:
    """Poll until ``condition`` is truthy and return it, or what it is when the time is up.

    Seconds in which this process itself did not run, on a machine that is busy or was frozen,
    do not count: the run under test did not get them either.
    """
    waited, before = 0.0, time.monotonic()
    while not (value := condition()) and waited < seconds:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        waited, before = waited + min(now - before, 0.1), now
    return value


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Poll until ``condition`` is truthy and return it.

    Raises:
        Lost: it never was.
    """
    value = happens(condition, seconds)
    if not value:
        raise Lost(f"waited {seconds:.0f} s in vain for {what}")
    return value


def wait_for_end(
    condition: Callable[[], Any], progress: Callable[[], Any], what: str, seconds: float
) -> None:
    """Poll as :func:`wait_for` does, ``seconds`` from the last progress on.

    Raises:
        Lost: nothing more came.
    """
    before: Any = None
    while not happens(condition, seconds):
        now = progress()
        if now == before:
            raise Lost(f"waited {seconds:.0f} s without progress for {what}")
        before = now


@dataclass(frozen=True)
class Ending:
    """How one attempt ended: the ranks' exit codes, or the cause that the launcher recorded."""

    codes: tuple[int, ...] = ()
    cause: str = ""

    def __str__(self) -> str:
        return self.cause or "exit " + ",".join(map(str, sorted(set(self.codes))))


class Target(Protocol):
    """A run that can be started again and again, and be interfered with."""

    folder: Path
    """Everything that the run writes lies in here."""
    save_dir: Path
    checkpoint_dir: Path
    cache_dir: Path
    world_size: int
    has_workers: bool
    """Whether loader processes read its data."""
    compiles: bool
    """Whether it compiles the model before it trains."""
    scores: bool
    """Whether it scores held-out text after each micro-step."""
    flags: dict[str, Any]
    order: Path
    """Where a start finds in what a rank shall signal itself: see ``tests/chaos/places``."""
    beside: Callable[[dict[str, Any]], AbstractContextManager[Any]]
    """Another run of the same flags but these, in folders of its own."""
    suspension_seconds: float
    """How long its ranks may at most be stopped."""
    start_seconds: float
    """From an attempt's start to its first steps, roughly."""
    endings: list[Ending]
    endings_are_final: bool
    """Whether an attempt's end is on record before the next attempt begins."""

    def ensure_running(self, faults: dict[str, str] | None = None) -> None:
        """Start an attempt unless one is under way; ``faults`` ask for a new one that has them."""

    def is_scoring(self) -> bool:
        """Whether the newest point on record is a loss, whose step is scored next."""

    def be_refused(self) -> None:
        """Start an attempt, and insist that it is refused before it trains."""

    def is_over(self) -> bool:
        """Whether the run is complete."""

    def is_running(self) -> bool:
        """Whether an attempt is under way."""

    def steps(self) -> int:
        """Micro-steps that the attempt under way has begun."""

    def ranks(self) -> list[int]:
        """Process numbers of the ranks that live, in no special order."""

    def settle(self) -> None:
        """Wait until the attempt under way has ended."""

    def rest(self) -> None:
        """End the attempt under way in good order, so that files can be changed between two."""

    def complete(self) -> None:
        """Run to the end, and insist that each attempt's end has its cause on record."""

    def stacks(self) -> str:
        """What is known of an attempt that does not get on, for the report of a loss."""

    def leftovers(self) -> list[str]:
        """What of the run still lives, a while after its end."""


class Layer(Protocol):
    """A way to run trainings, ready to take runs."""

    name: str
    world_sizes: tuple[int, ...]
    """Drawn from, so repeat what is to come more often."""
    flags: dict[str, Any]
    faults: tuple[int, int]
    """How many a case gets: at least, at most."""

    def make(
        self, name: str, flags: dict[str, Any], world_size: int
    ) -> AbstractContextManager[Any]:
        """A run that has not begun."""


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def command_line(pid: int) -> str:
    """What a process was started as; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The number of a process's parent; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def environment_of(pid: int) -> set[bytes]:
    """The variables, NAME=VALUE, that a process was started with; none when it is gone."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def processes() -> list[int]:
    """All process numbers of this machine, this process's aside."""
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    ]


def processes_at(folder: Path) -> list[int]:
    """The processes, this one aside, that hold a file under ``folder`` open."""
    inside = str(folder) + os.sep
    return [pid for pid in processes() if any(f.startswith(inside) for f in _open_files(pid))]


def _open_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(descriptor)


class GrowingFile:
    """The JSON lines of a file that grows, and is now and then replaced; each is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget(0)

    def _forget(self, inode: int) -> None:
        self._inode, self._offset = inode, 0
        self._found: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._forget(status.st_ino)
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return self._found
        self._offset += len(whole) + len(end)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                self._found.append(json.loads(line))
        return self._found


@dataclass
class Settings:
    """The file that tells the shim what to do, read by every process when it starts."""

    path: Path
    """Gone once a strike has happened."""
    root: Path
    clock: Path = field(init=False)

    def __post_init__(self) -> None:
        self.clock = self.path.with_suffix(".clock")
        self.step_clock(0.0)
        self.write({})

    def write(self, faults: dict[str, str]) -> None:
        """Let processes that start from now on have these faults, and no others."""
        usual = {"SHIM_STRIKE": "", "SHIM_ONLY": "", "SHIM_DELAY": "0"}
        place = {"SHIM_ROOT": str(self.root), "SHIM_CLOCK": str(self.clock)}
        lines = [f"{name}={value}\n" for name, value in {**usual, **place, **faults}.items()]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(lines))
        os.replace(fresh, self.path)

    def struck(self) -> bool:
        """Whether a strike that ``write`` asked for has happened."""
        return not self.path.exists()

    def step_clock(self, seconds: float) -> None:
        """Set the wall clock wrong by so much, at once and for running processes, too."""
        with open(self.clock, "r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))
