"""What readers of a JSON file rely on: which keys there are, and of which type the values are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TYPES = {str: "text", bool: "true or false", int: "whole", float: "number", type(None): "null"}


def shape(values: Sequence[Any]) -> list[str]:
    """One line a key of these values taken together: its path, its type, and whether all have it.

    Keys of inner objects follow a dot; ``[]`` stands for all items of a list.
    """
    types: dict[str, set[str]] = {}
    holders: dict[str, int] = {}
    for value in values:
        leaves = set(_leaves(value, ""))
        for path, kind in leaves:
            types.setdefault(path, set()).add(kind)
        for path in {path for path, _ in leaves}:
            holders[path] = holders.get(path, 0) + 1
    return [
        f"{path or '.'}: {' or '.join(sorted(types[path]))}"
        + ("" if holders[path] == len(values) else " (not in all)")
        for path in sorted(types)
    ]


def shapes_by_kind(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[str]]:
    """The shape of each kind of record in a file ``name``: by its event, or by what is in it."""
    kinds: dict[str, list[Any]] = {}
    for record in records:
        marks = ("loss", "eval_loss", "text", "rows")
        kind = record.get("event") or next((mark for mark in marks if mark in record), "other")
        kinds.setdefault(f"{name}: {kind}", []).append(record)
    return {title: shape(found) for title, found in kinds.items()}


def as_text(sections: Mapping[str, Sequence[str]]) -> str:
    """Sections as a golden file has them."""
    return "\n".join("\n".join([f"# {title}", *lines]) + "\n" for title, lines in sections.items())


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if not value:
            yield path, "empty object"
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        if not value:
            yield f"{path}[]", "empty list"
        for item in value:
            yield from _leaves(item, f"{path}[]")
    else:
        yield path, TYPES.get(type(value), type(value).__name__)
