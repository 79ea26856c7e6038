"""JobSpec → a run folder and a submitit job."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from launcher.containers import runtimes as container
from launcher.containers.image import read_origin
from launcher.rank.task import RankTask
from launcher.slurm.environment import submission_environment
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import sbatch_parameters
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted, make_private
from minimind.errors import ConfigError, MiniMindError
from minimind.system.durable import folder_when_done

SHORT_LIMIT_MINUTES = 10
"""Below this a warning a minute early would cost much of the run; SIGTERM at the limit does."""

SNAPSHOT_PACKAGES = ("launcher", "minimind")

SUBMITIT = ("-u", "-m", "submitit.core._submit")
"""What submitit puts behind a Python; the folder of its pickles follows."""


class SubmissionError(MiniMindError):
    """Slurm or the machine refused the job; the message is what it said."""


def executor_parameters(spec: JobSpec, *, array: bool = False) -> dict[str, Any]:
    """What submitit's Slurm executor is given, under Slurm's own names.

    In an array every task has its own run folder below ``spec.run_dir``, named by its index.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    run = RunFolder(spec.run_dir)
    lead = spec.signal_lead
    if spec.time_minutes is not None and spec.time_minutes < SHORT_LIMIT_MINUTES:
        lead = 0
    known = inspect.signature(_make_sbatch_string).parameters
    asked = sbatch_parameters(spec)
    others = {name: asked.pop(name) for name in asked.keys() - known.keys()}
    return {
        **asked,
        "gpus_per_node": spec.gpus if spec.request_gpus else None,
        "wckey": None,
        "signal_delay_s": lead,
        "stderr_to_stdout": True,
        "use_srun": False,
        # The batch shell must outlive the signals that stop the ranks: what follows them,
        # classifying and requeueing, is its work.
        "setup": ["trap '' TERM CONT USR1 USR2 INT", *spec.setup],
        "additional_parameters": {
            "chdir": str(run.code),
            "output": str(run.root / "%a" / "batch.log" if array else run.batch_log),
            "requeue": True,
            **{name: value for name, value in others.items() if value is not None},
            **spec.sbatch,
        },
    }


def supervised(spec: JobSpec) -> str:
    """The shell words before ``-u -m submitit.core._submit FOLDER`` in the batch script."""
    return shlex.join([spec.host_python, "-m", "launcher.supervise", spec.run_dir])


def rank_command(spec: JobSpec) -> list[str]:
    """What the supervisor of this spec's job starts: srun and the command of each rank."""
    folder = RunFolder(spec.sweep_dir or spec.run_dir).submitit
    return [*container.srun_command(spec), *SUBMITIT, str(folder)]


def batch_script(spec: JobSpec, *, array: bool = False) -> str:
    """The exact batch script of this spec (an array's but for its range); needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = RunFolder(spec.run_dir).submitit
    command = " ".join([supervised(spec), *SUBMITIT, shlex.quote(str(folder))])
    parameters = executor_parameters(spec, array=array)
    return str(_make_sbatch_string(command=command, folder=folder, **parameters))


def snapshot_code(target: Path) -> None:
    """Copies the launcher and the training core: what every attempt of a run runs.

    Edits and updates after the submission do not reach a run that waits or restarts.
    """
    remove_earlier = partial(shutil.rmtree, target, ignore_errors=True)
    with folder_when_done(target, before_rename=remove_earlier) as fresh:
        make_private(fresh)
        for package in SNAPSHOT_PACKAGES:
            found = importlib.util.find_spec(package)
            if found is None or not found.submodule_search_locations:
                raise ConfigError(f"the package {package} is not installed; run `make setup`")
            source = Path(next(iter(found.submodule_search_locations)))
            shutil.copytree(
                source, fresh / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )


def image_identity(spec: JobSpec) -> dict[str, Any]:
    """What the image was at submission: the file's size and time, or the digest, if known."""
    if spec.image is None:
        return {}
    path = Path(spec.image)
    if path.exists():
        status = path.stat()
        found = {"image": spec.image, "bytes": status.st_size, "modified": status.st_mtime}
        origin = read_origin(path)
        return found | ({"origin": asdict(origin)} if origin else {})
    if spec.container in ("docker", "podman") and shutil.which(spec.container):
        answer = subprocess.run(
            [spec.container, "image", "inspect", "--format", "{{.Id}}", spec.image],
            capture_output=True,
            text=True,
        )
        if answer.returncode == 0:
            return {"image": spec.image, "digest": answer.stdout.strip()}
    return {"image": spec.image}


def _make_root(run: RunFolder) -> None:
    """Makes a new run's folder private; one that its owner has opened for readers stays open."""
    if run.root.exists():
        return
    run.root.parent.mkdir(parents=True, exist_ok=True)
    make_private(run.root)


