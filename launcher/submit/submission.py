"""JobSpec → a run folder and a submitit job."""

from __future__ import annotations

from launcher.rank.task import RankTask
from launcher.slurm.environment import submission_environment
from launcher.slurm.sbatch import executor_parameters, supervised
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted, make_private
from launcher.submit.local import start_local
from launcher.submit.snapshot import image_identity, snapshot_code
from launcher.supervise import attempt_log as attempt
from minimind.errors import ConfigError, SubmissionError


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
        job_id = start_local(run, spec)
    else:
        (job_id,) = _submit_slurm(run, spec)
    attempt.record_submission(run, spec, job_id, **image_identity(spec))
    return job_id


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
        job_ids = [start_local(root, spec, names)] * len(points)
    else:
        job_ids = _submit_slurm(root, spec, names)
    for point, job_id in zip(points, job_ids, strict=True):
        folder = RunFolder(point.run_dir)
        attempt.record_submission(folder, point, job_id, **image_identity(point))
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
