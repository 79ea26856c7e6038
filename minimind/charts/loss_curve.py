"""The picture of a run: loss and learning rate over optimiser steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minimind.rundir.events import Kind
from minimind.rundir.metrics import read_metrics
from minimind.system.durable import write_durably


def plot_loss_curve(metrics_path: Path, png_path: Path) -> None:
    """Draw training loss, held-out loss and learning rate of ``metrics.jsonl`` as a PNG.

    The file appears whole or not at all. With no points yet it is an empty chart.

    Raises:
        Exception: matplotlib or the disk failed; the caller decides whether that matters.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    records = read_metrics(metrics_path)
    train = _series(records, "loss")
    held_out = _series(records, "eval_loss")
    rates = _series(records, "learning_rate")

    figure = Figure(figsize=(9, 6), dpi=120)
    FigureCanvasAgg(figure)
    # A layout that matplotlib finds out takes two drawings.
    margins = {"left": 0.09, "right": 0.98, "bottom": 0.09, "top": 0.94, "hspace": 0.12}
    loss_axis, rate_axis = figure.subplots(
        2, 1, sharex=True, height_ratios=[4, 1], gridspec_kw=margins
    )

    if train[0]:
        marker = "o" if len(train[0]) == 1 else None
        label = f"training (last {train[1][-1]:.3f})"
        loss_axis.plot(*train, color="#1f77b4", linewidth=1.2, marker=marker, label=label)
    if held_out[0]:
        label = f"held out (last {held_out[1][-1]:.3f})"
        style = {"marker": "o", "markersize": 4, "linewidth": 1.2, "linestyle": "--"}
        loss_axis.plot(*held_out, color="#d62728", label=label, **style)
    if train[0] or held_out[0]:
        loss_axis.legend(frameon=False)
    else:
        middle = {"ha": "center", "va": "center", "transform": loss_axis.transAxes}
        loss_axis.text(0.5, 0.5, "no points logged yet", color="#666666", **middle)
    loss_axis.set_ylabel("loss (nats per token)")
    loss_axis.set_title(_title(records))

    if rates[0]:
        marker = "o" if len(rates[0]) == 1 else None
        rate_axis.plot(*rates, color="#2ca02c", linewidth=1.2, marker=marker)
        rate_axis.set_ylim(bottom=0)
    rate_axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    rate_axis.set_ylabel("learning rate")
    rate_axis.set_xlabel("optimiser step")
    rate_axis.set_xlim(left=0)
    rate_axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (loss_axis, rate_axis):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)

    png_path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(png_path, lambda partial: figure.savefig(partial, format="png"))


def _series(records: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric; a NaN stays, as a gap in the line."""
    points = [
        (record["global_step"], float(record[key]))
        for record in records
        if "event" not in record
        and isinstance(record.get("global_step"), int)
        and isinstance(record.get(key), (int, float))
    ]
    return [step for step, _ in points], [value for _, value in points]


def _title(records: list[dict[str, Any]]) -> str:
    resumes = sum(record.get("event") == Kind.RESUMED for record in records)
    if not resumes:
        return "MiniMind pretraining"
    return f"MiniMind pretraining ({resumes} {'resume' if resumes == 1 else 'resumes'})"
