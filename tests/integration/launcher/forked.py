"""The launcher's commands without the time that they take to start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.cli import main
from tests.e2e.lab import Lab
from tests.runs import FORKSERVER


class ForkedLab(Lab):
    """Asks the launcher in forks of a process that has imported it.

    To import it takes ten times as long as to answer, and these tests ask hundreds of times. The
    tests on a cluster start it as a user does, and so does each test here that signals it.
    """

    def launcher(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            printed, complained = Path(folder, "stdout"), Path(folder, "stderr")
            process = FORKSERVER.Process(
                target=answer,
                args=(words, cwd or self.folder, self.environment, printed, complained),
            )
            process.start()
            process.join(900)
            assert process.exitcode is not None, f"launcher {words} does not end"
            return subprocess.CompletedProcess(
                words, process.exitcode, printed.read_text(), complained.read_text()
            )


def answer(
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    printed: Path,
    complained: Path,
) -> None:
    """The body of a forked command."""
    for descriptor, path in ((1, printed), (2, complained)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main([*words]))
