import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from minimind.rundir.events import (
    BEAT_SECONDS,
    NEEDED,
    SAVED,
    EventLog,
    Kind,
    append_event,
    is_event,
    read_events,
    stands_at,
)
from minimind.system.jsonl import read_objects
from minimind.telemetry import preparation
from minimind.telemetry.preparation import Preparation


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_nothing_happens_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIMIND_EVENTS", raising=False)
    monkeypatch.chdir(tmp_path)
    EventLog.from_environment().append("started")
    assert list(tmp_path.iterdir()) == []


def test_events_carry_time_and_fields(monkeypatch, tmp_path):
    path = tmp_path / "run" / "events.jsonl"
    monkeypatch.setenv("MINIMIND_EVENTS", str(path))
    before = time.time()
    events = EventLog.from_environment()
    events.append("started", attempt=1, nodes=["n1"])
    events.append("preempted", global_step=12)
    first, second = read(path)
    assert before <= first["time"] <= second["time"] <= time.time()
    assert (first["event"], first["attempt"], first["nodes"]) == ("started", 1, ["n1"])
    assert (second["event"], second["global_step"]) == ("preempted", 12)


def test_what_a_superseded_training_writes_is_no_news(monkeypatch, tmp_path):
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("MINIMIND_EVENTS", str(path))
    old, new = EventLog(path, 1), EventLog(path, 2)
    append_event(path, "attempt_started", attempt=1)
    old.append("checkpointed", step=40)
    append_event(path, "attempt_started", attempt=2)
    new.append("resumed", step=40)
    old.append("checkpointed", step=50)
    assert stands_at(read_events(path)) == 40
    # An image with an older training gives no number.
    EventLog(path).append("checkpointed", step=60)
    assert stands_at(read_events(path)) == 60
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "2")
    EventLog.from_environment().append("finished", step=70)
    assert read(path)[-1]["attempt"] == 2


def test_an_unwritable_log_warns_and_goes_on(tmp_path, caplog):
    blocker = tmp_path / "file"
    blocker.touch()
    with caplog.at_level(logging.WARNING):
        EventLog(blocker / "events.jsonl").append("finished")
    assert "finished" in caplog.text
    assert str(blocker) in caplog.text


def test_a_torn_line_stays_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "star')
    EventLog(path).append("resumed")
    torn, whole = path.read_text().splitlines()
    assert torn == '{"event": "star'
    assert json.loads(whole)["event"] == "resumed"


def _append_many(path, name):
    events = EventLog(path)
    for number in range(50):
        events.append(name, number=number, pad="y" * 500)


def test_writers_in_several_processes_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    context = multiprocessing.get_context("spawn")
    names = ["host", "trainer"]
    workers = [context.Process(target=_append_many, args=(path, name)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    events = read(path)
    for name in names:
        assert [e["number"] for e in events if e["event"] == name] == list(range(50))


WRITER = """
import sys
from minimind.rundir.events import EventLog
log = EventLog(sys.argv[1])
number = 0
while True:
    number += 1
    log.append("checkpointed", number=number)
    print(number, flush=True)
"""


def test_every_acknowledged_event_survives_sigkill(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        for _ in range(20):
            acknowledged = int(writer.stdout.readline())
    finally:
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
    acknowledged = max([acknowledged, *map(int, rest.split())])
    # What was being written when the kill came may be torn: nobody was told that it is there.
    numbers = [event["number"] for event in read_objects(path)]
    assert acknowledged >= 20
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) in (acknowledged, acknowledged + 1)


def test_a_beat_changes_the_files_time_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.append("started")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    text, stamps = path.read_text(), []
    for seconds in (0.0, BEAT_SECONDS - 0.1, 0.2):
        os.utime(path, (1, 1))
        now += seconds
        events.beat()
        stamps.append(path.stat().st_mtime != 1)
    assert stamps == [True, False, True]
    assert path.read_text() == text
    path.unlink()
    now += 2 * BEAT_SECONDS
    events.beat()
    assert not path.exists()


def test_long_preparation_is_told_once_a_minute_and_beats_in_between(tmp_path, monkeypatch, caplog):
    path = tmp_path / "events.jsonl"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    caplog.set_level(logging.INFO)
    events = EventLog(path)
    events.append("submitted")
    told = Preparation(events)
    beats = 0
    for second in range(150):
        os.utime(path, (1, 1))
        told(f"tokenising: {second} MB")
        beats += path.stat().st_mtime != 1
        now += 1
    assert beats >= 150 // BEAT_SECONDS
    said = ["tokenising: 60 MB", "tokenising: 120 MB"]
    assert [event["what"] for event in read(path) if event["event"] == "preparing"] == said
    records = [r for r in caplog.records if r.name == preparation.__name__]
    assert [record.message for record in records] == said


def test_an_event_is_called_as_its_constant() -> None:
    kinds = {name: value for name, value in vars(Kind).items() if name.isupper()}
    assert kinds == {name: name.lower() for name in kinds}
    assert {*NEEDED, *SAVED} <= set(kinds.values())


@pytest.mark.parametrize("kind", NEEDED)
def test_an_event_without_what_its_readers_need_is_none(kind: str) -> None:
    whole = {"time": 1.0, "event": kind, "attempt": 1, "pid": 7}
    whole |= dict.fromkeys(("job_id", "cause", "reason", "what", "node"), "5")
    whole |= {"certain": True, "until": 1.0}
    assert is_event(whole)
    for name in NEEDED[kind]:
        assert not is_event({key: value for key, value in whole.items() if key != name})


@pytest.mark.parametrize(
    ("events", "step"),
    [
        ([], None),
        ([("started", 0)], None),
        ([("started", 0), ("checkpointed", 10)], 10),
        ([("checkpointed", 10), ("started", 5), ("resumed", 5)], 5),
        ([("checkpointed", 10), ("resumed", 5), ("checkpointed", 7)], 7),
        ([("checkpointed", 10), ("started", 10)], 10),
        ([("checkpointed", 10), ("started", 0)], None),
        ([("preempted", 0), ("started", 0), ("resumed", 0)], 0),
        ([("checkpointed", 10), ("preempted", 12), ("failed", 99)], 12),
        ([("checkpointed", 10), ("finished", 20), ("attempt_ended", 10)], 20),
    ],
)
def test_where_a_run_stands_is_its_newest_word(events, step):
    assert stands_at({"event": kind, "step": at} for kind, at in events) == step
