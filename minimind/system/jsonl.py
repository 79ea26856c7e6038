"""Files of JSON objects, one a line: appended durably, and read whatever happened to them.

JSON has no NaN and no infinity: a non-finite number is written as the string ``"NaN"``,
``"Infinity"`` or ``"-Infinity"``, which keeps every line readable by any parser. Standard library
only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minimind.system.durable import sync_folder
from minimind.system.redact import redact

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Lines that wait while a disk refuses them: some megabytes at most."""

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(record: Mapping[str, Any]) -> str:
    """One line of strict JSON (RFC 8259); tensors and NumPy scalars become numbers, paths text.

    A secret's value is not in it (see :mod:`minimind.system.redact`).
    """
    return json.dumps(strict(record), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def strict(value: Any) -> Any:
    """``value`` in what JSON has: see :func:`to_json`."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return redact(value)
    if not isinstance(value, float):
        if not hasattr(value, "item"):
            return redact(str(value))
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds; {} where there is none that can be read."""
    with contextlib.suppress(OSError):
        return _parse(path.read_bytes()) or {}
    return {}


def read_objects(path: str | Path, having: Sequence[bytes] = ()) -> list[dict[str, Any]]:
    """The JSON objects of a file, in order; no file gives an empty list.

    A line that is none, because its writer was killed, is left out: one bad line must not take
    the others away.

    Args:
        having: read only the lines that contain one of these.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    if having:
        lines = [line for line in lines if any(part in line for part in having)]
    return [found for line in lines if (found := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class LineFile:
    """Appends lines to a file that others may append to as well.

    Each line is one ``O_APPEND`` write, so that lines never mix. A writer that was killed, or a
    disk that ran full, may have left half a line at the end; the next one then starts on a line
    of its own, so that only the torn one is lost.

    Raises:
        OSError: the file cannot be opened; so do all methods when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o644)
        if os.fstat(self._descriptor).st_size == 0:
            # A line in a file whose name is not on the disk is not on the disk either.
            sync_folder(path.parent)
        self._tail_is_known = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record, which is durable after :meth:`sync`."""
        self.append_bytes(encoded(record))

    def append_bytes(self, line: bytes) -> None:
        """Append a line that :func:`encoded` made."""
        if not self._tail_is_known and self._ends_torn():
            line = b"\n" + line
        self._tail_is_known = False
        while line:
            line = line[os.write(self._descriptor, line) :]
        self._tail_is_known = True

    def _ends_torn(self) -> bool:
        size = self.size()
        return size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def size(self) -> int:
        """The bytes of the file."""
        return os.fstat(self._descriptor).st_size

    def read_from(self, offset: int) -> bytes:
        """What the file holds from ``offset`` on; all of it where it has become shorter."""
        size = self.size()
        start = offset if offset <= size else 0
        return os.pread(self._descriptor, size - start, start)

    def sync(self) -> None:
        """Force all lines to the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; closed twice, it stays closed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as a line, whatever names of files it holds."""
    return to_json(record).encode("utf-8", "backslashreplace") + b"\n"


def append_durably(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a file; it is on the disk when this returns.

    Raises:
        OSError: the disk refuses it.
    """
    with contextlib.closing(LineFile(path)) as file:
        file.append(record)
        file.sync()


class JsonLog:
    """Appends records to a file; while the disk refuses, they wait in memory.

    Args:
        mark: what every record of this writer has besides its own fields; None is left out.
        shared: others append, too. The file is then opened for each record: a network file system
            tells its end to who opens it, and lets who has it open write over others' lines.
    """

    def __init__(
        self,
        path: str | Path,
        mark: Mapping[str, Any] | None = None,
        *,
        shared: bool = False,
    ) -> None:
        path = Path(path)
        self._mark = {key: value for key, value in (mark or {}).items() if value is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._shared = shared
        self._file: LineFile | None = LineFile(path)
        self._closed = False
        self._waiting: deque[bytes] = deque()
        self._written: deque[bytes] = deque()
        """Lines that no sync has confirmed."""
        self._synced = self._file.size()
        self._lost = 0
        self._refused = False
        # A checkpoint's thread records events beside the main one.
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is durable when this returns, unless the disk refuses it.

        No bookkeeping stops a run: a refused record waits, in memory, for the next that can be
        written. An outage is one warning when it begins, and one when it ends.
        """
        line = encoded({**record, **self._mark})
        with self._lock:
            self._waiting.append(line)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self._lost += 1
            try:
                self._write_waiting()
            except OSError as error:
                if not self._refused:
                    reason = error.strerror or error
                    log.warning("%s cannot be written: %s; its lines wait", self._path, reason)
                self._refused = True
                return
            if self._refused:
                log.warning("%s is written again; %d lines are lost", self._path, self._lost)
                self._refused, self._lost = False, 0

    def _write_waiting(self) -> None:
        try:
            if self._file is None:
                self._file = LineFile(self._path)
                self._look_for_written(self._file)
            while self._waiting:
                self._file.append_bytes(self._waiting[0])
                self._written.append(self._waiting.popleft())
            self._file.sync()
            self._written.clear()
            self._synced = self._file.size()
        except OSError:
            # Its server may have forgotten the open file, and knows it by its name.
            self._leave_file()
            raise
        if self._shared:
            self._leave_file()

    def _look_for_written(self, file: LineFile) -> None:
        """Let lines wait again that a refused sync has lost; most keep them, some do not."""
        found = file.read_from(self._synced) if self._written else b""
        lost = [line for line in self._written if line not in found]
        self._written.clear()
        self._waiting.extendleft(reversed(lost))

    def _leave_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def close(self) -> None:
        """Close the file; lines that wait are tried once more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._waiting or self._written:
                with contextlib.suppress(OSError):
                    self._write_waiting()
                if lost := self._lost + len(self._waiting):
                    log.warning("%s: %d lines are lost", self._path, lost)
            self._leave_file()
