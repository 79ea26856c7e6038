"""The real SwanLab: offline records read back by its own reader, and its own sync command.

Only the far end is ours: a server on this machine that answers as SwanLab's cloud does, as
far as the client asks, and keeps what it is sent.
"""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minimind.cli import track
from minimind.config import TrainConfig
from minimind.system.process import free_port
from minimind.telemetry.trackers import swanlab as tracking
from minimind.telemetry.trackers.swanlab import NullTracker, SwanLabTracker, start_tracker
from minimind.telemetry.trackers.sync import find_segments

pytest.importorskip("swanlab")

KEY = "not-a-real-key-0123456789"


@pytest.fixture(autouse=True)
def no_swanlab_account(monkeypatch, tmp_path):
    """No key, no stored login, no settings file of the machine's user."""
    for name in [name for name in os.environ if name.startswith("SWANLAB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("SWANLAB_ROOT", str(tmp_path / "home"))
    monkeypatch.setenv("SWANLAB_PROBE_MONITOR", "false")
    monkeypatch.setenv("SWANLAB_PROBE_REQUIREMENTS", "false")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(save_dir=str(tmp_path / "out"), use_wandb=True, epochs=2, batch_size=16)


class Cloud:
    """What the server was told. ``steps[run_id][metric]`` is a list of (step, value)."""

    def __init__(self):
        self.steps = {}
        self.states = {}
        self.names = {}
        self.failure = 0
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                if cloud.failure:
                    status, reply = cloud.failure, {}
                else:
                    path = self.path.split("?")[0].removeprefix("/api")
                    status, reply = cloud.reply(self.command, path, body)
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def reply(self, method, path, body):
        if path == "/login/api_key":
            user = {"username": "me", "name": "Me"}
            return 200, {"sid": "s", "expiredAt": "2099-01-01T00:00:00.000Z", "userInfo": user}
        if path.endswith("/experiment"):
            run_id = body["cuid"]
            new = run_id not in self.steps
            self.steps.setdefault(run_id, {})
            self.names[run_id] = body["name"]
            created = "2026-01-01T00:00:00.000Z"
            reply = {"cuid": run_id, "slug": run_id, "name": body["name"], "createdAt": created}
            return (201 if new else 200), reply
        if path.endswith("/state"):
            self.states[path.split("/")[-2]] = body["state"]
        if path == "/house/metrics" and body["type"] == "scalar":
            curves = self.steps[body["experimentId"]]
            for metric in body["metrics"]:
                curves.setdefault(metric["key"], []).append((metric["index"], metric["data"]))
        if path.startswith("/house/metrics/summaries/"):
            curves = self.steps[path.split("/")[-1]]
            last = [{"key": key, "step": max(points)[0]} for key, points in curves.items()]
            return 200, {"log": [], "media": [], "scalar": last}
        if method == "GET" and path.startswith("/project/"):
            project = path.split("/")[-1]
            return 200, {
                "cuid": "p",
                "name": project,
                "version": 1,
                "path": f"/me/{project}",
                "group": {"username": "me"},
                "_count": {"experiments": 0},
            }
        return 200, {}


@pytest.fixture
def cloud(monkeypatch):
    server = Cloud()
    monkeypatch.setenv("SWANLAB_API_KEY", KEY)
    monkeypatch.setenv("SWANLAB_API_HOST", server.url)
    yield server
    server.close()


def read_segment(folder):
    """(run id, experiment name, {metric: {step: value}}, finish state) by SwanLab's reader."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.proto.swanlab.run.v1.run_pb2 import RunState
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    reader = DataStoreReader()
    reader.open(tracking.run_file(folder))
    start, points, state = None, {}, None
    for data in reader:
        record = Record()
        record.ParseFromString(data)
        if record.HasField("start"):
            start = record.start
        elif record.HasField("scalar"):
            scalar = record.scalar
            points.setdefault(scalar.key, {})[scalar.step] = scalar.value.number
        elif record.HasField("finish"):
            state = RunState.Name(record.finish.state)
    reader.close()
    return start, points, state


def segments(config):
    return [segment.folder for segment in find_segments(Path(config.save_dir))]


def train(config, run_id, steps, error=None):
    tracker = start_tracker(config, run_id, {"hidden_size": 512}, is_main=True)
    for step in steps:
        tracker.log({"loss": 10.0 / step, "epoch": 1, "note": "text", "none": None}, step, step)
    tracker.finish(error)
    return tracker


def test_off_the_main_rank_and_without_the_flag_nothing_starts(config, tmp_path):
    off = TrainConfig(save_dir=config.save_dir)
    for tracker in (
        start_tracker(config, "kept", {}, is_main=False),
        start_tracker(off, "kept", {}, is_main=True),
    ):
        assert type(tracker) is NullTracker
        assert tracker.run_id == "kept"
        tracker.log({"loss": 1.0}, 1, 1)
        tracker.finish()
    assert not (tmp_path / "out").exists()


def test_offline_points_are_found_by_swanlabs_own_reader(config, caplog):
    with caplog.at_level(logging.INFO):
        tracker = train(config, None, range(1, 51))
    assert isinstance(tracker, SwanLabTracker)
    (folder,) = segments(config)
    start, points, state = read_segment(folder)
    assert points["loss"] == pytest.approx({step: 10.0 / step for step in range(1, 51)})
    assert set(points) == {"loss", "epoch"}
    assert (start.id, start.project) == (tracker.run_id, "MiniMind-Pretrain")
    assert start.name == "MiniMind-Pretrain-Epoch-2-BatchSize-16-LearningRate-0.0005"
    assert state == "RUN_STATE_FINISHED"
    assert "hidden_size" in (folder / "files" / "config.yaml").read_text()
    (line,) = [r.message for r in caplog.records if "offline" in r.message]
    assert f"minimind track sync {config.save_dir}" in line


def test_a_resumed_run_writes_a_second_segment_of_one_id(config):
    first = train(config, None, range(1, 6))
    second = train(config, first.run_id, range(6, 11))
    assert second.run_id == first.run_id
    one, two = map(read_segment, segments(config))
    assert one[0].id == two[0].id == first.run_id
    assert list(one[1]["loss"]) == [1, 2, 3, 4, 5]
    assert list(two[1]["loss"]) == [6, 7, 8, 9, 10]


def test_a_crash_is_recorded_and_nan_does_no_harm(config):
    tracker = start_tracker(config, None, {}, is_main=True)
    tracker.log({"loss": math.nan, "grad_norm": math.inf}, 1, 1)
    tracker.log({"loss": 2.0}, 2, 2)
    tracker.finish("NonFiniteLossError: step 1")
    tracker.finish()
    tracker.log({"loss": 3.0}, 3, 3)
    _, points, state = read_segment(segments(config)[0])
    assert state == "RUN_STATE_CRASHED"
    assert points["loss"][2] == 2.0
    assert 3 not in points["loss"]


def test_our_signal_handlers_stay(config):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGINT, handler)
    try:
        tracker = start_tracker(config, None, {}, is_main=True)
        assert isinstance(tracker, SwanLabTracker)
        assert signal.getsignal(signal.SIGINT) is handler
        tracker.finish()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_mode_of_the_environment_is_respected(config, cloud, monkeypatch):
    monkeypatch.setenv("SWANLAB_MODE", "disabled")
    assert type(train(config, "kept", [1])) is NullTracker
    assert segments(config) == []
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    train(config, None, [1])
    assert len(segments(config)) == 1
    assert cloud.steps == {}


def test_a_failing_swanlab_is_one_warning(config, caplog, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    tracker = train(config, "kept", [1, 2])
    assert type(tracker) is NullTracker
    assert tracker.run_id == "kept"
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_online_with_a_key(config, cloud, capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        tracker = train(config, None, range(1, 6))
    assert [step for step, _ in cloud.steps[tracker.run_id]["loss"]] == [1, 2, 3, 4, 5]
    assert cloud.states[tracker.run_id] == "FINISHED"
    train(config, tracker.run_id, range(6, 9))
    assert [s for s, _ in cloud.steps[tracker.run_id]["loss"]] == list(range(1, 9))
    assert track.main(["sync", config.save_dir]) == 0
    out, err = capfd.readouterr()
    assert "nothing to send" in out
    assert KEY not in out + err + caplog.text


def test_no_network_means_offline(config, monkeypatch, caplog, capfd):
    monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda self: 0)
    monkeypatch.setenv("SWANLAB_API_KEY", KEY)
    monkeypatch.setenv("SWANLAB_API_HOST", f"http://127.0.0.1:{free_port()}")
    tracker = train(config, None, range(1, 4))
    assert isinstance(tracker, SwanLabTracker)
    _, points, _ = read_segment(segments(config)[0])
    assert list(points["loss"]) == [1, 2, 3]
    assert "recorded offline" in caplog.text
    out, err = capfd.readouterr()
    assert KEY not in caplog.text + out + err


def test_finish_does_not_wait_for_ever_on_a_dead_network(config, cloud, monkeypatch, caplog):
    monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda self: 0)
    monkeypatch.setattr(tracking, "FINISH_LIMIT_SECONDS", 1.0)
    tracker = start_tracker(config, None, {}, is_main=True)
    cloud.failure = 503
    tracker.log({"loss": 1.0}, 1, 1)
    tracker.finish()
    assert "minimind track sync" in caplog.text
    assert tracking.read_sent(Path(config.save_dir) / "swanlog") == {}
    cloud.failure = 0
    assert track.main(["sync", config.save_dir]) == 0
    assert set(cloud.steps[tracker.run_id]["loss"]) == {(1, 1.0)}
    for thread in threading.enumerate():
        if thread.name == "timeout":
            thread.join(60)


LOSES_ITS_NETWORK = """
import sys
from minimind.config import TrainConfig
from minimind.telemetry.trackers import swanlab as tracking
tracking.FINISH_LIMIT_SECONDS = 1.0
config = TrainConfig(save_dir=sys.argv[1], use_wandb=True)
tracker = tracking.start_tracker(config, None, {}, is_main=True)
print("started", flush=True)
sys.stdin.readline()
tracker.log({"loss": 1.0}, 1, 1)
tracker.finish()
sys.exit(75)
"""


def test_a_process_without_its_network_still_ends(config, cloud):
    process = start_python(LOSES_ITS_NETWORK, config.save_dir)
    wait_for_line(process, "started")
    cloud.failure = 503
    process.communicate("\n", timeout=120)
    assert process.returncode == 75
    assert len(segments(config)) == 1


def start_python(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tracking.__file__).parents[3])},
    )


def wait_for_line(process, text):
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == text:
            return
    raise AssertionError(f"ended with {process.wait()} before it said {text!r}")


def test_sync_merges_the_segments_of_one_run_and_sends_nothing_twice(
    config, cloud, monkeypatch, capfd
):
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    run_id = train(config, None, range(1, 6)).run_id
    train(config, run_id, range(4, 9))
    train(config, run_id, range(9, 11))
    folders = segments(config)

    capfd.readouterr()
    assert track.main(["sync", config.save_dir, "--dry-run"]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert shown == [f"swanlab sync -i {run_id} {folder}" for folder in folders]
    assert cloud.steps == {}

    assert track.main(["sync", config.save_dir]) == 0
    assert list(cloud.steps) == [run_id]
    assert [s for s, _ in cloud.steps[run_id]["loss"]] == list(range(1, 11))
    assert cloud.states[run_id] == "FINISHED"
    assert KEY not in capfd.readouterr().out

    assert track.main(["sync", config.save_dir]) == 0
    assert "nothing to send: 3 of 3" in capfd.readouterr().out
    assert len(cloud.steps[run_id]["loss"]) == 10


def test_a_failed_sync_stops_and_the_next_goes_on(config, cloud, monkeypatch, capfd):
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    run_id = train(config, None, range(1, 4)).run_id
    train(config, run_id, range(4, 7))
    first, second = segments(config)
    hidden = second.with_name("hidden")
    second.rename(hidden)
    assert track.main(["sync", config.save_dir]) == 0
    hidden.rename(second)

    cloud.failure = 401
    assert track.main(["sync", config.save_dir]) == 1
    assert f"{second} was not sent" in capfd.readouterr().err
    assert list(tracking.read_sent(first.parent)) == [first.name]

    cloud.failure = 0
    assert track.main(["sync", config.save_dir]) == 0
    assert [s for s, _ in cloud.steps[run_id]["loss"]] == [1, 2, 3, 4, 5, 6]


KILLED = """
import sys, time
from minimind.config import TrainConfig
from minimind.telemetry.trackers.swanlab import start_tracker
config = TrainConfig(save_dir=sys.argv[1], use_wandb=True)
tracker = start_tracker(config, sys.argv[2], {}, is_main=True)
for step in range(1, 51):
    tracker.log({"loss": 1.0}, step, step)
print("logged", flush=True)
time.sleep(600)
"""


def test_a_killed_segment_is_empty_and_left_out_of_sync(config, cloud, monkeypatch):
    """The fact that makes finish() and our own metrics.jsonl necessary."""
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    process = start_python(KILLED, config.save_dir, "run1")
    wait_for_line(process, "logged")
    process.kill()
    process.communicate()
    (file,) = Path(config.save_dir).glob("swanlog/run-*-run1/run-run1.swanlab")
    assert file.stat().st_size == 0
    assert segments(config) == []
    while time.strftime("%Y%m%d_%H%M%S") <= file.parent.name[4:19]:
        time.sleep(0.05)

    train(config, "run1", range(51, 53))
    assert len(segments(config)) == 1
    assert track.main(["sync", config.save_dir]) == 0
    assert [s for s, _ in cloud.steps["run1"]["loss"]] == [51, 52]
