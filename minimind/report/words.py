"""Values as people read them, safe in HTML."""

from __future__ import annotations

import html
import re
import time
from typing import Any

_NO_TEXT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""Control characters, lone surrogates, and what turns the direction of the text around."""


def text(value: Any) -> str:
    """Any value as text that is safe in HTML, in an element or a quoted attribute."""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    if isinstance(value, float):
        value = number_text(value)
    return html.escape(_NO_TEXT.sub("\ufffd", str(value)))


def counted(number: int, thing: str) -> str:
    """``1`` → ``1 step``; ``0`` → ``no step``; ``1200`` → ``1,200 steps``."""
    if number == 0:
        return f"no {thing}"
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float) -> str:
    """``3725`` → ``1 h 2 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or seconds == 0 else f"{seconds:.1f} s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def moment(seconds: float) -> str:
    """A Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def number_text(value: float) -> str:
    """A number for an axis or a tooltip: short, and never in the E notation of programmers.

    >>> number_text(12000), number_text(0.0005), number_text(2.5)
    ('12k', '0.0005', '2.5')
    """
    size = abs(value)
    if size >= 1e5 or (size >= 1e4 and value % 1000 == 0):
        for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
            if size >= limit:
                return f"{value / limit:.4g}{unit}"
    if size and size < 1e-5:
        mantissa, power = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else (value, 0)
        return f"{mantissa}·10^{int(power)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
