"""The messages that the documents quote are messages of the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
QUOTES = {
    "docs/faq.md": re.compile(r"^### `(.*)`$", re.MULTILINE),
    "docs/faults.md": re.compile(r"^> `(.*)`$", re.MULTILINE),
    "docs/plan.md": re.compile(r"^> `(.*)`$", re.MULTILINE),
    "docs/resume.md": re.compile(r"^> `(.*)`$", re.MULTILINE),
}


@functools.cache
def source_strings() -> set[str]:
    """Every text of the code, with "…" for each value that it is filled with."""
    found = set()
    for package in ("minimind", "launcher", "docker"):
        for file in (ROOT / package).rglob("*.py"):
            found.update(_texts(ast.parse(file.read_text(encoding="utf-8"))))
    return found


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(\.\d)?[sdfr]", "…", node.value)


def is_said(message: str, strings: set[str]) -> bool:
    """Some text of the code has all that is fixed in ``message``, in this order."""
    fixed = [re.escape(part) for part in message.split("…") if part.strip(" ,;:()")]
    assert fixed, f"nothing of {message!r} can be looked up"
    pattern = re.compile(".*".join(fixed), re.DOTALL)
    return any(pattern.search(text) for text in strings)


@pytest.mark.parametrize("page", QUOTES)
def test_every_quoted_message_is_in_the_code(page: str) -> None:
    quoted = QUOTES[page].findall((ROOT / page).read_text(encoding="utf-8"))
    assert quoted
    assert not [message for message in quoted if not is_said(message, source_strings())]


def test_a_message_that_nobody_says_is_found() -> None:
    strings = source_strings()
    assert is_said("--device …: torch sees no GPU here; use …", strings)
    assert not is_said("--device …: torch sees no TPU here; use …", strings)
    assert not is_said("torch sees no GPU here; --device …", strings)


def test_no_message_is_explained_twice() -> None:
    quoted = QUOTES["docs/faq.md"].findall((ROOT / "docs/faq.md").read_text(encoding="utf-8"))
    assert len(quoted) == len(set(quoted))
