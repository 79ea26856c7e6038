"""The charts of a report as PNG files, for slides and chats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from minimind.report.charts import Chart, build_charts
from minimind.report.read import RunRecord
from minimind.training.durable import write_durably

COLOURS = ("#2f6db3", "#c8623a", "#2f8f6b", "#8459b8", "#a67c12", "#b8457a")
"""As in the page's style sheet."""


def write_pictures(runs: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Draw every chart into ``folder``; return the files, each of which appears whole.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(chart, folder / f"{chart.key}.png") for chart in build_charts(runs)]


def _write(chart: Chart, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for curve in chart.curves:
        axis.plot(
            curve.x,
            [y if math.isfinite(chart.y_place(y)) else math.nan for y in curve.y],
            color=COLOURS[curve.run % len(COLOURS)],
            linewidth={"faint": 0.8}.get(curve.style, 1.6),
            alpha={"faint": 0.3}.get(curve.style, 1.0),
            linestyle={"dashed": ":"}.get(curve.style, "-"),
            marker="o" if len(curve.x) == 1 else None,
            # A dollar sign would begin a formula, and an underscore hides a label.
            label=" " * curve.label.startswith("_") + curve.label.replace("$", r"\$"),
        )
    for mark in chart.marks:
        axis.axvline(mark, color="#b9b4a8", linewidth=1, linestyle=(0, (2, 4)))
    axis.set_xlim(*chart.x_range)
    if chart.log:
        axis.set_yscale("log")
    axis.set_ylim(*chart.y_range)
    if chart.percent:
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.set_xlabel(chart.x_title)
    axis.set_title(f"{chart.title}, {chart.unit}" if chart.unit else chart.title, loc="left")
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    if len(chart.curves) > 1:
        axis.legend(frameon=False)
    write_durably(path, lambda partial: figure.savefig(partial, format="png"))
    return path
