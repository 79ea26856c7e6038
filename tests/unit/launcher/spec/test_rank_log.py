from __future__ import annotations

from pathlib import Path

from launcher.spec.rank_log import RankLog
from launcher.spec.run_folder import RunFolder


def write(run: RunFolder, attempt: int, text: str) -> None:
    path = run.rank_log(attempt, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def test_a_log_is_followed_from_attempt_to_attempt(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write(run, 1, "old\n")
    log = RankLog(run, 0, first=2)
    assert log.read() == ""
    write(run, 2, "a\n")
    assert log.read() == "a\n"
    write(run, 2, "b\n")
    write(run, 3, "c\n")
    assert log.read() == "b\nc\n"


def test_one_attempt_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for attempt in (1, 2, 3):
        write(run, attempt, f"{attempt}\n")
    assert RankLog(run, 0, first=2, last=2).read() == "2\n"
    assert RankLog(run, 0, first=4, last=4).read() == ""


def test_the_logs_of_an_attempt_by_rank(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.rank_logs() == {}
    write(run, 1, "x")
    write(run, 2, "x")
    (run.attempt_dir(2) / "rank-10.log").touch()
    (run.attempt_dir(2) / "srun.log").touch()
    assert list(run.rank_logs()) == [0, 10]
    assert list(run.rank_logs(1)) == [0]


def test_no_control_sequence_of_a_rank_acts_on_the_terminal(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write(run, 1, "\x1b[31mred\x1b[0m\tand 中文\n")
    assert RankLog(run, 0, first=1).read() == "\\x1b[31mred\\x1b[0m\tand 中文\n"
