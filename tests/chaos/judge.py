"""Equal or not: a run that was interfered with against one that was left alone."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.chaos.target import Lost, Target
from tests.runs import STATE_KEYS, Run, differences

GONE_SECONDS = 15.0
"""How long after a run's end its processes and containers may take to be gone."""


def judge(run: Target, undisturbed: Run) -> None:
    """Compare everything that a run leaves.

    Raises:
        Lost: weights, optimiser, random numbers, rows, losses, held-out losses or samples differ
            in a bit, a row of an epoch was trained twice or never, a file was left half-written,
            or a process lives on.
    """
    mine = Run(run.folder, {})
    mine_state, theirs_state = mine.state(), undisturbed.state()
    for key in (*STATE_KEYS, "ranks"):
        found = differences(mine_state[key], theirs_state[key], key)
        _insist(not found, f"the checkpoint differs: {found[:5]}")
    found = differences(_weights(mine), _weights(undisturbed))
    _insist(not found, f"the weight file differs: {found[:5]}")
    for rank in range(run.world_size):
        _insist(_rows(mine, rank) == _rows(undisturbed, rank), f"rank {rank} trained other rows")
    _insist(
        mine.losses() == undisturbed.losses(), f"the losses differ: {_first(mine, undisturbed)}"
    )
    _insist(mine.scores() == undisturbed.scores(), "the held-out losses differ")
    _insist(mine.samples() == undisturbed.samples(), "the samples differ")
    trained, wanted = Counter(mine.trained_rows()), Counter(undisturbed.trained_rows())
    wrong = [place for place in trained | wanted if trained[place] != 1]
    _insist(not wrong, f"(epoch, row) trained twice or never: {wrong[:5]}")
    half = [str(p) for f in (run.save_dir, run.checkpoint_dir) for p in _half_written(f)]
    _insist(not half, f"left half-written: {half}")
    end = time.monotonic() + GONE_SECONDS
    while left := run.leftovers():
        _insist(time.monotonic() < end, f"lives on after the end: {left}")
        time.sleep(0.1)


def _rows(run: Run, rank: int) -> list[tuple[int, int, list[int]]]:
    return [(r["epoch"], r["step"], r["rows"]) for r in run.records(rank)]


def _first(mine: Run, undisturbed: Run) -> str:
    ours, wanted = mine.losses(), undisturbed.losses()
    places = [p for p in sorted(ours.keys() | wanted.keys()) if ours.get(p) != wanted.get(p)]
    return f"at {places[0]}: {ours.get(places[0])}, not {wanted.get(places[0])}" if places else ""


def _weights(run: Run) -> Any:
    (path,) = run.save_dir.glob("*.pth")
    return torch.load(path, weights_only=True)


def _half_written(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.startswith(".") or p.suffix in (".tmp", ".lock")]


def _insist(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Lost(otherwise)
