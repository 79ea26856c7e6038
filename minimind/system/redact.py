"""Takes the values of secrets out of what this process prints, logs and records.

``MINIMIND_SECRETS`` names the environment variables that hold them, with commas between; the
launcher sets it from ``--secret-env``. Tokens of the services that the training talks to are
known anyway. A value is found where it stands as it is: not one that is split over two writes,
encoded, or printed from C or by a program that is started. Standard library only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, TextIO

VARIABLE = "MINIMIND_SECRETS"
KNOWN = ("SWANLAB_API_KEY", "HF_TOKEN")

SHORTEST = 6
"""Characters of a value that is looked for: a shorter one stands in much that is no secret."""

MASK = "***"

_values: list[str] = []


def redact(text: str) -> str:
    """``text`` without the values of secrets."""
    for value in _values:
        text = text.replace(value, MASK)
    return text


def install() -> None:
    """From now on, standard output and error and all logs go through :func:`redact`.

    Without a secret in the environment everything stays as it is; called again, it looks for
    new ones.
    """
    names = [*KNOWN, *os.environ.get(VARIABLE, "").split(",")]
    found = {value for name in names if len(value := os.environ.get(name, "")) >= SHORTEST}
    if not found:
        return
    is_first = not _values
    # A value may hold another one.
    _values[:] = sorted(found.union(_values), key=len, reverse=True)
    if is_first:
        sys.stdout, sys.stderr = _Redacted(sys.stdout), _Redacted(sys.stderr)
        make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *given, **more: _redacted(make(*given, **more)))


def _redacted(record: logging.LogRecord) -> logging.LogRecord:
    # A record that cannot be put together is left to its handlers, which say so.
    with contextlib.suppress(Exception):
        record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        # A formatter takes this text before it makes its own.
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return record


class _Redacted:
    """A text stream; all but what is written is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
