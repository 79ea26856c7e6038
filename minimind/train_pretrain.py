"""The pretraining program: flags in, exit code out.

Run as ``minimind pretrain``, ``python -m minimind.train_pretrain`` or
``python minimind/train_pretrain.py``; alone, with ``--procs``, under torchrun or under Slurm.
The twelve steps of a run are in :mod:`minimind.training.pretrain`, which is imported only after
the flags are known to be good and the stop signals are handled: loading torch takes seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # Run as a file: Python put this folder on the path, where `data` and `model` would
    # be importable under the wrong names. The folder above is the one that is meant.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minimind.config import TrainConfig, parse_args, take_procs
from minimind.distributed.local_ranks import run_ranks
from minimind.distributed.processors import share_processors
from minimind.distributed.rendezvous import find_rendezvous, left_alone
from minimind.distributed.starter import stopping_with_starter
from minimind.errors import (
    EXIT_CRASHED,
    EXIT_DONE,
    EXIT_RUN_ME_AGAIN,
    ConfigError,
    MiniMindError,
)
from minimind.system import redact
from minimind.system.signals import StopFlag, StopRequested
from minimind.system.terminal import complain, show
from minimind.system.timeout import leave_in_time
from minimind.training.result import RunResult

if TYPE_CHECKING:
    from minimind.training.trainer import Trainer


def pretrain(
    config: TrainConfig, on_micro_batch: Callable[[Trainer], None] | None = None
) -> RunResult:
    """Run one pretraining from its start, or from where its checkpoint stands, to its end.

    Args:
        on_micro_batch: called before each micro-batch, on every rank; what it raises ends the run.

    Raises:
        ConfigError, DataError, WeightsError: the run cannot start; the message says what to
            change.
        MiniMindError: it cannot go on; the message says why.
    """
    return _pretrain(config, on_micro_batch, StopFlag())


def _pretrain(
    config: TrainConfig, on_micro_batch: Callable[[Trainer], None] | None, stop_flag: StopFlag
) -> RunResult:
    with stop_flag.installed(), stopping_with_starter():
        try:
            from minimind.training.pretrain import run

            return run(config, stop_flag, on_micro_batch)
        except StopRequested as request:
            show(sys.stderr, f"{request} before training began: nothing to save\n")
            return RunResult.of(config, stopped=True, global_step=0)


def main(
    argv: Sequence[str] | None = None, on_micro_batch: Callable[[Trainer], None] | None = None
) -> int:
    """Parse the flags, run, and say with the exit code how it ended: 0, 1, 2 or 75."""
    redact.install()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        flags, procs = take_procs(words)
        config = parse_args(flags)
        if procs > 1:
            return start_ranks(words, flags, procs)
        share_processors(os.environ)
        if warning := left_alone(os.environ):
            show(sys.stderr, f"minimind pretrain: warning: {warning}\n")
    except MiniMindError as error:
        return complain("minimind pretrain", error)
    stop_flag = StopFlag()
    try:
        with stop_flag.leaving_in_time():
            result = _pretrain(config, on_micro_batch, stop_flag)
    except MiniMindError as error:
        if error.reported_elsewhere:
            return error.exit_code
        return complain("minimind pretrain", error)
    except Exception as error:
        summary = (str(error).splitlines() or [""])[0]
        show(
            sys.stderr,
            f"minimind pretrain: crashed: {type(error).__name__}: {summary} "
            f"(traceback in {config.save_dir}/train*.log)\n",
        )
        return EXIT_CRASHED
    return EXIT_RUN_ME_AGAIN if result.stopped else EXIT_DONE


def start_ranks(words: Sequence[str], flags: Sequence[str], count: int) -> int:
    """Run ``count`` ranks of the command that started this process, with ``flags`` for ``words``.

    Raises:
        ConfigError: this process is a rank itself.
        MiniMindError: the machine takes no more processes.
    """
    place = find_rendezvous(os.environ)
    if place is not None and place.world_size > 1:
        raise ConfigError(
            f"--procs {count}: this process is rank {place.rank} of {place.world_size} already, "
            "started by torchrun or srun; leave --procs out"
        )
    print(f"{count} ranks on this machine", flush=True)
    try:
        return run_ranks([sys.executable, *_this_program(words), *flags], count)
    except OSError as error:
        raise MiniMindError(f"--procs {count}: a rank cannot start: {error.strerror}") from None


def _this_program(words: Sequence[str]) -> list[str]:
    """What Python was given before ``words``: options of its own, and a file or module."""
    own = sys.orig_argv[1:]
    if words and own[-len(words) :] == list(words):
        return own[: -len(words)]
    return ["-m", "minimind.train_pretrain"]


if __name__ == "__main__":
    sys.exit(leave_in_time(main()))
