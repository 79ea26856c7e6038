"""A strike hits the process and the call that it is meant for, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shim import preload, striking

PROGRAM = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDONLY), 9); print('read')"


def run(folder: Path, words: list[str], faults: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, **preload(), **faults}, text=True,
        cwd=folder, capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_read_is_struck(tmp_path: Path, when: str) -> None:
    (tmp_path / "x").write_text("x")
    faults = striking(tmp_path, "read", 1, when, signal.SIGKILL)
    done = run(tmp_path, ["-c", PROGRAM, str(tmp_path / "x")], faults)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_only_the_process_whose_command_line_has_the_words(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    faults = striking(tmp_path, "read", 1, "before", signal.SIGKILL, only="this one")
    words = ["-c", PROGRAM, str(tmp_path / "x")]
    assert run(tmp_path, words, faults).returncode == 0
    assert run(tmp_path, [*words, "this", "one"], faults).returncode == -signal.SIGKILL


def test_a_file_of_settings_is_for_the_process_not_for_its_children(tmp_path: Path) -> None:
    inside, settings = tmp_path / "inside", tmp_path / "settings"
    inside.mkdir()
    (inside / "x").write_text("x")
    faults = striking(inside, "read", 1, "before", signal.SIGKILL, only="this one")
    settings.write_text("".join(f"{name}={value}\n" for name, value in faults.items()))
    child = f"import os, subprocess, sys; os.remove({str(settings)!r}); sys.exit("
    child += (
        f"subprocess.call([sys.executable, '-c', {PROGRAM!r}, {str(inside / 'x')!r}, 'this one']))"
    )
    assert run(tmp_path, ["-c", child, "this one"], {"SHIM_CONFIG": str(settings)}).returncode == 0
