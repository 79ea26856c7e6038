"""The batch script of a run, and what sbatch is given with it."""

from __future__ import annotations

import inspect
import shlex
from typing import Any

from launcher.slurm.parse import leading_number
from launcher.spec.elastic import allocated_nodes, keeps_nodes
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import sbatch_parameters
from launcher.spec.run_folder import RunFolder
from minimind.system.signals import IGNORED_BY_BATCH_SHELL

SUBMITIT = ("-u", "-m", "submitit.core._submit")
"""What submitit puts behind a Python; the folder of its pickles follows."""

DEFAULT_WARNING_SECONDS = 60
"""Slurm's, where an option names a signal alone."""

SHORT_LIMIT_MINUTES = 10
"""Below this a warning a minute early would cost much of the run; SIGTERM at the limit does."""

GPU = "gpu"
"""The generic resource that sbatch has options of its own for."""

LETTERS = {
    "A": "account",
    "C": "constraint",
    "D": "chdir",
    "J": "job-name",
    "N": "nodes",
    "c": "cpus-per-task",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "x": "exclude",
}
"""sbatch's one-letter names for options that we set."""
OPPOSITE = {"no-requeue": "requeue"}
"""An option → the one of ours that it takes back."""


def batch_script(spec: JobSpec, *, array: bool = False) -> str:
    """The exact batch script of this spec (an array's but for its range); needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = RunFolder(spec.run_dir).submitit
    command = " ".join([supervised(spec), *SUBMITIT, shlex.quote(str(folder))])
    parameters = executor_parameters(spec, array=array)
    return str(_make_sbatch_string(command=command, folder=folder, **parameters))


def warning_seconds(spec: JobSpec) -> int:
    """How long before its time limit the job asks to be warned; 0: not at all.

    A profile's own option counts, as sbatch(1) has it: ``[{R|B}:]SIGNAL[@SECONDS]``.
    """
    if site := spec.sbatch.get("signal"):
        return leading_number(str(site).partition("@")[2], DEFAULT_WARNING_SECONDS)
    short = spec.time_minutes is not None and spec.time_minutes < SHORT_LIMIT_MINUTES
    return 0 if short else spec.signal_lead


def supervised(spec: JobSpec) -> str:
    """The shell words before ``-u -m submitit.core._submit FOLDER`` in the batch script."""
    return shlex.join([spec.host_python, "-m", "launcher.supervise", spec.run_dir])


def executor_parameters(spec: JobSpec, *, array: bool = False) -> dict[str, Any]:
    """What submitit's Slurm executor is given, under Slurm's own names.

    In an array every task has its own run folder below ``spec.run_dir``, named by its index.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    run = RunFolder(spec.run_dir)
    known = inspect.signature(_make_sbatch_string).parameters
    asked = sbatch_parameters(spec)
    others = {name: asked.pop(name) for name in asked.keys() - known.keys()}
    gres = spec.devices.gres if spec.request_gpus else None
    ignored = " ".join(number.name.removeprefix("SIG") for number in IGNORED_BY_BATCH_SHELL)
    ours: dict[str, Any] = {
        **asked,
        "gpus_per_node": spec.gpus if gres == GPU else None,
        "wckey": None,
        "signal_delay_s": warning_seconds(spec),
        "stderr_to_stdout": True,
        "use_srun": False,
        # The batch shell must outlive the signals that stop the ranks: what follows them,
        # classifying and requeueing, is its work.
        "setup": [f"trap '' {ignored}", *spec.setup],
        "additional_parameters": {
            "chdir": str(run.code),
            "output": str(RunFolder(run.root / "%a").batch_log if array else run.batch_log),
            "requeue": "expedite" if spec.expedite else True,
            **{name: value for name, value in others.items() if value is not None},
            **({} if gres in (None, GPU) else {"gres": f"{gres}:{spec.gpus}"}),
        },
    }
    if keeps_nodes(spec):
        ours["nodes"] = allocated_nodes(spec)
        # Slurm takes a lost node out of the job, and ends the step that was on it, not the job.
        ours["additional_parameters"]["no-kill"] = True
    return with_site_options(ours, spec.sbatch)


def with_site_options(ours: dict[str, Any], sbatch: dict[str, Any]) -> dict[str, Any]:
    """What submitit's executor is given, with a profile's own options of sbatch in place of ours.

    They may be spelt ``t``, ``time``, ``cpus-per-task`` or ``cpus_per_task``. False leaves an
    option out.
    """
    more = {name.replace("_", "-"): value for name, value in ours["additional_parameters"].items()}
    merged = dict(ours)
    for given, value in sbatch.items():
        name = LETTERS.get(given, given).replace("_", "-")
        if name.replace("-", "_") in merged:
            merged[name.replace("-", "_")] = None
        for replaced in (name, OPPOSITE.get(name, "")):
            more.pop(replaced, None)
        if value is not False:
            more[name] = value
    return {**merged, "additional_parameters": more}
