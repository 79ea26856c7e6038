"""Charts as inline SVG that fits any width.

The picture is stretched to its box, while strokes and text keep their size: the curves are SVG
whose strokes do not scale, and the labels are HTML placed in percent. So one drawing serves a
wide screen and a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minimind.charts.charts import Chart, Curve
from minimind.report.words import text
from minimind.system.terminal import number_text

WIDTH, HEIGHT = 1000, 400
"""Units of the drawing; what is shown has the size of its box."""

COLOURS = 12
"""Colours that the style sheet has; a run beyond them takes the first again."""


def draw(chart: Chart) -> str:
    """A ``<div>`` with the curves, the axes and what the page's script needs to read them."""
    low, high = chart.y_range
    left, right = chart.x_range
    y_ticks = [(100 - 100 * chart.y_place(t), _y_text(chart, t)) for t in chart.y_ticks()]
    x_ticks = [(100 * chart.x_place(t), number_text(t)) for t in chart.x_ticks()]
    grid = "".join(
        f'<path class="grid" d="M0 {_place(y * HEIGHT / 100)}H{WIDTH}"/>' for y, _ in y_ticks
    )
    marks = "".join(
        f'<path class="mark" d="M{_place(WIDTH * chart.x_place(x))} 0V{HEIGHT}">'
        f"<title>resumed at step {number_text(x)}</title></path>"
        for x in chart.marks
    )
    curves = "".join(_curve(chart, curve) for curve in chart.curves if curve.x)
    y_labels = "".join(f'<span style="top:{_place(y)}%">{tick}</span>' for y, tick in y_ticks)
    x_labels = "".join(f'<span style="left:{_place(x)}%">{tick}</span>' for x, tick in x_ticks)
    names = ", ".join(curve.label for curve in chart.curves if curve.x)
    return (
        f'<div class="plot" data-x="{left!r} {right!r}" data-y="{low!r} {high!r}"'
        f' data-log="{int(chart.log)}" data-percent="{int(chart.percent)}"'
        f' data-axis="{text(chart.x_title)}">'
        f'<div class="ys" aria-hidden="true">{y_labels}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"'
        f' aria-label="{text(f"{chart.title} over {chart.x_title}: {names}")}">'
        f"{grid}{marks}{curves}</svg>"
        f'<div class="xs" aria-hidden="true">{x_labels}</div></div>'
    )


def _curve(chart: Chart, curve: Curve) -> str:
    lone = " lone" if sum(map(math.isfinite, curve.y)) == 1 else ""
    classes = f"curve {curve.style} c{curve.run % COLOURS}{lone}"
    label, places = text(curve.label), path_data(chart, curve)
    return f'<path class="{classes}" data-label="{label}" d="{places}"/>'


def path_data(chart: Chart, curve: Curve) -> str:
    """The ``d`` of a curve. A value that cannot be shown is a gap; a lone point is a dot."""
    words = []
    pen_down = False
    shown = [math.isfinite(chart.y_place(y)) for y in curve.y]
    for index, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
        if not shown[index]:
            pen_down = False
            continue
        place = f"{_place(WIDTH * chart.x_place(x))} {_place(HEIGHT * (1 - chart.y_place(y)))}"
        alone = not pen_down and not any(shown[index + 1 : index + 2])
        words.append(f"{'L' if pen_down else 'M'}{place}{'h0' if alone else ''}")
        pen_down = True
    return "".join(words)


def _y_text(chart: Chart, value: float) -> str:
    return f"{100 * value:.3g}%" if chart.percent else number_text(value)


def _place(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def bar(parts: Sequence[tuple[str, float, str]], label: str, thin: bool = False) -> str:
    """A stacked bar: ``(class, share of the whole, tooltip)`` from left to right."""
    blocks = "".join(
        f'<i class="{text(name)}" style="width:{_place(100 * share)}%" title="{text(tip)}"></i>'
        for name, share, tip in parts
        if share > 0
    )
    size = " thin" if thin else ""
    return f'<div class="bar{size}" role="img" aria-label="{text(label)}">{blocks}</div>'
