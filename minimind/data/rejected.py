"""The rows that cannot be used: each is listed and counted, none is dropped without a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from minimind.data.rows import BadRow
from minimind.errors import DataError


class RejectedRows:
    """Counts bad rows by reason and writes each as a line of JSON: file, line, reason, preview."""

    def __init__(self, listing: IO[str]) -> None:
        self._listing = listing
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.first = ""
        """``FILE:LINE: reason`` of the first."""

    def add(self, path: Path, rows: Iterable[BadRow]) -> None:
        for row in rows:
            entry = {"file": str(path), **asdict(row)}
            self._listing.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._count(entry)

    def count_listed(self, lines: Iterable[str]) -> None:
        """Count rows that were listed before.

        Raises:
            ValueError, LookupError, TypeError: a line is no such row.
        """
        for line in lines:
            self._count(json.loads(line))

    def _count(self, entry: dict[str, Any]) -> None:
        reason = str(entry["reason"])
        # Without the position, which differs from row to row.
        self.reasons[reason.partition(":")[0].partition(" at ")[0]] += 1
        self.first = self.first or f"{entry['file']}:{entry['line']}: {reason}"
        self.count += 1

    def to_dict(self, listing: Path) -> dict[str, Any]:
        """For ``--json``; ``listing`` is where the rows were listed."""
        return {
            "count": self.count,
            "reasons": dict(self.reasons),
            "first": self.first or None,
            "list": str(listing) if self.count else None,
        }

    def refuse_more_than(self, limit: int) -> None:
        """Raise DataError when there are more than ``--max_bad_rows`` (-1: never)."""
        if 0 <= limit < self.count:
            raise DataError(
                f"{self.count} unusable rows, more than --max_bad_rows {limit}; "
                f"the first is {self.first}"
            )
