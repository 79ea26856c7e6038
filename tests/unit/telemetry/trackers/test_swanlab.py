import os
import sys
import types
from pathlib import Path

import pytest

from minimind.cli import track
from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.telemetry.trackers import swanlab as tracking
from minimind.telemetry.trackers import sync
from minimind.telemetry.trackers.swanlab import NullTracker, SwanLabTracker, start_tracker

FAKE_SWANLAB = """
import os, sys
with open(os.environ["SENT"], "a") as file:
    print(*sys.argv[1:], file=file)
print(os.environ["SAYS"])
sys.exit(int(os.environ["EXITS"]))
"""


def make_segment(save_dir: Path, name: str, data: bytes = b"x" * 100) -> Path:
    folder = save_dir / "swanlog" / name
    folder.mkdir(parents=True)
    run_id = name.rsplit("-", 1)[1]
    (folder / f"run-{run_id}.swanlab").write_bytes(data)
    return folder


@pytest.fixture
def fake_command(monkeypatch, tmp_path):
    """A ``python -m swanlab`` of ours, that notes what it is asked for."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "swanlab.py").write_text(FAKE_SWANLAB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("SENT", str(tmp_path / "sent"))
    monkeypatch.setenv("SAYS", "fine")
    monkeypatch.setenv("EXITS", "0")
    monkeypatch.setattr(sync, "_require_key", lambda: None)

    def sent():
        file = tmp_path / "sent"
        return file.read_text().splitlines() if file.exists() else []

    return sent


def test_segments_go_in_time_order_and_once(fake_command, tmp_path, capfd):
    later = make_segment(tmp_path, "run-20260102_000000-abc")
    first = make_segment(tmp_path, "run-20260101_235959-abc")
    make_segment(tmp_path, "run-20260101_235800-abc", data=b"")
    (tmp_path / "swanlog" / "run-20260101_000000-abc").mkdir()
    assert track.main(["sync", str(tmp_path)]) == 0
    assert fake_command() == [f"sync -i abc {first}", f"sync -i abc {later}"]
    assert track.main(["sync", str(tmp_path)]) == 0
    assert len(fake_command()) == 2


def test_a_segment_that_grew_is_sent_again(fake_command, tmp_path):
    folder = make_segment(tmp_path, "run-20260101_000000-abc")
    track.main(["sync", str(tmp_path)])
    with (folder / "run-abc.swanlab").open("ab") as file:
        file.write(b"more")
    track.main(["sync", str(tmp_path)])
    assert len(fake_command()) == 2


@pytest.mark.parametrize(
    ("says", "exits"),
    [("no network", "1"), ("ERROR - Confirm sync\n finish failed: 3 record(s) retained", "0")],
    ids=["exit code", "exit 0, but it says so"],
)
def test_a_failure_stops_before_the_next_segment(
    fake_command, tmp_path, monkeypatch, capfd, says, exits
):
    first = make_segment(tmp_path, "run-20260101_000000-abc")
    make_segment(tmp_path, "run-20260102_000000-abc")
    monkeypatch.setenv("SAYS", says)
    monkeypatch.setenv("EXITS", exits)
    assert track.main(["sync", str(tmp_path)]) == 1
    assert fake_command() == [f"sync -i abc {first}"]
    assert tracking.read_sent(tmp_path / "swanlog") == {}
    out, err = capfd.readouterr()
    assert says in out
    assert f"{first} was not sent" in err


def test_a_dry_run_prints_quoted_commands_and_sends_nothing(fake_command, tmp_path, capsys):
    save_dir = tmp_path / "my out"
    folder = make_segment(save_dir, "run-20260101_000000-abc")
    assert track.main(["sync", "--dry-run", str(save_dir)]) == 0
    assert capsys.readouterr().out == f"swanlab sync -i abc '{folder}'\n"
    assert fake_command() == []


def test_no_records_is_a_user_error(tmp_path):
    with pytest.raises(ConfigError, match="no SwanLab records") as caught:
        track.main(["sync", str(tmp_path)])
    assert caught.value.exit_code == 2


def test_no_key_is_a_user_error(tmp_path, monkeypatch):
    make_segment(tmp_path, "run-20260101_000000-abc")
    settings = types.SimpleNamespace(api_key=None)
    fake = types.SimpleNamespace(Settings=lambda: settings)
    monkeypatch.setitem(sys.modules, "swanlab", fake)
    with pytest.raises(ConfigError, match="no API key"):
        track.main(["sync", str(tmp_path)])


def test_a_damaged_record_of_what_was_sent_sends_again(fake_command, tmp_path):
    make_segment(tmp_path, "run-20260101_000000-abc")
    (tmp_path / "swanlog" / "sent.json").write_text("{torn")
    assert track.main(["sync", str(tmp_path)]) == 0
    assert len(fake_command()) == 1


class Run:
    id = "abc"
    mode = "offline"
    dir = "unused"

    def __init__(self):
        self.logged = []
        self.finished = []

    def log(self, values, step):
        if "bad" in values:
            raise RuntimeError("SwanLab is broken")
        self.logged.append((step, values))

    def finish(self, state, error):
        self.finished.append((state, error))


def test_only_numbers_are_logged():
    run = Run()
    tracker = SwanLabTracker(run)
    tracker.log({"loss": 1.5, "step": 3, "flag": True, "text": "x", "none": None}, 3, 3)
    tracker.log({"text": "x"}, 4, 4)
    assert run.logged == [(3, {"loss": 1.5, "step": 3})]


def test_a_failing_log_is_one_warning(caplog):
    run = Run()
    tracker = SwanLabTracker(run)
    tracker.log({"bad": 1}, 1, 1)
    tracker.log({"bad": 1}, 2, 2)
    tracker.log({"loss": 1}, 3, 3)
    assert len(caplog.records) == 1
    assert run.logged == []


def test_finish_once_and_with_the_error():
    run = Run()
    tracker = SwanLabTracker(run)
    tracker.finish("boom")
    tracker.finish()
    assert run.finished == [("crashed", "boom")]
    assert tracker.run_id == "abc"


def test_a_failing_finish_is_a_warning(caplog, monkeypatch):
    run = Run()
    monkeypatch.setattr(run, "finish", lambda **_: 1 / 0)
    SwanLabTracker(run).finish()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("mode", "stopping", "seconds"),
    [("online", True, 5.0), ("online", False, 15.0), ("offline", True, 15.0)],
)
def test_a_stop_waits_less_for_an_upload_but_not_for_records_in_memory(
    monkeypatch, caplog, mode, stopping, seconds
):
    limits = []

    def too_long(work, limit):
        limits.append(limit)
        raise TimeoutError

    monkeypatch.setattr(tracking, "run_with_timeout", too_long)
    run = Run()
    run.mode = mode
    SwanLabTracker(run).finish(stopping=stopping)
    assert limits == [seconds]
    assert f"could not upload everything in {seconds:.0f} s" in caplog.text


@pytest.mark.parametrize("failure", [ImportError, RuntimeError, SystemExit])
def test_whatever_swanlab_raises_the_run_goes_on(monkeypatch, tmp_path, caplog, failure):
    key = "key-in-the-message"

    def init(**_):
        raise failure(f"cannot use {key}")

    settings = types.SimpleNamespace(api_key=key, mode="online", model_fields_set={"mode"})
    fake = types.SimpleNamespace(Settings=lambda: settings, init=init)
    monkeypatch.setitem(sys.modules, "swanlab", fake)
    monkeypatch.setitem(os.environ, "SWANLAB_API_KEY", key)
    config = TrainConfig(use_wandb=True, save_dir=str(tmp_path))
    tracker = start_tracker(config, "kept", {}, is_main=True)
    assert type(tracker) is NullTracker
    assert tracker.run_id == "kept"
    assert "not tracked" in caplog.text
    assert key not in caplog.text


def test_swanlab_is_imported_only_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "swanlab", None)
    assert type(start_tracker(TrainConfig(), None, {}, is_main=True)) is NullTracker
