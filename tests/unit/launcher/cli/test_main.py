from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import runs_dir_flag
from tests.unit.launcher.submit.test_submission import GOLDEN
from tests.unit.report.folders import write_done


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MINIMIND_RUNS", raising=False)
    return tmp_path


def test_importing_the_launcher_imports_no_torch() -> None:
    code = (
        "import sys, launcher.cli, launcher.submit.submission, launcher.submit.resolve\n"
        "import launcher.supervise.slurm, launcher.supervise.local\n"
        "import launcher.inspect.explain, launcher.inspect.control, minimind.config\n"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_command_line_itself_is_light() -> None:
    """What makes --help slow stays out of it: measured in modules, not in a machine's seconds."""
    code = (
        "import sys, launcher.cli\n"
        "assert not {'submitit', 'cloudpickle', 'rich.table', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_host_side_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It runs with whatever Python the node has: -S leaves out site-packages."""
    root = Path(__file__).resolve().parents[4]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "import launcher.supervise.slurm, launcher.supervise.plain, launcher.rank.task"
    )
    subprocess.run([sys.executable, "-S", "-E", "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("command", [[], ["submit"], ["status"], ["logs"], ["why"], ["cancel"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_unknown_option_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--nodez", "2"]) == 2
    assert "--nodez" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_bad_flags_submit_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--name", "x", "--cluster", "local", "--", "--epochs", "-1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("launcher: error: ")
    assert "epochs" in said
    assert len(said.strip().splitlines()) == 1
    assert not (here / "runs").exists()


@pytest.mark.usefixtures("here")
def test_dry_run_prints_the_script_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["submit", "--name", "x", "--cluster", "slurm", "--dry-run", "--nodes", "2"]
    assert main([*command, "--", "--device", "cpu"]) == 0
    script, said = capsys.readouterr()
    assert script.startswith("#!/bin/bash\n")
    assert f"--output={here}/runs/x/batch.log" in script
    assert f" --chdir={here}/runs/x/code {sys.executable} -u -m submitit" in said
    assert main([*command, "--json", "--", "--device", "cpu"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["script"] == script
    assert f"The ranks of x: {answer['ranks']}\n" == said
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "command", [["submit", "--name", "x"], ["doctor", "--nodes", "1", "--cpu"], ["drill", "--cpu"]]
)
def test_slurm_where_there_is_none_is_one_line_and_leaves_no_run(
    here: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(here))
    (here / "site.toml").write_text('cluster = "slurm"\n')
    assert main([*command, "--profile", "site.toml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("launcher: error: there is no sbatch on this machine")
    assert len(said.strip().splitlines()) == 1
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize("command", [["submit", "--name", "x"], ["doctor", "--nodes", "1"]])
def test_unknown_cluster_of_a_profile_is_one_line(
    here: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "site.toml").write_text('cluster = "pbs"\n')
    assert main([*command, "--profile", "site.toml"]) == 2
    assert "choose auto, slurm or local" in capsys.readouterr().err
    assert not list(here.glob("runs/*"))


def hints(said: str) -> str:
    return said.split("Next: ")[1].splitlines()[0]


def test_the_next_commands_find_the_run(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know neither the --runs-dir nor the --profile of the submission."""
    monkeypatch.setattr("launcher.submit.submission.submit", lambda spec, secrets: "5")
    submit = ["submit", "--cluster", "local", "--name", "x"]
    assert main([*submit, "--", "--device", "cpu"]) == 0
    assert "--runs-dir" not in hints(capsys.readouterr().err), "the folder is where they look"
    assert main([*submit, "--runs-dir", "my runs", "--", "--device", "cpu"]) == 0
    flag = f"--runs-dir '{here}/my runs'"
    assert hints(capsys.readouterr().err).endswith(flag)
    (here / "site.toml").write_text(f'runs_dir = "{here}/shared"\n')
    assert main([*submit, "--profile", "site.toml", "--", "--device", "cpu"]) == 0
    assert hints(capsys.readouterr().err).endswith(f"--runs-dir {here}/shared")
    monkeypatch.setenv("MINIMIND_RUNS", str(here / "shared"))
    assert main([*submit, "--profile", "site.toml", "--", "--device", "cpu"]) == 0
    assert "--runs-dir" not in hints(capsys.readouterr().err)


def test_a_point_of_a_sweep_is_found_in_the_folder_of_all_runs(here: Path) -> None:
    (here / "far" / "grid" / "0").mkdir(parents=True)
    (here / "far" / "grid" / "sweep.json").write_text("{}")
    (here / "runs" / "x").mkdir(parents=True)
    assert runs_dir_flag(RunFolder(here / "far/grid/0")) == f" --runs-dir {here}/far"
    assert runs_dir_flag(RunFolder(here / "runs/x")) == ""


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_dry_run_of_a_sweep_shows_a_points_command(
    cluster: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "--name", "sw", "--cluster", cluster, "--vary", "epochs=1,2", "--dry-run"]
    options = ["--image", "mm", "--container", "docker", "--json"]
    assert main([*command, *options, "--", "--device", "cpu"]) == 0
    ranks = json.loads(capsys.readouterr().out)["ranks"]
    sweep = here / "runs" / "sw"
    assert f"--label minimind.run={sweep}/0 --volume {sweep}:{sweep} " in ranks
    assert not sweep.exists()


@pytest.mark.usefixtures("here")
def test_a_sweep_warns_of_data_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.submit.sweep.submit_sweep", lambda *given: [])
    command = ["sweep", "--name", "sw", "--cluster", "local", "--vary", "epochs=1,2"]
    assert main([*command, "--", "--device", "cpu", "--data_path", "nosuch.jsonl"]) == 0
    assert "--data_path nosuch.jsonl: not found on this machine" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_unknown_run_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("why", "logs", "cancel", "requeue", "status"):
        assert main([command, "nope"]) == 2
        assert "no run nope" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_nothing_to_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["status"]) == 0


@pytest.mark.parametrize("loss", ['"NaN"', "NaN", '"Infinity"', "-Infinity"])
def test_status_keeps_a_point_that_is_not_finite_and_its_json_valid(
    submitted: RunFolder, capsys: pytest.CaptureFixture[str], loss: str
) -> None:
    line = f'{{"time": 1.0, "global_step": 7, "total_steps": 9, "loss": {loss}}}\n'
    out = Path(submitted.spec().save_dir)
    out.mkdir()
    (out / "metrics.jsonl").write_text(line)
    assert main(["status", "demo", "--json", "--runs-dir", str(submitted.root.parent)]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (found["step"], found["total_steps"]) == (7, 9)
    assert found["loss"] == loss.strip('"')


def test_golden_folder_is_used() -> None:
    assert len(list(GOLDEN.glob("*.txt"))) >= 7


def test_exit_status_of_a_run_outlives_its_reader(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.submit.local.run_here", lambda *given, **more: 75)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["run", "--procs", "1", "--json", "--", "--max_steps", "1"]) == 75


def test_why_shows_what_a_rank_wrote_and_lets_none_of_it_act(
    here: Path, submitted: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    number = submitted.new_attempt()
    submitted.append("attempt_started", attempt=number)
    error = "Traceback (most recent call last):\nValueError: \x1b[31mred\n"
    submitted.rank_log(number, 0).write_text(error)
    submitted.append("attempt_ended", attempt=number, cause="crash", exit_code=1)
    assert main(["why", "demo", "--runs-dir", str(submitted.root.parent)]) == 0
    shown = capsys.readouterr().out
    assert "ValueError: \\x1b[31mred" in shown
    assert shown.replace("\n", "").isprintable()


def test_a_report_of_runs_by_their_names(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_done(here / "runs" / "first")
    assert main(["report", "first"]) == 0
    assert "<title>first</title>" in (run / "report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'} (")

    asked: list[list[str]] = []
    monkeypatch.setattr("minimind.cli.report.main", lambda words: asked.append(words) or 0)
    assert main(["report", "first", "--port", "8765"]) == 0
    assert main(["report", "first", "--serve", "--json"]) == 0
    assert asked == [[str(run), "--serve", "8765"], [str(run), "--serve", "0", "--json"]]
    assert main(["report", "second"]) == 2
    assert "no run second in" in capsys.readouterr().err
