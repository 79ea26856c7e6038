from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from minimind.telemetry.console import (
    ProgressBar,
    logging_to_console,
    logging_to_file,
    step_line,
)

POINT: dict[str, Any] = {
    "epoch": 0,
    "step": 100,
    "iters": 1000,
    "loss": 10.56784,
    "logits_loss": 10.23449,
    "aux_loss": 0.33335,
    "learning_rate": 2e-4,
    "epoch_minutes": 10.4561,
    "tokens_per_second": 12345.6,
    "mfu": 0.4567,
    "elapsed_seconds": 10.0,
    "data_seconds": 0.1,
    "compute_seconds": 9.0,
    "optimizer_seconds": 0.5,
    "checkpoint_seconds": 0.2,
    "seconds_left": 3725.9,
}

log = logging.getLogger("minimind.some.module")


def test_the_line_of_the_design_document() -> None:
    line = step_line(POINT, epochs=3)
    assert line.startswith(
        "Epoch:[1/3](100/1000), loss: 10.5678, logits_loss: 10.2345, aux_loss: 0.3333, "
        "learning_rate: 0.00020000, epoch_time: 10.456min"
    )
    assert line.endswith(
        ", tok/s: 12,346, MFU: 45.7%, data/compute/optimizer/checkpoint: 1/90/5/2%, "
        "time_left: 1h02m"
    )


def test_gpu_fields_follow_when_there_is_a_gpu() -> None:
    point = {**POINT, "gpu_memory_peak_gb": 7.25, "gpu_utilization": 97, "gpu_temperature": 61}
    assert step_line(point, 1).endswith("memory: 7.2GB, GPU: 97% 61°C, time_left: 1h02m")


class Terminal(io.StringIO):
    """What a bar believes to be one."""

    def isatty(self) -> bool:
        return True


def test_the_bar_knows_the_time_left_and_what_the_run_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)

    def redrawn() -> str:
        shown.truncate(0)
        bar._progress.refresh()
        return shown.getvalue()

    with ProgressBar(9000, 20, visible=True) as bar:
        bar.update(21, 95.0, "loss 2.500")
        assert "1m35s left loss 2.500" in redrawn()
        with bar.phase("scoring held-out text"):
            assert "scoring held-out text" in redrawn()
        assert "training" in redrawn()


def test_rank_0_speaks_and_the_others_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_console("info", rank=0):
        log.info("hello")
        log.debug("detail")
        log.error("bad", exc_info=ValueError("x"))
    assert capsys.readouterr().out == "hello\nERROR: bad\n"
    with logging_to_console("info", rank=3):
        log.info("hello")
        log.warning("careful")
    assert capsys.readouterr().out == "[rank 3] WARNING: careful\n"


def test_the_file_has_everything_with_tracebacks(tmp_path: Path) -> None:
    with logging_to_console("error", 0), logging_to_file(tmp_path, rank=0) as path:
        log.debug("detail")
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("bad")
    text = path.read_text()
    assert "[rank 0] DEBUG minimind.some.module: detail" in text
    assert "ValueError: why" in text


def test_other_ranks_leave_no_file_when_nothing_is_wrong(tmp_path: Path) -> None:
    with logging_to_console("info", 1), logging_to_file(tmp_path, rank=1):
        log.info("hello")
    assert list(tmp_path.iterdir()) == []


def test_handlers_are_gone_afterwards(tmp_path: Path) -> None:
    before = list(logging.getLogger("minimind").handlers)
    with logging_to_console("info", 0), logging_to_file(tmp_path, 0):
        pass
    assert logging.getLogger("minimind").handlers == before


def test_a_full_disk_leaves_a_gap_in_the_log_and_one_line_on_the_console(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.log").symlink_to("/dev/full")
    with logging_to_file(tmp_path, rank=0) as path:
        log.warning("first")
        log.warning("second")
    out, err = capfd.readouterr()
    assert out == f"WARNING: {path} cannot be written: No space left on device\n"
    assert "Logging error" not in err


def test_a_log_that_cannot_be_opened_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.log").mkdir()
    with logging_to_file(tmp_path, rank=0) as path:
        log.warning("first")
        log.warning("second")
    assert capfd.readouterr().out == f"WARNING: {path} cannot be written: Is a directory\n"
