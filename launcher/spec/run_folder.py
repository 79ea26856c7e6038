"""The run folder: spec, events, attempts and the markers that end a run.

It lies on a filesystem that all nodes share. Standard library only: the host side of a job
runs with whatever Python 3.10+ the node has.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.spec.job_spec import JobSpec
from minimind.errors import ConfigError
from minimind.rundir import causes
from minimind.rundir.events import Event, Kind, append_event, read_events
from minimind.rundir.layout import OutputPaths, RunPaths
from minimind.rundir.metrics import Point, read_lines
from minimind.system.durable import remove_abandoned, sync_folder, write_text_durably

MOST_BYTES = 16 << 20
"""Of a spec, a marker or the secrets: what is longer is none."""


@dataclass(frozen=True)
class Final:
    """How a run ended for good: its cause, exit status and one line for people."""

    cause: str
    exit_code: int
    reason: str


class RunFolder(RunPaths):
    """What one run keeps in its folder."""

    def exists(self) -> bool:
        """True once a run was made here."""
        return self.spec_file.is_file()

    def spec(self) -> JobSpec:
        """The spec that the run was last submitted with.

        Raises:
            ConfigError: the file is missing, damaged, or was written by something else.
        """
        try:
            return JobSpec.from_json(_read_small(self.spec_file))
        except ConfigError as error:
            raise ConfigError(f"{self.spec_file}: {error}") from None

    def write_spec(self, spec: JobSpec) -> None:
        """Stores ``spec`` atomically."""
        write_text_durably(self.spec_file, spec.to_json(), mode=0o600)

    def write_secrets(self, values: dict[str, str]) -> None:
        """Stores the secret variables, readable by their owner alone."""
        if values:
            write_text_durably(self.secrets_file, json.dumps(values), mode=0o600)
        else:
            self.secrets_file.unlink(missing_ok=True)

    def secrets(self) -> dict[str, str]:
        """What ``write_secrets`` stored."""
        if not self.secrets_file.exists():
            return {}
        found = _read_object(self.secrets_file)
        if not all(isinstance(value, str) for value in found.values()):
            raise ConfigError(f"{self.secrets_file} is damaged: not all of its values are text")
        return found

    def append(self, event: str, **values: Any) -> None:
        """Appends one event durably."""
        append_event(self.events_file, event, **values)

    def events(self) -> list[Event]:
        """All events, oldest first. A line that is no event is left out."""
        return read_events(self.events_file)

    def points(self) -> list[Point]:
        """All points that the training logged, as they were written; none can be read: [].

        Raises:
            ConfigError: the folder holds no usable spec.
        """
        with contextlib.suppress(OSError):
            return read_lines(OutputPaths(self.spec().save_dir).metrics)
        return []

    def new_attempt(self) -> int:
        """Makes the next attempt's folder; two callers never get the same number."""
        if not self.attempts.is_dir():
            self.attempts.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
        # Logs may have been cleared away: of_attempt would take two attempts for one.
        begun = [e["attempt"] for e in self.events() if e["event"] == Kind.ATTEMPT_STARTED]
        number = max([*self.attempt_numbers(), *begun], default=0) + 1
        while True:
            try:
                self.attempt_dir(number).mkdir()
            except FileExistsError:
                number += 1
                continue
            write_text_durably(self.current_file, str(number))
            return number

    def current_attempt(self) -> int | None:
        """The number of the newest attempt; ranks and supervisors of others must stand back."""
        try:
            return int(self.current_file.read_text())
        except (OSError, ValueError):
            return None

    def superseded(self, number: int) -> bool:
        """True once an attempt after ``number`` has begun, here or elsewhere."""
        return (self.current_attempt() or number) > number

    def report_step(self, attempt: int, step: str) -> None:
        """Stores the number by which Slurm knows the step of an attempt's ranks."""
        write_text_durably(self.step_file(attempt), f"{step}\n")

    def reported_step(self, attempt: int) -> str | None:
        """What ``report_step`` stored; None: nothing yet."""
        try:
            text = self.step_file(attempt).read_text(errors="replace").strip()
        except OSError:
            return None
        return text if text.isdecimal() else None

    def final(self) -> Final | None:
        """How the run ended, or None while it may run on.

        Raises:
            ConfigError: the marker is damaged.
        """
        for marker in (self.done_marker, self.stopped_marker):
            if marker.exists():
                return _read_final(marker)
        return None

    def finish(self, final: Final) -> None:
        """Leaves the marker that makes any further start exit at once."""
        marker = self.done_marker if final.cause == causes.DONE else self.stopped_marker
        write_text_durably(marker, json.dumps(vars(final), ensure_ascii=False))

    def reopen(self) -> None:
        """Lets a stopped (not a finished) run start again."""
        self.stopped_marker.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Deletes what a command or a supervisor was writing here when it was killed."""
        written = (self.spec_file, self.secrets_file, self.code, self.current_file)
        for path in (*written, self.done_marker, self.stopped_marker):
            remove_abandoned(path)
        for path in self.root.glob(f"{self.probe.name}-*"):
            path.unlink(missing_ok=True)

    def job_id(self) -> str | None:
        """The job of the newest submission."""
        for event in reversed(self.events()):
            if event["event"] == Kind.SUBMITTED:
                return str(event["job_id"])
        return None


def _read_small(path: Path) -> str:
    """The text of a file that is known to be small.

    Raises:
        ConfigError: it cannot be read, is much too long, or no UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"longer than {MOST_BYTES} bytes")
        return data.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("damaged: no UTF-8") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read_small(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is damaged: no JSON") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is damaged: no JSON object")
    return found


def _read_final(marker: Path) -> Final:
    stored = _read_object(marker)
    cause, code, reason = (stored.get(name) for name in ("cause", "exit_code", "reason"))
    if isinstance(cause, str) and isinstance(reason, str) and isinstance(code, int):
        return Final(cause, code, reason)
    raise ConfigError(f"{marker} is damaged: remove it to let the run go on")
