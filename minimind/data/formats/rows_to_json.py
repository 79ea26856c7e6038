"""Rows of other formats as lines of JSON, so that one reader judges all of them."""

from __future__ import annotations

import base64
import json
from json.encoder import encode_basestring
from typing import Any


def text_line(field: str, text: Any) -> bytes:
    """As :func:`to_line` with one field; half the work where that is a text, as almost always."""
    if type(text) is not str:
        return to_line({field: text})
    line = f"{{{encode_basestring(field)}: {encode_basestring(text)}}}"
    return line.encode("utf-8", "surrogateescape")


def to_line(row: Any) -> bytes:
    """A line of JSON, of which bytes that are no UTF-8 stay what they were."""
    text = json.dumps(_readable(row), ensure_ascii=False, default=_plain)
    return text.encode("utf-8", "surrogateescape")


def _readable(value: Any) -> Any:
    """Columns of bytes often hold text; only where that is at the top."""
    if not isinstance(value, dict):
        return value
    return {key: _decoded(v) if isinstance(v, bytes) else v for key, v in value.items()}


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    """What JSON has no word for: dates, decimals, durations; and bytes inside of something."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
