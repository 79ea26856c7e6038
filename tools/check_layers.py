"""Imports point down: a module may import its own layer and those listed before it.

``python -m tools.check_layers`` names every import that does not, and ends with 1. Imports inside
functions count, and so do module names in strings, which ``importlib`` or ``-m`` may be given.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    "minimind": (
        "errors",
        "system",
        "rundir",
        "config",
        "model",
        "data",
        "data.tools",
        "planning",
        "weights.torch_file",
        "weights.origin",
        "checkpoint.state",
        "weights",
        "distributed",
        "checkpoint",
        "inference",
        "charts",
        "telemetry",
        "training",
        "export",
        "report",
        "inspection",
        "train_pretrain",
        "cli",
        "__main__",
    ),
    "launcher": (
        "spec",
        "slurm",
        "containers",
        "rank",
        "preflight",
        "supervise",
        "submit",
        "inspect",
        "cli",
        "__main__",
    ),
}
"""Package → its layers, lowest first."""

ENTRIES = {"launcher": ("task", "submission", "probe")}
"""Modules that only give an older name to an entry point; nothing imports them."""

OUTSIDE = ("tests", "benchmarks", "tools", "docs", "docker", "slurm")
"""What the packages never import, though it lies beside them."""

LIGHT = (
    "minimind.system",
    "minimind.rundir",
    "minimind.errors",
    "minimind.config",
    "minimind.planning",
    "minimind.model.architecture",
    "minimind.report",
    "minimind.cli.report",
)
"""A login node has the standard library and the launcher's few packages."""

IN_A_JOB = ("launcher.inspect.probe", "launcher.preflight.compute")
"""Runs on a node, where torch is if the training is to run there."""

FOR_LAUNCHER = (
    "minimind.system",
    "minimind.rundir",
    "minimind.errors",
    "minimind.config",
    "minimind.planning",
    "minimind.distributed.local_ranks",
    "minimind.cli.report",
)
"""What the launcher takes of minimind: all of it without torch."""

HEAVY = ("torch", "transformers", "numpy", "swanlab", "matplotlib", "psutil")


class Import(NamedTuple):
    """One module that another one names."""

    file: Path
    line: int
    name: str


def check(root: Path = ROOT) -> list[str]:
    """Every import that points up, one line each."""
    modules = {module_name(file, root) for package in LAYERS for file in sources(package, root)}
    found = []
    for package in LAYERS:
        for file in sources(package, root):
            module = module_name(file, root)
            for imported in imports_of(file, root, modules):
                reason = fault(module, imported.name)
                if reason:
                    place = f"{file.relative_to(root)}:{imported.line}"
                    found.append(f"{place}: {module} imports {imported.name}: {reason}")
    return found


def sources(package: str, root: Path) -> list[Path]:
    """The Python files of a package."""
    return sorted((root / package).rglob("*.py"))


def module_name(file: Path, root: Path) -> str:
    """``minimind/data/rows.py`` → ``minimind.data.rows``."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def fault(module: str, imported: str) -> str:
    """What is wrong with ``module`` importing ``imported``; "" when nothing is."""
    package, target = module.partition(".")[0], imported.partition(".")[0]
    if target in OUTSIDE:
        return f"{package} does not import {target}"
    if module in IN_A_JOB and target in HEAVY:
        return ""
    if target in HEAVY and (package == "launcher" or is_in(module, LIGHT)):
        return f"a login node has no {target}"
    if target not in LAYERS:
        return ""
    if (package, target) == ("launcher", "minimind") and imported not in ENTRY_NAMES:
        known = is_in(imported, FOR_LAUNCHER) or imported == target or module in IN_A_JOB
        return "" if known else "not of what the launcher takes of minimind"
    if package == "minimind" and target == "launcher":
        return "minimind does not know the launcher"
    if imported.removeprefix("launcher.") in ENTRIES["launcher"]:
        return "an entry point's older name: import what it stands for"
    if package != target or module == imported or imported == package:
        return ""
    if module.removeprefix(f"{package}.") in ENTRIES.get(package, ()) or module == package:
        return ""
    here, there = layer(module), layer(imported)
    order = LAYERS[package]
    if order.index(there) > order.index(here):
        return f"{there} is above {here}"
    return ""


def layer(module: str) -> str:
    """The layer of a module, the longest name that fits.

    Raises:
        SystemExit: it is in none: add it to ``LAYERS``.
    """
    package, _, inside = module.partition(".")
    fitting = [name for name in LAYERS[package] if is_in(inside, (name,))]
    if not fitting:
        raise SystemExit(f"{module} is in no layer: add its layer to {Path(__file__).name}")
    return max(fitting, key=len)


def is_in(module: str, names: tuple[str, ...]) -> bool:
    """Whether a module is one of ``names``, or lies in one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def source_of(node: ast.ImportFrom, file: Path, root: Path) -> str:
    """The module that something is imported from, by its whole name."""
    if not node.level:
        return node.module or ""
    folder = file.parents[node.level - 1].relative_to(root)
    return ".".join([*folder.parts, *([node.module] if node.module else [])])


def imports_of(file: Path, root: Path, modules: set[str]) -> Iterator[Import]:
    """Every module that a file names: in imports of any depth, and in strings."""
    named = re.compile(r"\b(?:minimind|launcher)(?:\.\w+)+")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    prose = {id(text) for text in docstrings(tree)} | {id(text) for text in type_only(tree)}
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = source_of(node, file, root)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(file, node.lineno, inner if inner in modules else source)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in named.findall(node.value):
                if name in modules and name not in ENTRY_NAMES:
                    yield Import(file, node.lineno, name)


ENTRY_NAMES = {
    "launcher.supervise",
    "minimind.train_pretrain",
    *(f"launcher.{name}" for name in ENTRIES["launcher"]),
}
"""What is started as a process of its own, by a name that scripts and images know too."""


def docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    """Strings that stand alone: documentation of a module, class, function or name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def type_only(tree: ast.AST) -> Iterator[ast.AST]:
    """What stands under ``if TYPE_CHECKING``: never imported by a running program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                yield from ast.walk(statement)


def main() -> int:
    """Print what is wrong."""
    faults = list(dict.fromkeys(check()))
    for line in faults:
        print(line)
    if faults:
        print(f"{len(faults)} imports point up; tools/check_layers.py has the order of the layers")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
