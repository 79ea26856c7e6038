"""What was injected, how attempts ended because of it, and what was lost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What one layer has been through."""

    layer: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Faults that hit something, in cases that were judged and found whole."""
        return sum(count for told, count in self.faults.items() if "(" not in told)

    def add(self, seconds: float, faults: list[str], endings: list[str]) -> None:
        """Count one case in that was judged and found whole."""
        self.cases += 1
        self.seconds += seconds
        self.faults.update(faults)
        self.endings.update(endings)

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**vars(self), "seconds": round(self.seconds, 1), "count": self.count})


def table(reports: list[Path]) -> str:
    """The rows of a Markdown table of all lines in ``reports``: each fault, by layer.

    What a fault found nothing to hit, or what never came, is left out.
    """
    by_layer: dict[str, Counter[str]] = {}
    for path in reports:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            found = by_layer.setdefault(entry["layer"], Counter())
            for told, count in entry["faults"].items():
                name, _, detail = told.partition(" ")
                if not detail.startswith("("):
                    found[name] += count
    layers = [layer for layer, counts in by_layer.items() if counts]
    rows = ["| fault | " + " | ".join(layers) + " | all |", "|---" * (len(layers) + 2) + "|"]
    total = sum(by_layer.values(), Counter())
    for fault in sorted(total):
        counts = [str(by_layer[layer][fault] or "") for layer in layers]
        rows.append(f"| {fault.replace('_', ' ')} | {' | '.join(counts)} | {total[fault]} |")
    sums = [str(sum(by_layer[layer].values())) for layer in layers]
    rows.append(f"| **all** | {' | '.join(sums)} | {sum(total.values())} |")
    return "\n".join(rows)
