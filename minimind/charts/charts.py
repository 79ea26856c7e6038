"""Which curves a report shows, and the arithmetic of drawing them: ranges, ticks, thinning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

MAX_POINTS = 400
"""Points of a curve that are drawn; a page of many runs must stay small."""


class Run(Protocol):
    """What a chart shows of a run; the records hold numbers under the trainer's names."""

    @property
    def name(self) -> str: ...

    @property
    def points(self) -> Sequence[Mapping[str, Any]]:
        """Logged training points."""

    @property
    def held_out(self) -> Sequence[Mapping[str, Any]]:
        """Evaluations on held-out text."""

    @property
    def resumed_at(self) -> Sequence[int]:
        """Optimiser steps."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart. ``y`` may hold NaN: a gap."""

    label: str
    run: int
    x: list[float]
    y: list[float]
    style: Literal["line", "faint", "dashed"] = "line"

    @property
    def last(self) -> float | None:
        return next((y for y in reversed(self.y) if math.isfinite(y)), None)


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        key: a file name stem.
        marks: places on the x axis where a run was resumed.
        log: the y axis is logarithmic.
    """

    key: str
    title: str
    unit: str
    curves: list[Curve]
    x_title: str = "optimiser step"
    marks: list[float] = field(default_factory=list)
    from_zero: bool = False
    log: bool = False
    percent: bool = False

    @property
    def x_range(self) -> tuple[float, float]:
        values = [x for curve in self.curves for x in curve.x]
        low, high = min(values, default=0.0), max(values, default=1.0)
        if self.x_title == "optimiser step":
            low = min(low, 0.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @property
    def y_range(self) -> tuple[float, float]:
        values = [y for curve in self.curves for y in curve.y if math.isfinite(y)]
        if self.log:
            values = [y for y in values if y > 0] or [1.0]
        low, high = min(values, default=0.0), max(values, default=1.0)
        if self.log:
            return (low / 1.1, high * 1.1)
        if self.from_zero:
            low = min(low, 0.0)
        room = (high - low or abs(high) or 1.0) * 0.04
        return (low if low == 0.0 else low - room, high + room)

    def y_ticks(self) -> list[float]:
        low, high = self.y_range
        return log_ticks(low, high) if self.log else ticks(low, high, 5)

    def x_ticks(self) -> list[float]:
        """Whole numbers, since steps and tokens are."""
        return [tick for tick in ticks(*self.x_range, 5) if tick == round(tick)]

    def y_place(self, y: float) -> float:
        """0 at the bottom of the chart, 1 at its top; NaN where it cannot be shown."""
        low, high = self.y_range
        if not math.isfinite(y) or (self.log and y <= 0):
            return math.nan
        if self.log:
            low, high, y = math.log(low), math.log(high), math.log(y)
        return (y - low) / (high - low)

    def x_place(self, x: float) -> float:
        low, high = self.x_range
        return (x - low) / (high - low)


def build_charts(runs: Sequence[Run]) -> list[Chart]:
    """Every chart that the runs have points for."""
    charts = [
        loss_chart(runs),
        *([tokens_chart(runs)] if len(runs) > 1 else []),
        _chart(runs, "learning_rate", "Learning rate", "", from_zero=True),
        _chart(runs, "grad_norm", "Gradient norm", "before clipping", from_zero=True),
        _chart(runs, "tokens_per_second", "Throughput", "tokens a second", from_zero=True),
        _chart(runs, "mfu", "MFU", "share of the peak FLOP/s", from_zero=True, percent=True),
        _memory_chart(runs),
        _chart(runs, "bits_per_byte", "Held-out bits per byte", "", held_out=True),
        _chart(runs, "aux_loss", "Load-balancing loss", "of the experts", from_zero=True),
        _chart(runs, "gpu_utilization", "GPU load", "% of the time", from_zero=True),
        _chart(runs, "gpu_temperature", "GPU temperature", "°C"),
    ]
    shown = [chart for chart in charts if any(curve.x for curve in chart.curves)]
    return [c for c in shown if c.key != "aux_loss" or any(any(v.y) for v in c.curves)]


def loss_chart(runs: Sequence[Run]) -> Chart:
    """Training loss as logged, faint, and its moving mean; held-out loss dashed."""
    curves = _loss_curves(runs, "global_step")
    for number, run in enumerate(runs):
        x, y = _series(run, "eval_loss", held_out=True)
        if len(runs) == 1:
            # Alone, a run need not keep one colour: the two curves often lie close together.
            curves.append(Curve("held out", 1, x, y, "dashed"))
        else:
            curves.append(Curve(f"{run.name}, held out", number, x, y, "dashed"))
    return Chart("loss", "Loss", "nats per token", curves, marks=_marks(runs))


def tokens_chart(runs: Sequence[Run]) -> Chart:
    """Runs of unlike batches are compared over the text that they have seen."""
    curves = _loss_curves(runs, "tokens")
    return Chart("loss_by_tokens", "Loss by text seen", "nats per token", curves, x_title="tokens")


def _loss_curves(runs: Sequence[Run], x_key: str) -> list[Curve]:
    curves = []
    for number, run in enumerate(runs):
        x, y = _series(run, "loss", x_key=x_key)
        label = "training" if len(runs) == 1 else run.name
        smooth = moving_mean(y, len(y) // 40)
        if smooth != y and len(runs) == 1:
            curves.append(Curve("as logged", number, *thin(x, y), "faint"))
        curves.append(Curve(label, number, *thin(x, smooth)))
    return curves


def _memory_chart(runs: Sequence[Run]) -> Chart:
    on_gpu = any("gpu_memory_peak_gb" in point for run in runs for point in run.points)
    key, unit = ("gpu_memory_peak_gb", "GB reserved on the GPU")
    if not on_gpu:
        key, unit = ("host_memory_gb", "GB resident, rank 0")
    return _chart(runs, key, "Memory", unit, from_zero=True)


def _chart(
    runs: Sequence[Run],
    key: str,
    title: str,
    unit: str,
    held_out: bool = False,
    from_zero: bool = False,
    percent: bool = False,
) -> Chart:
    curves = []
    for number, run in enumerate(runs):
        x, y = _series(run, key, held_out)
        curves.append(Curve(run.name, number, *thin(x, y)))
    positive = sorted(y for curve in curves for y in curve.y if math.isfinite(y) and y > 0)
    # One spike must not press the rest of the curve flat.
    spiky = key == "grad_norm" and bool(positive) and positive[-1] > 20 * _middle(positive)
    return Chart(
        key,
        title,
        unit,
        curves,
        marks=_marks(runs),
        from_zero=from_zero and not spiky,
        log=spiky,
        percent=percent,
    )


def _middle(ordered: Sequence[float]) -> float:
    return ordered[len(ordered) // 2]


def _series(
    run: Run, key: str, held_out: bool = False, x_key: str = "global_step"
) -> tuple[list[float], list[float]]:
    """A metric over steps; of several points at one step the last counts."""
    found: dict[float, float] = {}
    for record in run.held_out if held_out else run.points:
        if key in record and x_key in record:
            found[float(record[x_key])] = float(record[key])
    return list(found), list(found.values())


def _marks(runs: Sequence[Run]) -> list[float]:
    """Resumes of a run alone; of several runs at once they would only be confusing."""
    return [float(step) for step in runs[0].resumed_at] if len(runs) == 1 else []


def moving_mean(y: Sequence[float], reach: int) -> list[float]:
    """The mean of up to ``reach`` neighbours on either side, as many on both; NaN stays NaN."""
    result = []
    for index, value in enumerate(y):
        side = min(reach, index, len(y) - 1 - index)
        near = [v for v in y[index - side : index + side + 1] if math.isfinite(v)]
        result.append(sum(near) / len(near) if math.isfinite(value) else value)
    return result


def thin(
    x: Sequence[float], y: Sequence[float], limit: int = MAX_POINTS
) -> tuple[list[float], list[float]]:
    """At most about ``limit`` points with the same outline: the lowest and highest of each part.

    First and last points, and one NaN of a part that has any, are kept.
    """
    if len(x) <= limit:
        return list(x), list(y)
    kept = {0, len(x) - 1}
    parts = limit // 2
    for part in range(parts):
        indices = range(len(x) * part // parts, len(x) * (part + 1) // parts)
        finite = [i for i in indices if math.isfinite(y[i])]
        if finite:
            kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
        kept |= set([i for i in indices if not math.isfinite(y[i])][:1])
    chosen = sorted(kept)
    return [x[i] for i in chosen], [y[i] for i in chosen]


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers within a range."""
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within a range, thinned to a few; plain ticks where there is at most one."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(powers) < 2:
        return [t for t in ticks(low, high, 4) if t > 0]
    return [10.0**n for n in powers[:: 1 + len(powers) // 6]]
