"""The progress bar, on a real terminal and off it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.runs import Run

MakeRun = Callable[..., Run]


def on_a_terminal(argv: list[str]) -> tuple[int, str]:
    """Run the program on a pseudo-terminal of 160 columns; its exit code and what it drew."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "minimind", "pretrain", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(theirs)
    drawn: list[bytes] = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        drawn.append(chunk)
    os.close(ours)
    return process.wait(), b"".join(drawn).decode()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "Epoch:[" in line]


def test_a_bar_lives_beside_the_lines_on_a_terminal(make_run: MakeRun) -> None:
    run = make_run("run", epochs=1, log_interval=10)
    run.folder.mkdir()
    code, drawn = on_a_terminal(run.argv())
    assert code == 0
    assert "━" in drawn
    assert "33/33" in drawn
    assert "Epoch:[1/1](10/98), loss:" in drawn


def test_in_a_file_there_are_only_the_lines(make_run: MakeRun) -> None:
    run: Any = make_run("run", epochs=1, log_interval=10).complete()
    assert "━" not in run.output
    assert "\x1b" not in run.output
    assert len(lines(run.output)) == 10