def prepare(spec: JobSpec, secrets: dict[str, str]) -> RunFolder:
    """Makes or renews the run folder: spec, code, secrets.

    Raises:
        ConfigError: the folder cannot be made, or others can write to one that is there.
    """
    run = RunFolder(spec.run_dir)
    try:
        _make_root(run)
        check_trusted(run)
        run.attempts.mkdir(exist_ok=True)
        make_private(run.submitit)
        snapshot_code(run.code)
        run.write_secrets(secrets)
        run.write_spec(spec)
    except OSError as error:
        raise ConfigError(f"cannot make the run folder {run.root}: {error.strerror}") from error
    run.reopen()
    return run


def submit(spec: JobSpec, secrets: dict[str, str]) -> str:
    """Makes the run folder, submits, records it, and returns the job id.

    Raises:
        SubmissionError: Slurm refused; the run folder remains, nothing runs.
    """
    run = prepare(spec, secrets)
    return submit_prepared(run, spec)


def submit_prepared(run: RunFolder, spec: JobSpec) -> str:
    """Submits a run whose folder is ready and returns the job id."""
    if spec.cluster == "local":
        job_id = _submit_local(run, spec)
    else:
        (job_id,) = _submit_slurm(run, spec)
    record_submission(run, spec, job_id)
    return job_id


def record_submission(run: RunFolder, spec: JobSpec, job_id: str) -> None:
    """Puts the submission into the run's event log."""
    size = {"cluster": spec.cluster, "nodes": spec.nodes, "gpus": spec.gpus}
    run.append("submitted", job_id=job_id, **size, **image_identity(spec))


def submit_points(root: RunFolder, spec: JobSpec, points: list[JobSpec]) -> list[str]:
    """Submits all points of a sweep: a Slurm array, or one after the other on this machine.

    ``root`` is prepared with the code and the sweep's own ``spec``; each point's folder is made
    here and shares that code.
    """
    for point in points:
        folder = RunFolder(point.run_dir)
        for path in (folder.root, folder.submitit):
            make_private(path)
        folder.attempts.mkdir(exist_ok=True)
        folder.code.symlink_to(root.code)
        folder.write_secrets(root.secrets())
        folder.write_spec(point)
    names = [point.run_dir for point in points]
    if spec.cluster == "local":
        job_ids = [_submit_local(root, spec, names)] * len(points)
    else:
        job_ids = _submit_slurm(root, spec, names)
    for point, job_id in zip(points, job_ids, strict=True):
        record_submission(RunFolder(point.run_dir), point, job_id)
    return job_ids


def _submit_slurm(run: RunFolder, spec: JobSpec, points: list[str] | None = None) -> list[str]:
    """Submits one job, or an array with a task for each of ``points``; returns the job ids."""
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    with submission_environment(hidden=spec.secret_env):
        executor = AutoExecutor(run.submitit, cluster="slurm", slurm_python=supervised(spec))
        parameters = executor_parameters(spec, array=points is not None)
        executor.update_parameters(**{f"slurm_{key}": value for key, value in parameters.items()})
        # None is "let the site decide"; update_parameters would put submitit's defaults there.
        executor.parameters.update({k: v for k, v in parameters.items() if v is None})
        try:
            if points is None:
                jobs = [executor.submit(RankTask(spec.run_dir))]
            else:
                jobs = executor.submit_array([RankTask(point) for point in points])
        except (FailedJobError, FailedSubmissionError) as error:
            raise SubmissionError(f"sbatch refused the job: {str(error).strip()}") from error
    return [str(job.job_id) for job in jobs]


def _submit_local(run: RunFolder, spec: JobSpec, points: list[str] | None = None) -> str:
    """Starts the local executor from a session of its own, so that it outlives this terminal."""
    targets = points or [str(run.root)]
    with run.batch_log.open("ab") as log, submission_environment(hidden=spec.secret_env):
        done = subprocess.run(
            [sys.executable, "-m", "launcher.submission", str(run.submitit), *targets],
            cwd=run.code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    if done.returncode != 0:
        raise SubmissionError(f"the local executor did not start; see {run.batch_log}")
    return str(json.loads(done.stdout)["job_id"])


def local_main(folder: str, run_dirs: list[str]) -> None:
    """Submits through submitit's local executor and prints the job id as JSON."""
    from submitit import AutoExecutor

    from launcher.supervise.local import LocalRun

    answer = os.dup(1)
    # The job inherits what this process has open: it must not hold on to the caller's pipe.
    os.dup2(2, 1)
    os.set_inheritable(answer, False)
    executor = AutoExecutor(folder, cluster="local")
    # The supervisor keeps the time limit itself, attempt by attempt.
    executor.update_parameters(timeout_min=60 * 24 * 365 * 10, tasks_per_node=1)
    job = executor.submit(LocalRun(tuple(run_dirs)))
    os.write(answer, json.dumps({"job_id": job.job_id}).encode())
