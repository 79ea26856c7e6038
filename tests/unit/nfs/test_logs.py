"""Logs of metrics and events on a network file system lose no line."""

from __future__ import annotations

import errno

import pytest

from minimind.rundir.events import EventLog, append_event, read_events
from minimind.system.jsonl import JsonLog, read_objects
from tests.nfs import Mount, available

pytestmark = pytest.mark.skipif(not available(), reason="mounting needs root and /dev/fuse")

Pair = tuple[Mount, Mount]


def numbers(mount: Mount) -> list[int]:
    return [record["n"] for record in read_objects(mount.place / "log")]


def test_a_server_that_forgets_its_handles_costs_no_line(mounts: Pair) -> None:
    a, b = mounts
    log = JsonLog(a.place / "log")
    log.write({"n": 1})
    a.behave(epoch=1)
    for n in (2, 3):
        log.write({"n": n})
    assert numbers(b) == [1, 2, 3]


@pytest.mark.parametrize("name", ["write_error", "sync_error"])
def test_a_quota_costs_no_line_once_there_is_room(mounts: Pair, name: str) -> None:
    a, b = mounts
    log = JsonLog(a.place / "log")
    log.write({"n": 1})
    with a.behaving(**{name: errno.EDQUOT}):
        for n in (2, 3):
            log.write({"n": n})
    log.write({"n": 4})
    assert numbers(b) == [1, 2, 3, 4]


def test_an_event_of_another_node_is_not_written_over(mounts: Pair) -> None:
    training, login = mounts
    events = EventLog(training.place / "events.jsonl")
    events.append("started", step=0)
    append_event(login.place / "events.jsonl", "cancel_requested")
    events.append("preempted", step=3, signal="SIGTERM")
    found = [event["event"] for event in read_events(login.place / "events.jsonl")]
    assert found == ["started", "cancel_requested", "preempted"]
