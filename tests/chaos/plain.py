"""The training alone: ranks as processes of this machine, started again by nobody but us.

Ranks get torchrun's variables and are forked from a server that has torch loaded, so that a
start takes tenths of a second and many faults fit into a minute.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from minimind.distributed import alike
from minimind.errors import EXIT_USER_ERROR
from tests.chaos.places import sitecustomize as places
from tests.chaos.target import (
    Ending,
    GrowingFile,
    Lost,
    Settings,
    happens,
    processes_at,
    training_flags,
    wait_for,
    wait_for_end,
)
from tests.runs import FORKSERVER, PRELOADED, Run, rank_main
from tests.shim import preload

GIVE_UP_SECONDS = 90.0
STRAGGLER_SECONDS = 10.0
DISK = "8m"
CLONE_NEWNS = 0x00020000
"""Of ``unshare``; Python has it from 3.12 on."""


VIEW = "CHAOS_VIEW"
"""Says which rank sees another folder in the place of its own: rank, folder, place, seconds."""
LOOKS_AGAIN_SECONDS = 3.0
NODES = "CHAOS_NODES"
"""Says that each rank is on a node of its own: a folder, and what each rank sees in its place."""
CLONE_NEWUTS = 0x04000000


def shimmed_rank(argv: list[str], environ: dict[str, str], output: str) -> None:
    """A rank forked from a server that has the shim loaded."""
    os.environ.update(environ)
    ctypes.CDLL(None).shim_configure()
    places.begin()
    if NODES in environ:
        place, *mounts = environ[NODES].split("\n")
        mount = mounts[int(environ.get("RANK", "0"))]
        see(mount, place, 0.0)
        be_called(Path(mount).name)
        environ = environ | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    if VIEW in environ:
        alike.WAIT_SECONDS = LOOKS_AGAIN_SECONDS
        rank, seen, place, seconds = environ[VIEW].split("\n")
        if environ["RANK"] == rank:
            see(seen, place, float(seconds))
    faulthandler.register(signal.SIGQUIT, file=2, all_threads=True)
    rank_main(argv, environ, output)


def be_called(name: str) -> None:
    """Give the host of this process alone a name."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(name)


