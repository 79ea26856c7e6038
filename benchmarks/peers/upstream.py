"""Upstream MiniMind's own ``trainer/train_pretrain.py``, run as it is, with a clock at its loader.

Nothing of it is copied or changed. It reads and writes beside its current folder
(``../model``, ``../checkpoints``), so it runs in a scratch folder, where ``model`` is the
tokenizer to use: with ours its losses compare with ours token by token. What is counted are
the positions with a label in the batches that its loader hands over.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from benchmarks.common import print_result
from benchmarks.peers.clock import UpdateClock
from benchmarks.peers.settings import peak_memory_gb

SCRIPT = Path("trainer") / "train_pretrain.py"


def check_clone(folder: Path) -> Path:
    """Return the trainer's file in a clone of upstream MiniMind.

    Raises:
        FileNotFoundError: it is not there.
    """
    script = folder.resolve() / SCRIPT
    if not script.is_file():
        raise FileNotFoundError(f"{folder} has no {SCRIPT}; name a clone of upstream MiniMind")
    return script


def scratch_folder(work: Path, tokenizer_folder: Path) -> Path:
    """Make the folder to run in: its parent has ``model``, the tokenizer's folder, beside it."""
    run_folder = work / "trainer"
    run_folder.mkdir(parents=True, exist_ok=True)
    link = work / "model"
    if not link.is_symlink():
        link.symlink_to(tokenizer_folder.resolve(), target_is_directory=True)
    return run_folder


class Hook(Protocol):
    """What is told of upstream's training."""

    def begin(self) -> None:
        """An epoch begins."""

    def micro_step(self, tokens: int) -> None:
        """A micro-step over so many real tokens is done."""


class HookedLoader:
    """Stands in for torch's DataLoader: passes every batch on, and tells the hook of it."""

    def __init__(self, loader: Any, hook: Hook) -> None:
        self._loader = loader
        self._hook = hook

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._hook.begin()
        for batch in self._loader:
            tokens = int((batch[1] != -100).sum())
            yield batch
            # Asked for the next one: this one is trained.
            self._hook.micro_step(tokens)


class TimeIsUp(Exception):
    """Ends the trainer from inside its loader."""


class SpeedHook:
    """Measures tokens per second over whole updates, then ends the run."""

    def __init__(self, warmup_seconds: float, seconds: float, accumulation_steps: int) -> None:
        self._span = (warmup_seconds, seconds)
        self._accumulation_steps = accumulation_steps
        self._window: list[int] = []
        self.clock: UpdateClock | None = None

    def begin(self) -> None:
        # Upstream closes an epoch with a short update.
        self._window.clear()
        if self.clock is None:
            self.clock = UpdateClock(*self._span, synchronize=synchronize)

    def micro_step(self, tokens: int) -> None:
        assert self.clock is not None
        self._window.append(tokens)
        if len(self._window) < self._accumulation_steps:
            return
        total = sum(self._window)
        self._window.clear()
        if self.clock.update(total):
            raise TimeIsUp


class CurveHook:
    """Keeps the weights every so many micro-steps, with the tokens and seconds until then.

    The clock stands still meanwhile. Weights go to ``folder/{micro-step}.pth`` in float32, so
    that scoring loses nothing.
    """

    def __init__(self, folder: Path, interval: int) -> None:
        self.folder = folder
        self.points: list[dict[str, Any]] = []
        self.model: Any = None
        self._interval = interval
        self._micro_steps = 0
        self._tokens = 0
        self._seconds = 0.0
        self._since: float | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def micro_step(self, tokens: int) -> None:
        self._tokens += tokens
        self._micro_steps += 1
        if self._micro_steps % self._interval == 0:
            self._stop_clock()
            self.keep()
            self._since = time.perf_counter()

    def _stop_clock(self) -> None:
        synchronize()
        assert self._since is not None
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now

    def finish(self) -> None:
        """The run is over: keep its end, which has the last epoch's last update."""
        self._stop_clock()
        if self.points and self.points[-1]["micro_step"] == self._micro_steps:
            self.points.pop()
        self.keep()

    def keep(self) -> None:
        import torch

        path = self.folder / f"{self._micro_steps}.pth"
        torch.save({k: v.detach().cpu() for k, v in self.model.state_dict().items()}, path)
        self.points.append(
            {
                "micro_step": self._micro_steps,
                "tokens": self._tokens,
                "seconds": self._seconds,
                "weights": str(path),
            }
        )


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    from minimind.distributed import device

    device.synchronize(device.pick_device())


def run(script: Path, flags: list[str], hook: Hook) -> None:
    """Run upstream's program in this process, to its end or until the hook ends it."""
    import torch.utils.data

    loader_class = torch.utils.data.DataLoader

    def hooked_loader(*args: Any, **kwargs: Any) -> HookedLoader:
        return HookedLoader(loader_class(*args, **kwargs), hook)

    torch.utils.data.DataLoader = hooked_loader  # type: ignore[misc, assignment]
    sys.argv = [str(script), *flags]
    with contextlib.suppress(TimeIsUp):
        runpy.run_path(str(script), run_name="__main__")


def shift_seed(offset: int) -> None:
    """Add to every seed that upstream sets: its seeds are constants in its code."""
    trainer_utils = importlib.import_module("trainer.trainer_utils")

    original = trainer_utils.setup_seed
    vars(trainer_utils)["setup_seed"] = lambda seed: original(seed + offset)


def follow_model(hook: CurveHook) -> None:
    """Give the hook the model that upstream builds."""
    trainer_utils = importlib.import_module("trainer.trainer_utils")

    original = trainer_utils.init_model

    def init_model(*args: Any, **kwargs: Any) -> Any:
        model, tokenizer = original(*args, **kwargs)
        hook.model = model
        return model, tokenizer

    vars(trainer_utils)["init_model"] = init_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--upstream", type=Path, required=True, metavar="DIR")
    parser.add_argument("--accumulation_steps", type=int, required=True)
    parser.add_argument("--warmup_seconds", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--curve", type=Path, metavar="DIR", help="keep weights, not the speed")
    parser.add_argument("--interval", type=int, default=100, help="micro-steps between weights")
    parser.add_argument("--seed_offset", type=int, default=0)
    args, flags = parser.parse_known_args()
    flags += ["--accumulation_steps", str(args.accumulation_steps)]
    script = check_clone(args.upstream)
    sys.path.insert(0, str(script.parent.parent))
    if args.curve is None:
        speed = SpeedHook(args.warmup_seconds, args.seconds, args.accumulation_steps)
        run(script, flags, speed)
        if speed.clock is None:
            sys.exit("upstream's trainer asked for no data")
        print_result({**speed.clock.result(), "memory_gb": peak_memory_gb()})
        return
    curve = CurveHook(args.curve, args.interval)
    shift_seed(args.seed_offset)
    follow_model(curve)
    run(script, flags, curve)
    curve.finish()
    print_result({"points": curve.points})


if __name__ == "__main__":
    main()
