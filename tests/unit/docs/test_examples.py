"""Every command's --help ends with an example, and the example is one that the command takes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import launcher.cli
import minimind.cli
from minimind.config import parse_args, take_procs


def minimind_parsers() -> dict[str, argparse.ArgumentParser]:
    """All commands of ``minimind``, groups and leaves."""
    found = {}
    for module, _ in minimind.cli.COMMANDS.values():
        found.update(_with_subcommands(parser_of(module)))
    return found


def parser_of(module: str) -> argparse.ArgumentParser:
    if module == "minimind.train_pretrain":
        module = "minimind.config"
    return importlib.import_module(module).build_parser()


def _with_subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _with_subcommands(command)


def launcher_commands() -> dict[str, Any]:
    """All commands of ``launcher``, groups and leaves."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for word, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {word}", inner)

    return dict(walk("launcher", typer.main.get_command(launcher.cli.app)))


ROOT = Path(__file__).parents[3]
MINIMIND, LAUNCHER = minimind_parsers(), launcher_commands()


def examples(text: str) -> list[list[str]]:
    """The words of each command that an epilog shows."""
    lines = re.split(r"\n|&&", re.sub(r"Examples?:", "", text))
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_both_trees_were_walked() -> None:
    assert {"minimind pretrain", "minimind data preview", "minimind track sync"} <= MINIMIND.keys()
    assert {"launcher submit", "launcher image import"} <= LAUNCHER.keys()


@pytest.mark.parametrize("name", ["minimind", *MINIMIND])
def test_minimind_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        minimind.cli.main([*name.split()[1:], "--help"])
    _, mark, shown = re.split(r"(Examples?:)", capsys.readouterr().out)
    assert mark
    assert any(" ".join(words).startswith(name) for words in examples(shown))


@pytest.mark.parametrize("name", LAUNCHER)
def test_launcher_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.cli.main([*name.split()[1:], "--help"]) == 0
    assert f"Example: {name}" in capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run has left its flags."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.toml").touch()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def check(words: list[str]) -> None:
    """Raise unless the program that ``words`` calls takes the rest of them."""
    if words[0] == "minimind":
        _check_minimind(*words[1:])
    else:
        _check_launcher(words)


def _check_minimind(command: str, *words: str) -> None:
    if command == "pretrain":
        parse_args(words)
        return
    parser = parser_of(minimind.cli.COMMANDS[command][0])
    known, rest = parser.parse_known_args(words)
    assert not rest or getattr(known, "takes_train_flags", False), rest
    parse_args(take_procs(rest)[0] if command == "plan" else rest)


def _check_launcher(words: list[str]) -> None:
    border = words.index("--") if "--" in words else len(words)
    own, train = words[:border], words[border + 1 :]
    name = max((n for n in LAUNCHER if own[: len(n.split())] == n.split()), key=len)
    LAUNCHER[name].make_context(name, own[len(name.split()) :])
    parse_args(train)


@pytest.mark.parametrize("name", MINIMIND)
@pytest.mark.usefixtures("folder")
def test_minimind_takes_its_own_examples(name: str) -> None:
    for words in examples(MINIMIND[name].epilog or ""):
        check(words)


@pytest.mark.parametrize("name", LAUNCHER)
@pytest.mark.usefixtures("folder")
def test_launcher_takes_its_own_examples(name: str) -> None:
    (words,) = examples(LAUNCHER[name].epilog)
    check(words)


def shown_commands(page: Path) -> list[list[str]]:
    """The commands of ours in the shell blocks of a document, without what stands for flags."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
            line = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", line.strip().removeprefix(".venv/bin/"))
            words = [w for w in shlex.split(line, comments=True) if w not in STANDS_FOR_FLAGS]
            if words[:1] in (["minimind"], ["launcher"]):
                found.append(words)
    return found


STANDS_FOR_FLAGS = ("SAME", "FLAGS", "…", "参数", "同样的参数")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("folder")
def test_the_programs_take_what_the_documents_show(page: Path) -> None:
    for words in shown_commands(page):
        try:
            check(words)
        except Exception as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error}")


def test_the_documents_commands_are_found() -> None:
    assert len(shown_commands(ROOT / "README.md")) > 10
    words = ["minimind", "data", "preview", "--row", "17", "99", "--config", "out/config.toml"]
    assert words in shown_commands(ROOT / "docs" / "data.md")
