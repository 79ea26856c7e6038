"""The list of all faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Act = Callable[..., str | list[str] | None]


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    act: Act
    layers: tuple[str, ...]
    codes: frozenset[int]
    """Exit codes that ranks may have because of it, besides 0 and 75."""
    causes: frozenset[str]
    """Causes that the launcher may record because of it, besides ``done`` and a stop."""
    ends: bool
    """Whether an attempt has to end because of it."""
    weight: float
    needs: Callable[[Any], bool]
    """Whether a run has what this fault hits."""


ALL: list[Fault] = []


def fault(
    *layers: str,
    codes: tuple[int, ...] = (),
    causes: tuple[str, ...] = (),
    ends: bool = False,
    weight: float = 1.0,
    needs: Callable[[Any], bool] = lambda run: True,
) -> Callable[[Act], Act]:
    """Add a function to the list."""

    def add(act: Act) -> Act:
        name = act.__name__
        found = Fault(name, act, layers, frozenset(codes), frozenset(causes), ends, weight, needs)
        ALL.append(found)
        return act

    return add


def applicable(layer: str, run: Any, only: Sequence[str] = ()) -> list[Fault]:
    """The faults for a run of this layer; ``only``: of these names, where it has any."""
    return [
        fault
        for fault in ALL
        if layer in fault.layers and fault.needs(run) and (not only or fault.name in only)
    ]
