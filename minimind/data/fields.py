"""Which field of a row holds its text, and what to say when none has that name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CONVERSATIONS = ("conversations", "messages", "conversation")
"""What data sets for chat call their lists of messages."""

MOST_NAMED = 30
LONGEST_NAMED = 80
"""Where a csv has no header, its first text is taken for a name."""


def value_of(row: Mapping[str, Any], field: str) -> Any:
    """A row's field by its name, or by its path (``meta.text``) where no field has that name.

    Raises:
        KeyError: there is no such field.
    """
    if field in row:
        return row[field]
    value: Any = row
    for name in field.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(field)
        value = value[name]
    return value


def has_field(row: Mapping[str, Any], field: str) -> bool:
    """Whether :func:`value_of` finds it."""
    try:
        value_of(row, field)
    except KeyError:
        return False
    return True


def names_of(row: Mapping[str, Any]) -> list[str]:
    """A row's fields, those inside of objects by their path."""
    names = []
    for name, value in row.items():
        inner = value if isinstance(value, Mapping) else {}
        names += [f"{name}.{each}" for each in names_of(inner)] if inner else [name]
    return names


def unknown_field(field: str, found: Iterable[str]) -> str:
    """What to say of rows without ``field``."""
    names = list(dict.fromkeys(found))
    listed = ", ".join(map(_quoted, names[:MOST_NAMED]))
    more = ", …" if len(names) > MOST_NAMED else ""
    text = f"no field {field!r}; there are {listed or 'none'}{more}; --text_field names the text's"
    for name in names:
        if name.partition(".")[0] in CONVERSATIONS:
            return f"{text} ({name!r} looks like conversations: {how_to_render(name)})"
    return text


def _quoted(name: str) -> str:
    more = "…" if len(name) > LONGEST_NAMED else ""
    return repr(name[:LONGEST_NAMED] + more)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, of either kind that is about."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and bool({"role", "from"} & first.keys())


def how_to_render(field: str) -> str:
    """What trains on conversations."""
    return f"'--text_field {field} --render_chat' trains on them through the chat template"
