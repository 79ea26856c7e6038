from __future__ import annotations

import sys

import pytest

from minimind import train_pretrain


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """The commands and numbers of the ranks that would have been started."""
    calls: list[tuple[list[str], int]] = []

    def run_ranks(command: list[str], count: int) -> int:
        calls.append((command, count))
        return 75

    monkeypatch.setattr(train_pretrain, "run_ranks", run_ranks)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize(
    "program",
    [
        ["-X", "dev", "/usr/bin/minimind", "pretrain"],
        ["-m", "minimind", "pretrain"],
        ["-m", "minimind.train_pretrain"],
        ["minimind/train_pretrain.py"],
    ],
)
def test_ranks_run_the_command_that_was_given(
    program: list[str], started: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--epochs", "2", "--procs", "3", "--data-path", "a-b.jsonl", "c.jsonl", "--seed=1"]
    monkeypatch.setattr(sys, "orig_argv", ["python", *program, *words])
    assert train_pretrain.main(words) == 75
    flags = ["--epochs", "2", "--data_path", "a-b.jsonl", "c.jsonl", "--seed=1"]
    assert started == [([sys.executable, *program, *flags], 3)]


def test_ranks_of_a_call_run_the_module(started: list[tuple[list[str], int]]) -> None:
    assert train_pretrain.main(["--procs=2"]) == 75
    assert started == [([sys.executable, "-m", "minimind.train_pretrain"], 2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--procs 0", "--procs must be the number of ranks to start, 1 or more, not 0"),
        ("--procs two", "--procs must be a whole number, but is 'two'"),
        ("--procs", "argument --procs: expected one argument (see minimind pretrain --help)"),
        ("--procs 2 --batch_size 0", "--batch_size must be greater than 0, or auto, but is 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: str,
    said: str,
    started: list[tuple[list[str], int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train_pretrain.main(words.split()) == 2
    assert capsys.readouterr().err == f"minimind pretrain: error: {said}\n"
    assert started == []


def test_a_rank_starts_no_ranks(
    started: list[tuple[list[str], int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    assert train_pretrain.main(["--procs", "2"]) == 2
    said = capsys.readouterr().err
    assert "--procs 2: this process is rank 3 of 4 already" in said
    assert said.count("\n") == 1
    # A shell on a node, by `srun --pty bash`, is a step of one.
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert train_pretrain.main(["--procs", "2"]) == 75


def test_a_place_that_makes_no_sense_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "first")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train_pretrain.main([]) == 2
    assert capsys.readouterr().err == (
        "minimind pretrain: error: environment variable RANK must be a number: 'first'\n"
    )


def test_a_machine_without_room_for_a_rank_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_ranks(command: list[str], count: int) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(train_pretrain, "run_ranks", run_ranks)
    assert train_pretrain.main(["--procs", "9"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("--procs 9: a rank cannot start: Resource temporarily unavailable\n")
