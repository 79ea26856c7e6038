"""Batch script and ranks' command of every runtime, against files that a person has read."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.containers.runtimes import rank_command
from launcher.slurm.sbatch import batch_script, supervised, warning_seconds
from launcher.spec.job_spec import JobSpec
from launcher.spec.mount import Mount
from launcher.spec.options import CONTAINERS
from minimind.system.signals import STOP_SIGNALS

GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pyxis": {"image": "registry.example/minimind:1"},
    "enroot": {"image": "/shared/minimind.sqsh"},
    "apptainer": {"image": "/shared/minimind.sif"},
    "docker": {"image": "minimind:1", "user": "1000:1000"},
    "podman": {"image": "minimind:1", "user": "1000:1000"},
    "charliecloud": {"image": "/shared/minimind"},
    "everything": {
        "name": "all-options",
        "run_dir": "/shared/my runs/it's $(here)",
        "partition": "low",
        "account": "lab",
        "qos": "normal",
        "time_minutes": 1440,
        "mem": "64G",
        "cpus_per_gpu": 6,
        "constraint": "a100",
        "exclude": "n7",
        "reservation": "course",
        "sbatch": {"exclusive": True, "mail-type": "END"},
        "setup": ("module load cuda",),
        "container": "docker",
        "image": "minimind:1",
        "container_args": ("--shm-size=8g",),
        "mounts": (Mount("/data", "/data", read_only=True),),
        "env": {"NCCL_DEBUG": "a 'b' $(c)"},
        "secret_env": ("SWANLAB_API_KEY",),
    },
    "cpu": {"request_gpus": False, "time_minutes": 5},
    "expedite": {"expedite": True},
    "min-nodes": {"nodes": 3, "min_nodes": 2},
    "spare-nodes": {"spare_nodes": 1},
}
FILE = {"apptainer": "minimind.sif", "enroot": "minimind.sqsh", "charliecloud": "minimind"}
for maker in ("amd", "ascend"):
    CASES[maker] = {"device": maker}
    for runtime in CONTAINERS[1:]:
        image = f"/shared/{FILE[runtime]}" if runtime in FILE else "minimind:1"
        case = {"device": maker, "container": runtime, "image": image}
        CASES[f"{maker}-{runtime}"] = {**case, "user": "1000:1000"}
CASES["ascend-gpu"] = {"device": "ascend", "device_options": {"gres": "gpu:910b"}}
CASES["ascend-cpu"] = {**CASES["ascend-docker"], "request_gpus": False}


@pytest.mark.parametrize("case", CASES)
def test_script_and_command_are_the_golden_ones(
    case: str, make_spec: Callable[..., JobSpec]
) -> None:
    changes = dict(CASES[case])
    if "image" in changes:
        changes.setdefault("container", case)
    spec = make_spec(**changes)
    text = f"{batch_script(spec)}\n# the supervisor's command\n{shlex.join(rank_command(spec))}\n"
    path = GOLDEN / f"{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "run with UPDATE_GOLDEN=1, and read the difference"


@pytest.mark.parametrize("case", CASES)
def test_script_and_command_are_valid_shell(case: str) -> None:
    path = GOLDEN / f"{case}.txt"
    subprocess.run(["bash", "-n", str(path)], check=True)
    checker = shutil.which("shellcheck")
    if checker:
        # SC2096 and the like are about sbatch's comments; quoting is what matters.
        subprocess.run([checker, "--severity=warning", str(path)], check=True)


@pytest.mark.parametrize("number", set(STOP_SIGNALS) - {signal.SIGHUP})
def test_batch_shell_and_supervisor_outlive_what_stops_the_ranks(
    number: int, make_spec: Callable[..., JobSpec]
) -> None:
    setup = batch_script(make_spec()).partition("# setup\n")[2].partition("# command\n")[0]
    # The supervisor is Python, which sets a handler for Ctrl-C by itself unless it is ignored.
    child = f"{sys.executable} -c 'import os; os.kill(os.getpid(), {int(number)}); print(1)'"
    script = f"{setup}\nkill -{int(number)} $$\n{child}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("1\n", 0)


def test_secrets_and_env_values_are_not_in_the_script(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(
        container="docker", image="i", env={"KEY": "value-of-key"}, secret_env=("TOKEN",)
    )
    text = " ".join([batch_script(spec), *rank_command(spec)])
    assert "value-of-key" not in text
    assert "TOKEN" not in text
    assert "--env KEY" in text


WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="%\\:,"), min_size=1
).map(lambda text: f"/{text}")


@settings(max_examples=40, deadline=None)
@given(run_dir=WORDS, workdir=WORDS)
def test_paths_reach_the_commands_as_they_are(run_dir: str, workdir: str) -> None:
    """What a shell makes of the script's last line is what was meant; srun gets it as it is."""
    spec = JobSpec(
        name="n", run_dir=run_dir, workdir=workdir, container="podman", image="i", python="py"
    )
    line = next(x for x in batch_script(spec).split("\n") if "launcher.supervise" in x)
    words = shlex.split(line)
    assert words[: words.index("-u")] == shlex.split(supervised(spec))
    assert words[3] == run_dir
    command = rank_command(spec)
    assert command[-len(words[4:]) :] == words[4:]
    assert f"{workdir}:{workdir}" in command


@pytest.mark.parametrize(
    ("site", "seconds"), [(None, 120), ("B:TERM@600", 600), ("USR1", 60), ("R:10@5", 5)]
)
def test_a_sites_own_signal_says_how_early_it_warns(
    site: str | None, seconds: int, make_spec: Callable[..., JobSpec]
) -> None:
    assert warning_seconds(make_spec(sbatch={"signal": site} if site else {})) == seconds


@pytest.mark.parametrize(
    ("sbatch", "lines"),
    [
        ({"t": "9"}, ["#SBATCH --time=9"]),
        ({"cpus_per_task": 4}, ["#SBATCH --cpus-per-task=4"]),
        ({"gpus_per_node": "a100:8"}, ["#SBATCH --gpus-per-node=a100:8"]),
        ({"open_mode": "truncate"}, ["#SBATCH --open-mode=truncate"]),
        ({"no-requeue": True}, ["#SBATCH --no-requeue"]),
        ({"requeue": False}, []),
    ],
)
def test_a_sites_option_replaces_ours_however_it_is_spelt(
    sbatch: dict[str, Any], lines: list[str], make_spec: Callable[..., JobSpec]
) -> None:
    spec = make_spec(time_minutes=60, cpus_per_gpu=2, sbatch=sbatch)
    option = next(iter(lines), "#SBATCH --requeue").partition("=")[0].replace("--no-", "--")
    script = batch_script(spec).replace("--no-", "--").splitlines()
    found = [line for line in script if line.partition("=")[0] == option]
    assert found == [line.replace("--no-", "--") for line in lines]
