"""The progress bar, on a real terminal and off it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import WAIT_SECONDS, Run, wait_until

MakeRun = Callable[..., Run]

ROOT = Path(__file__).parents[2]


CROSSING = """
import os, sys
from pathlib import Path
from minimind.train_pretrain import main
from tests.runs import wait_until

def wait_at_the_gate(trainer):
    if trainer.progress.global_step:
        wait_until(Path(os.environ["GATE"]).exists, "the gate")

sys.exit(main(sys.argv[1:], wait_at_the_gate))
"""


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


@pytest.mark.parametrize(("ignored", "code"), [(False, 75), (True, 0)])
def test_a_terminal_that_closes_is_a_stop_unless_the_run_is_to_outlive_it(
    make_run: MakeRun, ignored: bool, code: int
) -> None:
    """The kernel sends SIGHUP, and nothing can be printed any more."""
    run = make_run("run", epochs=1, log_interval=1, save_interval=1000)
    run.folder.mkdir()
    ours, theirs = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", CROSSING, *run.argv()],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "GATE": str(run.folder / "gate")},
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(lambda: len(run.records()) >= 4, "four micro-steps")
    os.close(theirs)
    os.close(ours)
    (run.folder / "gate").touch()
    assert process.wait(WAIT_SECONDS) == code
    log = (run.save_dir / "train.log").read_text()
    assert ("stopped by SIGHUP" in log) is not ignored
    assert run.state()["step"] >= 3
    assert "Traceback" not in log


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "Epoch:[" in line]


def test_a_bar_lives_beside_the_lines_on_a_terminal(make_run: MakeRun) -> None:
    run = make_run("run", epochs=1, log_interval=5)
    run.folder.mkdir()
    code, drawn = on_a_terminal(run.argv())
    assert code == 0
    assert "━" in drawn
    assert "5/5" in drawn
    assert "Epoch:[1/1](5/14), loss:" in drawn


def test_in_a_file_there_are_only_the_lines(make_run: MakeRun) -> None:
    run: Any = make_run("run", epochs=1, log_interval=5).complete()
    assert "━" not in run.output
    assert "\x1b" not in run.output
    assert len(lines(run.output)) == 3