def see(seen: str, place: str, seconds: float) -> None:
    """Let this process alone see the folder ``seen`` in ``place``; for good, or for a while."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", seen, place], check=True)
    if seconds:
        # The thread is made after this one has left the common view: it has the same.
        timer = threading.Timer(seconds, subprocess.run, [["umount", "--lazy", place]])
        timer.daemon = True
        timer.start()


class PlainRun:
    """See :class:`tests.chaos.target.Target`."""

    start_seconds = 1.2
    suspension_seconds = 2.0
    endings_are_final = True

    def __init__(self, folder: Path, flags: dict[str, Any], world_size: int) -> None:
        self.folder = folder
        self.cache_dir = folder / "cache"
        self.world_size = world_size
        self.has_workers = flags["num_workers"] > 0
        self.compiles = flags.get("compile") == "on"
        self.scores = flags.get("eval_interval") == 1
        self.flags = flags
        self.order = folder.with_suffix(".order")
        self.endings: list[Ending] = []
        folder.mkdir(parents=True)
        self.settings = Settings(folder.with_suffix(".faults"), folder)
        environ = {
            "MINIMIND_EVENTS": str(folder / "events.jsonl"),
            "SHIM_CONFIG": str(self.settings.path),
            places.ORDER: str(self.order),
            # Drawing it is work in which a stop may fall.
            "LOSS_CURVE": "1",
        }
        self.run = Run(folder, {**flags, "cache_dir": self.cache_dir}, environ)
        self.save_dir, self.checkpoint_dir = self.run.save_dir, self.run.checkpoint_dir
        self._events = GrowingFile(folder / "events.jsonl")
        self._events_before = 0
        self._rows = GrowingFile(self.save_dir / "rows.rank0.jsonl")
        self._metrics = GrowingFile(self.save_dir / "metrics.jsonl")
        self._processes: list[Any] = []

    def ensure_running(self, faults: dict[str, str] | None = None) -> None:
        if faults:
            self.rest()
        if self._processes and all(p.is_alive() for p in self._processes):
            return
        self.settle()
        self.settings.write(faults or {})
        self._events_before = len(self._events.lines())
        self._processes = self.start()

    def start(self) -> list[Any]:
        """Start the ranks of an attempt."""
        return self.run.start(self.world_size, target=shimmed_rank)

    def is_scoring(self) -> bool:
        return "loss" in (self._metrics.lines() or [{}])[-1]

    def be_refused(self) -> None:
        self.ensure_running()
        self.settle()
        if set(self.endings[-1].codes) != {EXIT_USER_ERROR}:
            raise Lost(f"not refused: {self.endings[-1]}\n{self.output()}")

    @contextlib.contextmanager
    def stale_view(self, rank: int, seen: Path, seconds: float | None) -> Iterator[None]:
        """In attempts that begin meanwhile ``rank`` sees ``seen`` in the checkpoints' place."""
        words = (str(rank), str(seen), str(self.checkpoint_dir), str(seconds or 0))
        self.run.environ[VIEW] = "\n".join(words)
        try:
            yield
        finally:
            del self.run.environ[VIEW]

    def start_another(self) -> list[int]:
        """Start the same run once more beside the one under way; the exit codes of its ranks."""
        return self.run.finish(self.start())

    def is_over(self) -> bool:
        return bool(self.endings) and all(code == 0 for code in self.endings[-1].codes)

    def is_running(self) -> bool:
        return any(p.is_alive() for p in self._processes)

    def steps(self) -> int:
        if not self._processes:
            return 0
        pid = self._processes[0].pid
        return sum(record["pid"] == pid for record in self._rows.lines())

    def compilations(self) -> int:
        """How many attempts have told that they compile."""
        texts = [p.read_text() for p in self.folder.glob("output.*")]
        return sum(text.count("compiling: ") for text in texts)

    def ranks(self) -> list[int]:
        return [p.pid for p in self._processes if p.is_alive()]

    def settle(self) -> None:
        if not self._processes:
            return
        try:
            wait_for_end(
                lambda: len(self.ranks()) < self.world_size,
                lambda: len(self._rows.lines()),
                "the ranks' end",
                GIVE_UP_SECONDS,
            )
        except Lost:
            raise Lost(self._where_it_hangs()) from None
        left = self._end_stragglers()
        for process in self._processes:
            process.join()
        self.endings.append(
            Ending(codes=tuple(p.exitcode for p in self._processes if p.pid not in left))
        )
        self._insist_on_a_cause(self._processes[0].exitcode)
        self._processes = []

    def _end_stragglers(self) -> list[int]:
        """Do as torchrun does with ranks that live on after another has ended.

        They may wait for ever for a rank that was stopped before it met them.
        """
        happens(lambda: not self.ranks(), STRAGGLER_SECONDS)
        left = self.ranks()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.ranks():
                os.kill(pid, number)
            happens(lambda: not self.ranks(), STRAGGLER_SECONDS)
        return left

    def _insist_on_a_cause(self, code: int) -> None:
        """Rank 0 has said in the event log why it ended, unless a signal left it no time."""
        said = [event["event"] for event in self._events.lines()[self._events_before :]]
        wanted = {0: "finished", 1: "failed", 2: "failed", 75: "preempted"}.get(code)
        if code == 75 and not self.steps():
            # Stopped before training began: there was nothing to save, nor to say.
            return
        if wanted and wanted not in said:
            raise Lost(f"rank 0 ended with {code}, and its events are {said}:\n{self.output()}")

    def _where_it_hangs(self) -> str:
        """The stacks of the ranks that live on, and an end to them."""
        codes = [p.exitcode for p in self._processes]
        stacks = self.stacks()
        self.kill()
        return f"ranks do not end: {codes}\n{stacks}"

    def stacks(self) -> str:
        """What the ranks do, if any live, after what they printed last."""
        for pid in self.ranks():
            os.kill(pid, signal.SIGQUIT)
        # They are written by signal handlers, and nothing tells when all are whole.
        time.sleep(1)
        return self.output(6000 * self.world_size)

    def rest(self) -> None:
        if self.is_running():
            wait_for(lambda: self.steps() or not self.is_running(), "the first step")
            for pid in self.ranks():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        self.settle()

    def complete(self) -> None:
        if not self.is_over():
            self.rest()
        while not self.is_over():
            undisturbed = not self.is_running()
            self.ensure_running()
            self.settle()
            if undisturbed and any(self.endings[-1].codes):
                raise Lost(f"undisturbed, it ended with {self.endings[-1]}:\n{self.output()}")

    def kill(self) -> None:
        """End whatever lives, at once."""
        for process in self._processes:
            process.kill()
            process.join()

    def output(self, size: int = 1500) -> str:
        """The end of what each rank printed, this many characters in all."""
        texts = [p.read_text() for p in sorted(self.folder.glob("output.*"))]
        return "\n".join(text[-size // len(texts) :] for text in texts)

    def leftovers(self) -> list[str]:
        return [f"process {pid}" for pid in processes_at(self.folder)]


class PlainLayer:
    """Runs on this machine, each with its checkpoints on a small disk of its own."""

    name = "plain"
    world_sizes = (1, 1, 1, 1, 2, 3)
    faults = (8, 14)
    kind: type[PlainRun] = PlainRun

    def __init__(self, folder: Path, flags: dict[str, Any]) -> None:
        self.folder = folder
        self.flags = flags

    @contextlib.contextmanager
    def make(self, name: str, flags: dict[str, Any], world_size: int) -> Iterator[PlainRun]:
        """A run whose checkpoints lie on a file system of 8 MB, where mounting is allowed."""
        run = self.kind(self.folder / name, flags, world_size)
        run.checkpoint_dir.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(run.checkpoint_dir)]
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        try:
            yield run
        finally:
            run.kill()
            if mounted:
                subprocess.run(["umount", "--lazy", str(run.checkpoint_dir)], check=True)


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[PlainLayer]:
    """Runs whose ranks are forked from a server that has the shim."""
    with forked_with_shim():
        yield PlainLayer(folder, training_flags(folder, epochs=10))


@contextlib.contextmanager
def forked_with_shim() -> Iterator[None]:
    """Let processes be forked from a server that has the shim."""
    before = {name: os.environ.get(name) for name in preload()}
    os.environ.update(preload())
    FORKSERVER.set_forkserver_preload([*PRELOADED, "torch.utils.tensorboard"])
    restart_forkserver()
    try:
        yield
    finally:
        FORKSERVER.set_forkserver_preload(PRELOADED)
        restart_forkserver()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def restart_forkserver() -> None:
    """Let the next process be forked from a new server, which takes today's environment."""
    forkserver._forkserver._stop()
