"""The sample corpus: text that every Python installation carries, as jsonl.

pydoc's topics (the language reference), the docstrings and the longer comments of the
standard library, and of the installed packages too where more is wanted. Source files are
parsed, never imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from minimind.errors import MiniMindError
from minimind.system.durable import write_bytes_durably

HELD_OUT = 20
"""One document of so many goes to ``eval.jsonl``."""

MIN_CHARS = 100
"""Shorter documents teach little."""

_SKIPPED = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})
_COMMENT = re.compile(r"^\s*#+ ?")


def make_sample(folder: Path, *, packages: bool = False) -> dict[str, tuple[Path, int, int]]:
    """Write ``train.jsonl`` and ``eval.jsonl`` to ``folder``, each whole or not at all.

    The same Python version gives the same files, and a text is in at most one of them.

    Args:
        folder: made if it is not there.
        packages: take what is installed beside this program too; then the same versions of
            all of it give the same files.

    Returns:
        for each file its path, documents and bytes.

    Raises:
        MiniMindError: the folder cannot be written, or this Python has no standard library
            in source form.
    """
    splits: dict[str, list[str]] = {"train": [], "eval": []}
    libraries = [Path(sysconfig.get_path("stdlib"))]
    if packages:
        libraries.append(Path(sysconfig.get_path("purelib")))
    for text in _unique(chain.from_iterable(map(_texts, libraries))):
        held_out = _digest(text)[0] % HELD_OUT == 0
        splits["eval" if held_out else "train"].append(
            json.dumps({"text": text}, ensure_ascii=False)
        )
    if not splits["train"] or not splits["eval"]:
        raise MiniMindError(f"no Python sources in {libraries[0]}")
    written = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, lines in splits.items():
            path = folder / f"{name}.jsonl"
            data = "".join(f"{line}\n" for line in lines).encode()
            write_bytes_durably(path, data)
            written[name] = (path, len(lines), len(data))
    except OSError as error:
        raise MiniMindError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return written


def _texts(library: Path) -> Iterator[str]:
    for path in sorted(library.rglob("*.py")):
        within = path.relative_to(library)
        if _SKIPPED.intersection(within.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in the library's own strings
                with tokenize.open(path) as file:
                    source = file.read()
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):  # templates, and files for other versions
            continue
        module = ".".join(within.with_suffix("").parts).removesuffix(".__init__")
        if module == "pydoc_data.topics":
            yield from _topics(tree)
        else:
            yield from _docstrings(tree, module)
            yield from _comments(source)


def _topics(tree: ast.Module) -> Iterator[str]:
    """The values of ``topics = {name: text, ...}``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from map(str, ast.literal_eval(node.value).values())


def _docstrings(tree: ast.AST, name: str) -> Iterator[str]:
    """The docstring of a module, class or function, then those within, each under its name."""
    if isinstance(tree, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        docstring = ast.get_docstring(tree)
        if docstring:
            yield f"{name}{_signature(tree)}\n\n{docstring}"
    for node in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = f"{name}.{node.name}"
        yield from _docstrings(node, inner)


def _signature(node: ast.AST) -> str:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"({ast.unparse(node.args)})"
    return ""


def _comments(source: str) -> Iterator[str]:
    """Blocks of lines that are comments and nothing else."""
    block: list[str] = []
    for line in [*source.splitlines(), ""]:
        if line.lstrip().startswith("#"):
            block.append(_COMMENT.sub("", line))
        elif block:
            yield "\n".join(block)
            block = []


def _unique(texts: Iterator[str]) -> Iterator[str]:
    """Clean the texts; drop short ones and those that were there before."""
    seen: set[bytes] = set()
    for text in texts:
        lines = (line.rstrip().replace("\0", "") for line in text.splitlines())
        clean = inspect.cleandoc("\n".join(lines)).strip().encode("utf-8", "ignore").decode()
        key = _digest(" ".join(clean.lower().split()))
        if len(clean) >= MIN_CHARS and key not in seen:
            seen.add(key)
            yield clean


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
