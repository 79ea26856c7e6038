"""The charts of a report as PNG files, for slides and chats."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from minimind.charts.charts import Chart, Run, build_charts
from minimind.system.durable import write_durably

log = logging.getLogger(__name__)

COLOURS = (
    *("#2f6db3", "#c8623a", "#2f8f6b", "#8459b8", "#a67c12", "#b8457a"),
    *("#16808a", "#6b7a1f", "#b5302b", "#56657a", "#80573b", "#a63fb0"),
)
"""As in the page's style sheet."""

MOST_NAMES = 6
"""More stand beside the curves, not over them."""

HAN_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("PingFang SC", "Heiti SC", "Microsoft YaHei", "SimHei"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP", "Droid Sans Fallback"),
)
"""What systems have for Chinese, which the font that comes with matplotlib has not."""


def write_pictures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw every chart into ``folder``; return the files, each of which appears whole.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="Glyph .* missing from")
        families = fonts()
        files = [_write(c, folder / f"{c.key}.png", families) for c in build_charts(runs)]
    if caught:
        log.warning(
            "no installed font has all letters of the names in the pictures; "
            "install one, as Debian's fonts-noto-cjk for Chinese"
        )
    return files


def fonts() -> list[str]:
    """matplotlib's own, and after it the installed ones that draw a Chinese name of a run."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # Its own list is from the day when matplotlib was first used here.
    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):
            fontManager.addfont(path)
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in HAN_FONTS if name in installed)]


def _write(chart: Chart, path: Path, families: list[str]) -> Path:
    import matplotlib

    with matplotlib.rc_context({"font.family": families}):
        return _draw(chart, path)


def _draw(chart: Chart, path: Path) -> Path:
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
    if len(chart.curves) > MOST_NAMES:
        # A run's held-out curve has its colour, and needs no name of its own.
        lines = zip(axis.lines, chart.curves, strict=False)
        named = [line for line, curve in lines if curve.style != "dashed"]
        figure.legend(handles=named, frameon=False, loc="outside right upper")
        figure.set_figheight(max(figure.get_figheight(), 0.3 * len(named)))
    elif len(chart.curves) > 1:
        axis.legend(frameon=False)
    write_durably(path, lambda partial: figure.savefig(partial, format="png"))
    return path
