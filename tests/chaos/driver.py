"""Runs cases: each a training that is interfered with a few times, and judged at its end.

Everything that is drawn comes from the seed, the layer and the case's number, so that a case is
repeated with the same faults: ``python -m tests.chaos --seed 7 --layer plain --case 12``. The
moments are those of real processes, and fall a little differently each time.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.faults import Fault, applicable
from tests.chaos.judge import judge
from tests.chaos.report import Report
from tests.chaos.target import ASKED_FOR, HELD_OUT, VARIANTS, Ending, Layer, Lost, Target
from tests.runs import Run

USUAL_CODES = frozenset({0, 75})
"""75 is also how an attempt ends that makes room for one with other faults."""
USUAL_CAUSES = frozenset({"done", "stop_requested"})


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, flush=True)


@dataclass
class Driver:
    """Runs cases of one layer, whose undisturbed runs lie in ``folder``."""

    layer: Layer
    folder: Path
    seed: int
    say: Callable[[str], None] = say
    only: Sequence[str] = ()
    """The faults to draw from, where it is not all."""
    variant: str = ""
    """The training, where it is not drawn."""
    faults: int = 0
    """How many a case gets, where it is not drawn."""
    each: int = 0
    """How many of each of ``only`` a case gets, in any order, where it is not drawn."""
    keep: Path | None = None
    """Where undisturbed runs, and what they compiled, are kept for other drivers of this code."""
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        self.report = Report(self.layer.name, self.seed)

    def case(self, number: int) -> bool:
        """Run one case; False when the judge found something."""
        rng = Random(f"{self.seed} {self.layer.name} {number}")
        world_size = rng.choice(self.layer.world_sizes)
        variant = rng.choice(list(VARIANTS))
        if variant == "compiled" and rng.random() < 0.8:
            variant = "dense"
        variant = self.variant or variant
        flags = {**self.layer.flags, **(VARIANTS | ASKED_FOR)[variant]}
        if "eval_interval" in flags:
            flags["eval_data_path"] = flags["data_path"].with_name(HELD_OUT)
        undisturbed = self._undisturbed(variant, flags, world_size)
        began = time.monotonic()
        name = f"{self.layer.name}-{self.seed}-{number}"
        done: list[str] = []
        numbers = count(1)
        with self.layer.make(name, flags, world_size) as run:
            run.beside = lambda changes: self.layer.make(
                f"{name}-beside-{next(numbers)}", flags | changes, world_size
            )
            try:
                self._interfere(run, rng, done)
                if self.keep and run.compiles:
                    run.rest()
                    lend_compiled(undisturbed.folder / "cache", run.cache_dir)
                run.complete()
                judge(run, undisturbed)
            except Exception as error:
                text = str(error) if isinstance(error, Lost) else traceback.format_exc()
                if run.is_running():
                    text += f"\n{run.stacks()}"
                replay = f"--seed {self.seed} --layer {self.layer.name} --case {number}"
                replay += "".join(f" --only {name}" for name in self.only)
                replay += f" --faults {self.faults}" if self.faults else ""
                replay += f" --each {self.each}" if self.each else ""
                replay += f" --variant {self.variant}" if self.variant else ""
                self.report.losses.append(
                    f"python -m tests.chaos {replay}\n{variant}, {world_size} ranks, "
                    f"after {', '.join(done)}:\n{text}\nfolder: {run.folder}"
                )
                self.say(f"LOST: {self.report.losses[-1]}")
                return False
            seconds = time.monotonic() - began
            self.report.add(seconds, done, [str(ending) for ending in run.endings])
        ranks = f"{world_size} rank{'s' if world_size > 1 else ''}"
        self.say(f"{name}: {variant}, {ranks}, {seconds:.1f} s: {', '.join(done)}")
        shutil.rmtree(run.folder, ignore_errors=True)
        return True

    def _interfere(self, run: Target, rng: Random, done: list[str]) -> None:
        """Inject some faults, and insist after each that attempts ended as these let them end."""
        pending: list[Fault] = []
        seen = 0
        for name in self._plan(rng):
            choices = applicable(self.layer.name, run, [name] if name else self.only)
            if not choices:
                continue
            (fault,) = rng.choices(choices, [choice.weight for choice in choices])
            # Its own random numbers: how many it draws depends on what it finds.
            own = Random(rng.random())
            if run.is_over():
                break
            pending.append(fault)
            done.append(fault.name)
            detail = fault.act(run, own)
            if isinstance(detail, list):
                done[-1:] = detail
            elif detail:
                done[-1] = f"{fault.name} {detail}"
            if fault.ends:
                run.settle()
            for ending in run.endings[seen:]:
                insist_allowed(ending, pending)
            if len(run.endings) > seen and run.endings_are_final and not run.is_running():
                pending = []
            seen = len(run.endings)

    def _plan(self, rng: Random) -> list[str]:
        """The faults of a case by name; empty where one is drawn when its turn has come."""
        if self.each:
            names = [name for name in self.only for _ in range(self.each)]
            rng.shuffle(names)
            return names
        return [""] * (self.faults or rng.randint(*self.layer.faults))

    def _undisturbed(self, variant: str, flags: dict[str, Any], world_size: int) -> Run:
        name = f"undisturbed-{variant}-{world_size}-{flags.get('epochs')}"
        folder = (self.keep or self.folder) / name
        run = Run(folder, {**flags, "cache_dir": folder / "cache"})
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            run.complete(world_size)
            (folder / "complete").touch()
        return run


def lend_compiled(source: Path, destination: Path) -> None:
    """Copy compiled code from one cache into another: to compile takes minutes."""
    for compiled in source.glob("compiled-*"):
        shutil.copytree(compiled, destination / compiled.name, dirs_exist_ok=True)


def insist_allowed(ending: Ending, faults: list[Fault]) -> None:
    """Insist that an attempt ended as one of ``faults`` may make it end.

    Raises:
        Lost: it ended in another way.
    """
    codes = USUAL_CODES.union(*(fault.codes for fault in faults))
    causes = USUAL_CAUSES.union(*(fault.causes for fault in faults))
    if set(ending.codes) - codes or (ending.cause and ending.cause not in causes):
        names = ", ".join(fault.name for fault in faults)
        raise Lost(f"{names} may end an attempt otherwise, but not with {ending}")
