from __future__ import annotations

from minimind.charts.charts import Chart, Curve

NO_VALUES: list[list[float]] = [[], [3.0], [0.0], [float("nan")], [-2.0, -2.0], [1e30, -1e30]]
"""Curves that leave an axis little to go by."""


def chart(y: list[float], x: list[float] | None = None, **values: bool) -> Chart:
    curve = Curve("a", 0, x or [float(n) for n in range(1, len(y) + 1)], y)
    return Chart("key", "Title", "unit", [curve], **values)
