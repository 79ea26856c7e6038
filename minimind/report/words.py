"""Values as people read them, safe in HTML."""

from __future__ import annotations

import html
import re
import time
from typing import Any

from minimind.system.terminal import number_text

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


def moment(seconds: float) -> str:
    """A Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
