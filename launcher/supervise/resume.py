"""A run goes on: it neither begins anew twice, nor without a word. Standard library only.

The supervisor asks, since the ranks may run older code: that of the run's snapshot, or an image's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from launcher.containers import runtimes as container
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from launcher.spec.run_folder import RunFolder
from launcher.spec.train_flags import continuing, start_wish
from minimind.errors import ConfigError
from minimind.rundir import saved
from minimind.rundir.events import BEGUN, Event, Kind
from minimind.rundir.saved import check_still_there, saved_by_events


def keep_going(run: RunFolder, spec: JobSpec, job_id: str | None) -> JobSpec:
    """The spec for the next attempt of a submission, written down where it is another.

    ``--from_resume 0`` and ``1`` say how a run is to start. Once it has started, every other
    attempt goes on from what that one saved.

    Raises:
        OSError: it cannot be written.
    """
    if start_wish(spec) in ("", "auto") or not has_begun(run.events(), job_id):
        return spec
    spec = continuing(spec)
    run.write_spec(spec)
    return spec


def has_begun(events: list[Event], job_id: str | None) -> bool:
    """Whether the training has begun under this submission.

    A job of Slurm keeps its id over all attempts; on one machine they are one supervisor's. When
    ``submitted`` was written says nothing: a job may start before sbatch has answered.

    ``job_id``: of Slurm's job, or of the supervisor; None: the newest submission, long after it.
    """
    mine = begun = False
    for event in events:
        if event["event"] == Kind.SUPERVISOR_STARTED:
            begun = False
        elif event["event"] == Kind.SUBMITTED and event.get("cluster") == "slurm":
            begun = begun and job_id is not None
        elif event["event"] == Kind.ATTEMPT_STARTED:
            mine = job_id in (None, event.get("job_id"))
        elif event["event"] in BEGUN:
            begun = begun or mine
    return begun


def asks_itself(run: RunFolder) -> bool:
    """Whether the code of a run, of its last submission, looks for what is on record."""
    return (run.code / "minimind" / "rundir" / Path(saved.__file__).name).exists()


def lost_checkpoint(run: RunFolder, spec: JobSpec) -> str:
    """Why the next attempt may not begin: a checkpoint is on record, and none is there.

    "" where one is, where the run is to begin anew, and where this host cannot tell: the training
    asks again.
    """
    checkpoint = _checkpoint_here(spec)
    if checkpoint is None:
        return ""
    try:
        anew = f"`launcher submit --name {run.name} --resume … -- FLAGS --from_resume 0`"
        check_still_there(saved_by_events(run.events_file), checkpoint, anew=anew)
    except ConfigError as error:
        return str(error)
    except OSError:
        return ""
    return ""


def _checkpoint_here(spec: JobSpec) -> Path | None:
    """Where this host has the newest checkpoint that the ranks go on from.

    None: they are to begin anew, or this host cannot tell.
    """
    if spec.module != TRAIN_MODULE:
        return None
    words = list(spec.train_args)
    # A Python 3.10 without tomli reads no flags. Wrong ones are for the training to refuse, and
    # --help is an exit.
    with contextlib.suppress(ImportError, ConfigError, SystemExit):
        from minimind.config import parse_args, parse_words

        if file := parse_words(words).get("config"):
            words += ["--config", str(container.host_path(spec, file))]
        config = parse_args(words)
        if config.from_resume != "0":
            return container.host_path(spec, str(config.checkpoint_file))
    return None
