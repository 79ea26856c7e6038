from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import OPTIONS, spec_values
from minimind.errors import ConfigError

ROW = """    licenses: str | None = option(
        str, WHERE, "Slurm licenses.", commands=QUEUED, one_word=True, sbatch="licenses"
    )
"""


@pytest.fixture
def with_a_new_row(tmp_path: Path) -> Path:
    """A copy of the launcher whose table has one option more."""
    shutil.copytree(Path(launcher.__file__).parent, tmp_path / "launcher")
    table = tmp_path / "launcher" / "spec" / "options.py"
    before, reservation, after = table.read_text().partition("    reservation: ")
    table.write_text(before + ROW + reservation + after)
    return tmp_path


def dry_run(folder: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "launcher", "submit", "--name", "x", "--cluster", "slurm"]
    command += ["--dry-run", "--json", *words, "--", "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_new_option_is_one_row(with_a_new_row: Path) -> None:
    """The command, the profile, the spec and the batch script have it; the flag wins."""
    profile = with_a_new_row / "site.toml"
    profile.write_text('licenses = "from-the-profile"\n')
    answer = dry_run(with_a_new_row, "--profile", str(profile))
    assert answer["spec"]["licenses"] == "from-the-profile"
    answer = dry_run(with_a_new_row, "--profile", str(profile), "--licenses", "matlab")
    assert answer["spec"]["licenses"] == "matlab"
    assert "#SBATCH --licenses=matlab\n" in answer["script"]


def test_names_and_keys_are_unique() -> None:
    for attribute in ("name", "key", "field_name", "sbatch"):
        values = [getattr(row, attribute) for row in OPTIONS if getattr(row, attribute)]
        assert len(values) == len(set(values)), attribute


def test_what_nobody_says_is_left_to_the_spec() -> None:
    values = spec_values({}, {})
    assert JobSpec(**values, name="n", run_dir="/r", workdir="/w") == JobSpec(
        name="n", run_dir="/r", workdir="/w"
    )


def test_lists_of_the_profile_and_the_command_line_are_joined() -> None:
    given = {"mount": ["/b:/b"], "secret_env": ["B", "A"], "env": ["X=2"], "time": "1:00:00"}
    profile = {"mounts": ["/a:/a"], "secret_env": ["A"], "env": {"X": "1", "Y": "1"}, "time": 90}
    values = spec_values(given, profile)
    assert [str(mount) for mount in values["mounts"]] == ["/a:/a", "/b:/b"]
    assert values["secret_env"] == ("A", "B")
    assert values["env"] == {"X": "2", "Y": "1"}
    assert values["time_minutes"] == 60
    assert spec_values({}, profile)["time_minutes"] == 90


def test_limits_name_the_flag() -> None:
    with pytest.raises(ConfigError, match="--cpus-per-gpu 0: must be 1 or more"):
        JobSpec(name="n", run_dir="/r", workdir="/w", cpus_per_gpu=0)


def test_a_users_own_defaults_for_sbatch_come_after_flags_and_profile() -> None:
    own = {"SBATCH_ACCOUNT": "mine", "SBATCH_PARTITION": "mine", "SBATCH_TIMELIMIT": "1-0"}
    values = spec_values({"account": "flag"}, {"partition": "site"}, own)
    assert (values["account"], values["partition"]) == ("flag", "site")
    assert values["time_minutes"] == 1440
    assert spec_values({}, {}, own)["account"] == "mine"
    assert "account" not in spec_values({}, {})


def test_a_value_that_means_nothing_is_said_to_be_the_users_own_variable() -> None:
    own = {"SBATCH_TIMELIMIT": "UNLIMITED"}
    with pytest.raises(ConfigError, match=r"SBATCH_TIMELIMIT: --time 'UNLIMITED': write minutes"):
        spec_values({}, {}, own)
    with pytest.raises(ConfigError, match=r"^--time 'soon'"):
        spec_values({"time": "soon"}, {}, own)
    assert spec_values({"time": "90"}, {}, own)["time_minutes"] == 90
