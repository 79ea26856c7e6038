"""A test double of the training: same contract, no torch, steps that take as long as asked.

Every rank adds up ``hash(step)`` (the "weights"); rank 0 checkpoints it. Ranks agree on the
stopping step, and meet before the first step and after the last, through files in the checkpoint
folder, as real ranks do through a collective.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

RUN_ME_AGAIN = 75


class Stop:
    """Flag-only handlers."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number


def record(event: str, **values: object) -> None:
    path = os.environ.get("MINIMIND_EVENTS")
    if path and RANK == 0:
        line = json.dumps({"time": time.time(), "event": event, **values}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def write(path: Path, value: object) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def advance(weights: str, step: int) -> str:
    return hashlib.sha256(f"{weights}{step}".encode()).hexdigest()


def train(options: argparse.Namespace) -> int:
    stop = Stop()
    save_dir, checkpoint_dir = Path(options.save_dir), Path(options.checkpoint_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_dir / "fake.json"
    step, weights = 0, ""
    if checkpoint.exists():
        stored = json.loads(checkpoint.read_text())
        step, weights = stored["step"], stored["weights"]
        record("resumed", step=step)
    record("started", step=step, world_size=WORLD_SIZE)
    attempt = os.environ.get("LAUNCHER_ATTEMPT", "0")
    print(f"rank {RANK} of {WORLD_SIZE}: from step {step}", flush=True)
    agreed = checkpoint_dir / f"stop-{attempt}.json"
    dead_peer = checkpoint_dir / f"dead-{attempt}"

    def hold(until: Callable[[], bool] = lambda: False) -> None:
        """Waits, for as long as nobody interferes with this attempt."""
        while not (until() or stop.signal or agreed.exists() or dead_peer.exists()):
            time.sleep(0.02)

    def meet(where: str) -> None:
        """No rank goes on before all are here: one that started late is behind, not alone."""
        (checkpoint_dir / f"{where}-{attempt}-{RANK}").touch()
        others = [checkpoint_dir / f"{where}-{attempt}-{rank}" for rank in range(WORLD_SIZE)]
        hold(until=lambda: all(other.exists() for other in others))

    def save(event: str, **values: object) -> None:
        if RANK == 0:
            write(checkpoint, {"step": step, "weights": weights})
            record(event, step=step, **values)

    crash_mark = checkpoint_dir / f"crashed-{RANK}"
    meet("begun")
    while step < options.max_steps:
        time.sleep(options.step_seconds)
        step += 1
        weights = advance(weights, step)
        if RANK == 0:
            point = {"time": time.time(), "global_step": step, "total_steps": options.max_steps}
            point |= {"epoch": 0, "step": step, "loss": 1 / step, "tokens_per_second": 1.0}
            with (save_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(point) + "\n")
        here = step == options.crash_at and options.crash_rank == RANK
        if here and (options.crash == "always" or not crash_mark.exists()):
            crash_mark.touch()
            if options.crash_by == "memory":
                take_memory()
            dead_peer.touch()
            raise RuntimeError(f"boom at step {step}")
        if step == options.wait_at and attempt == "1":
            # However long the test takes to interfere, this attempt does not end before.
            hold()
        if step == options.max_steps:
            meet("ended")
        if dead_peer.exists():
            # The collective that the dead rank misses fails on all others, a little later.
            time.sleep(1)
            raise ConnectionError("connection closed by peer")
        if step == options.hang_at and not crash_mark.exists():
            crash_mark.touch()
            hang_here()
        if stop.signal and not agreed.exists():
            # A few steps on, where no rank can have passed yet.
            write(agreed, {"step": step + 3})
        if agreed.exists() and step >= json.loads(agreed.read_text())["step"]:
            save("preempted", signal=signal.Signals(stop.signal or signal.SIGTERM).name)
            return RUN_ME_AGAIN
        if step % options.save_interval == 0:
            save("checkpointed")
    save("checkpointed")
    if RANK == 0:
        write(save_dir / "weights.json", weights)
    record("finished", step=step)
    return 0


def take_memory() -> None:
    """Until Slurm has this process killed, or, where nobody minds, 4 GB."""
    held = []
    while len(held) < 400:
        held.append(bytearray(10 << 20))


def hang_here() -> None:
    while True:
        time.sleep(3600)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--save_dir", default="out")
    parser.add_argument("--checkpoint_dir", default="checkpoints")
    parser.add_argument("--from_resume", default="0")
    parser.add_argument("--device", default="")
    parser.add_argument("--max_steps", type=int, default=20)
    parser.add_argument("--save_interval", type=int, default=5)
    parser.add_argument("--step_seconds", type=float, default=0.1)
    parser.add_argument("--crash", choices=["once", "always"], default="once")
    parser.add_argument("--crash_by", choices=["error", "memory"], default="error")
    parser.add_argument("--crash_at", type=int, default=-1)
    parser.add_argument("--crash_rank", type=int, default=0)
    parser.add_argument("--hang_at", type=int, default=-1)
    parser.add_argument("--wait_at", type=int, default=-1)
    parser.add_argument("--print_env", nargs="*", default=[])
    parser.add_argument("--print_args", nargs="*", default=[])
    parser.add_argument("--exit", type=int, default=None)
    options = parser.parse_args(argv)
    if options.print_env or options.print_args:
        seen = {name: os.environ.get(name) for name in options.print_env}
        print(json.dumps({"env": seen, "args": options.print_args}), flush=True)
    if options.exit is not None:
        return int(options.exit)
    return train(options)


if __name__ == "__main__":
    RANK = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    WORLD_SIZE = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
    sys.exit(main(sys.argv[1:]))
