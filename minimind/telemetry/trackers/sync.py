"""Sends the offline SwanLab records of a run.

A run that was interrupted N times leaves N + 1 segments. SwanLab's own ``sync`` would make an
experiment of each; given the run's id, and in order, they become one curve.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from minimind.errors import EXIT_CRASHED, EXIT_DONE, ConfigError
from minimind.telemetry.trackers.swanlab import log_folder, mark_sent, read_sent, run_file

FILE_HEADER_BYTES = 7
FAILURE_MARK = "Confirm sync finish failed"
"""SwanLab 0.10 prints this, and exits 0, when an upload did not complete."""


@dataclass(frozen=True)
class Segment:
    """The records of one process of a run."""

    folder: Path
    run_id: str
    size: int

    @property
    def words(self) -> list[str]:
        return ["swanlab", "sync", "-i", self.run_id, str(self.folder)]


def find_segments(save_dir: Path) -> list[Segment]:
    """The segments in ``save_dir/swanlog``, oldest first.

    A segment whose process was killed before SwanLab wrote anything is left out.
    """
    segments = []
    # The names carry the start time: run-20260131_235959-ID.
    for folder in sorted(log_folder(save_dir).glob("run-*")):
        file = run_file(folder)
        if file is not None and file.stat().st_size > FILE_HEADER_BYTES:
            run_id = file.name.removeprefix("run-").removesuffix(".swanlab")
            segments.append(Segment(folder, run_id, file.stat().st_size))
    return segments


def sync(save_dir: Path, dry_run: bool = False) -> int:
    """Send what was not sent before, in order; stop at the first failure.

    Returns:
        The exit code: 0, or 1 when a segment could not be sent.

    Raises:
        ConfigError: there are no records, or no API key.
    """
    segments = find_segments(save_dir)
    if not segments:
        raise ConfigError(
            f"{log_folder(save_dir)} has no SwanLab records; name the --save_dir of a run "
            "that had --use_wandb"
        )
    sent = read_sent(log_folder(save_dir))
    waiting = [s for s in segments if sent.get(s.folder.name) != s.size]
    if not waiting:
        print(f"nothing to send: {len(segments)} of {len(segments)} segments were sent before")
        return EXIT_DONE
    if dry_run:
        for segment in waiting:
            print(shlex.join(segment.words))
        return EXIT_DONE
    _require_key()
    for number, segment in enumerate(waiting, 1):
        print(f"segment {number} of {len(waiting)}: {shlex.join(segment.words)}", flush=True)
        if not _send(segment):
            print(
                f"minimind track: error: {segment.folder} was not sent; "
                "run the command again to go on from there",
                file=sys.stderr,
            )
            return EXIT_CRASHED
        mark_sent(segment.folder)
    return EXIT_DONE


def _require_key() -> None:
    try:
        import swanlab
    except ImportError:
        raise ConfigError("SwanLab is not installed: pip install swanlab") from None
    if not swanlab.Settings().api_key:
        raise ConfigError("SwanLab has no API key: run `swanlab login`, or set SWANLAB_API_KEY")


def _send(segment: Segment) -> bool:
    """Run SwanLab's own command, show what it says, and tell whether all was sent."""
    command = [sys.executable, "-m", *segment.words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        said.append(line)
    return process.wait() == 0 and FAILURE_MARK not in " ".join("".join(said).split())
