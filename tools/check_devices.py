"""One module of each package knows CUDA; all others ask it, so that other accelerators run too.

``python -m tools.check_devices`` names every mention of CUDA in code elsewhere, and ends with 1.
Texts may name it: comments, docstrings, and strings of several words, which are messages and help.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.check_layers import ROOT, docstrings, sources

KNOWS = "minimind/distributed/device.py"

ASKED = {
    "minimind": KNOWS,
    "launcher": "launcher/spec/devices.py",
    "benchmarks": KNOWS,
    "docker": KNOWS,
}
"""Folder → the module that its code asks."""

WORD = "cuda"


def check(root: Path = ROOT) -> list[str]:
    """Every mention in code, one line each."""
    found = []
    for folder, knows in ASKED.items():
        for file in sources(folder, root):
            place = file.relative_to(root)
            if str(place) == knows:
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found += [
                f"{place}:{line}: {text}: ask {knows} instead" for line, text in mentions(tree)
            ]
    return found


def mentions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each name, and of each one-word string, that has the word in it."""
    prose = {id(text) for text in docstrings(tree)}
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        for text in words_of(node):
            if WORD in text.lower():
                yield getattr(node, "lineno", 0), text


def words_of(node: ast.AST) -> list[str]:
    """The names in a node itself, or its string if that is one word."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) and " " not in node.value else []
    names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "module")]
    return [name for name in names if isinstance(name, str)]


def main() -> int:
    """Print what is wrong."""
    faults = check()
    for line in faults:
        print(line)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
