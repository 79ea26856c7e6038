"""``submit``: validate, snapshot, start, and follow when asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.cli.options import submission_options
from minimind.errors import EXIT_DONE, EXIT_USER_ERROR, ConfigError
from minimind.system.terminal import note, print_json

if TYPE_CHECKING:
    from launcher.spec.job_spec import JobSpec
    from launcher.spec.run_folder import RunFolder


@submission_options
def submit(train_flags: list[str] | None, **given: Any) -> int:
    """Submit a training run to Slurm; without Slurm it starts on this machine."""
    from launcher.submit.resolve import read_secrets, resolve

    spec = resolve(given, train_flags or [])
    as_json, wait = given["as_json"], given["wait"]
    if given["plan"]:
        return _print_plan(spec, given["on"], as_json)
    if given["dry_run"]:
        from launcher.cli.output import print_script

        print_script(spec, as_json)
        return 0
    from launcher.cli.output import warn_of_lost_checkpoint, warn_of_unseen_data
    from launcher.spec.run_folder import RunFolder
    from launcher.submit.submission import submit as send

    secrets = read_secrets(spec)
    check_name_is_free(spec, given["resume"])
    warn_of_unseen_data(spec)
    if given["resume"]:
        warn_of_lost_checkpoint(RunFolder(spec.run_dir), spec, new_code=True)
    job_id = send(spec, secrets)
    _say_submitted(spec, job_id, as_json, quiet=wait and as_json)
    if not wait:
        return 0
    from launcher.inspect.follow import follow

    return follow(spec.run_dir, as_json=as_json)


def _print_plan(spec: JobSpec, on: str | None, as_json: bool) -> int:
    """Returns 2 where the model cannot fit, as ``minimind plan`` does."""
    from launcher.submit.plan import plan_of
    from minimind.planning.run_plan import as_dict
    from minimind.planning.text import table

    plan = plan_of(spec, on)
    if as_json:
        print_json(as_dict(plan))
    else:
        print(table(plan))
    return EXIT_USER_ERROR if plan.cannot_fit else EXIT_DONE


def check_name_is_free(spec: JobSpec, resume: bool) -> None:
    """Raises ConfigError unless this run is new, or is to be resumed and can be."""
    from launcher.inspect import run_state as state
    from launcher.slurm import client as slurm
    from launcher.spec.run_folder import RunFolder

    run = RunFolder(spec.run_dir)
    if not run.exists():
        if resume:
            raise ConfigError(f"--resume: there is no run {spec.name} in {run.root.parent}")
        return
    if not resume:
        raise ConfigError(
            f"a run {spec.name} exists: continue it with --resume, or choose another --name"
        )
    now, reason, _ = state.job_state(run, slurm.job_states() if slurm.available() else None)
    if now in state.ACTIVE:
        job = ", ".join(filter(None, [run.job_id(), reason]))
        raise ConfigError(f"run {spec.name} is {now} (job {job}): nothing to resume")
    if now == state.UNKNOWN:
        raise ConfigError(f"cannot tell whether run {spec.name} still runs: {reason}")
    if now == state.DONE:
        raise ConfigError(f"run {spec.name} has finished: choose another --name to train again")


def _say_submitted(spec: JobSpec, job_id: str, as_json: bool, quiet: bool) -> None:
    from launcher.spec.run_folder import RunFolder

    if as_json:
        if not quiet:
            print_json({"run": spec.name, "job_id": job_id, "run_dir": spec.run_dir})
        return
    place = f"Slurm job {job_id}" if spec.cluster == "slurm" else f"local process {job_id}"
    note(f"Run {spec.name}: {place}, {ranks_text(spec)}")
    note(f"Folder: {spec.run_dir}")
    commands = [f"{verb} {spec.name}" for verb in ("status", "logs -f", "why", "cancel")]
    note_next(RunFolder(spec.run_dir), commands)


def note_next(run: RunFolder, commands: list[str]) -> None:
    """Names the commands that come next, as this user has to type them."""
    from launcher.submit.resolve import runs_dir_flag

    flag = runs_dir_flag(run)
    note("Next: launcher " + " · ".join(commands) + (f", each with{flag}" if flag else ""))


def ranks_text(spec: JobSpec) -> str:
    """``16 ranks``, and on what where that may be a surprise."""
    from launcher.supervise.host import count_devices

    text = f"{spec.world_size} rank{'s' if spec.world_size > 1 else ''}"
    if not spec.request_gpus:
        return text + " on CPUs over gloo (--device cpu)"
    if spec.cluster == "local" and count_devices(spec.devices) == 0:
        return text + f" on CPUs over gloo (no {spec.devices.unit} here)"
    return text
