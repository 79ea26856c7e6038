"""Which nodes a job is kept from: never so many, nor such, that it could not start."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from launcher.slurm.client import Node
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise import exclusion
from launcher.supervise.exclusion import (
    Failed,
    failed_nodes,
    find_spares,
    left_out,
    plan,
)

HOUR = 3600.0


def suspected(node: str, hour: float, *, certain: bool = False) -> dict[str, Any]:
    reason = "it was lost" if certain else "ranks crashed there alone"
    event = {"event": "node_suspected", "attempt": int(hour), "node": node, "reason": reason}
    return {**event, "certain": certain, "time": hour * HOUR}


def failed(*events: dict[str, Any], hours: int = 24, now: float = 10.0) -> list[str]:
    return list(failed_nodes(list(events), now * HOUR, hours))


def test_once_is_enough_where_it_is_certain_and_twice_where_not() -> None:
    lost, fell = suspected("n1", 1, certain=True), suspected("n2", 2)
    assert failed(lost, fell) == ["n1"]
    assert failed(fell, suspected("n3", 3)) == []
    assert failed(lost, fell, suspected("n2", 3)) == ["n1", "n2"]
    assert failed(lost, suspected("n4", 2, certain=True)) == ["n4", "n1"]


def test_an_attempt_that_is_closed_twice_is_one_strike() -> None:
    assert failed(suspected("n2", 1.0), suspected("n2", 1.5)) == []
    assert failed(suspected("n2", 1.0), suspected("n2", 2.0)) == ["n2"]


def test_a_crash_that_comes_back_at_the_same_step_is_the_programs() -> None:
    def fell(node: str, hour: float, step: int) -> dict[str, Any]:
        return {**suspected(node, hour), "step": step}

    assert failed(fell("n2", 1, 437), fell("n2", 2, 437)) == []
    assert failed(fell("n2", 1, 437), fell("n2", 2, 438)) == [], "as far as rank 0 came"
    assert failed(fell("n2", 1, 437), fell("n2", 2, 439)) == ["n2"]
    assert failed(fell("n2", 1, 437), fell("n3", 2, 437), fell("n2", 3, 500)) == [], "it moved"
    assert failed(fell("n2", 1, 437), fell("n2", 2, 500)) == ["n2"]
    assert failed(fell("n2", 1, 437), fell("n2", 2, 437), fell("n2", 3, 500)) == []
    assert failed(fell("n2", 1.0, 437), fell("n2", 1.5, 437), fell("n2", 2, 500)) == ["n2"]
    assert failed(fell("n2", 1, 0), suspected("n2", 2)) == ["n2"], "an end that has no step"
    lost = suspected("n2", 3, certain=True)
    assert failed(fell("n2", 1, 437), fell("n2", 2, 437), lost) == ["n2"]


def test_a_node_is_left_out_until_its_strikes_are_too_few() -> None:
    twice = [suspected("n2", 1), suspected("n2", 23)]
    assert failed_nodes(twice, 24 * HOUR, 24) == {"n2": Failed(twice[0]["reason"], 25 * HOUR)}
    assert failed_nodes(twice, 25 * HOUR, 24) == {}
    thrice = [suspected("n2", 0.5), *twice]
    assert failed_nodes(thrice, 24 * HOUR, 24)["n2"].until == 25 * HOUR


def test_a_failure_is_forgotten_with_time() -> None:
    lost = suspected("n1", 1, certain=True)
    assert failed(lost, hours=10) == ["n1"]
    assert failed(lost, hours=9) == []
    assert failed(lost, hours=0) == []
    assert failed(suspected("n2", 1), suspected("n2", 9), hours=5) == []
    assert failed_nodes([lost], 2 * HOUR, 24) == {"n1": Failed("it was lost", 25 * HOUR)}


ANSWERS = """#!/bin/sh
[ "$1 $2" = "$SILENT" ] && exit 1
case "$1 $2" in
  "show job")
    echo "JobId=7 JobState=${STATE:-RUNNING} Partition=low Reservation=ours ReqNodeList=(null)" \\
      "ExcNodeList=n2,n9" ;;
  "show hostnames") echo "$3" | tr , '\\n' ;;
  "show reservation") echo "ReservationName=ours Nodes=n1,n2,n3,n4" ;;
  "update "*) echo "$*" >> "$0.updates"; [ -z "$SAID" ] || { echo "$SAID" >&2; exit 1; } ;;
  "show node") for i in 1 2 3 4; do echo "NodeName=n$i State=IDLE Partitions=low"; done ;;
esac
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A controller whose job 7 is kept from n2 and n9; $SILENT is what it does not answer."""
    (tmp_path / "scontrol").write_text(ANSWERS)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return monkeypatch


def planned(
    *nodes: str,
    listed: Collection[str] = (),
    ours: Collection[str] = (),
    need: int = 2,
    required: Collection[str] = (),
) -> tuple[list[str], list[str], tuple[str, ...]]:
    everything = {"n1", "n2", "n3", "n4"}
    spares = {node: everything - {node} for node in nodes}
    why = dict.fromkeys(nodes, Failed("it was lost", 0))
    found = plan(why, listed, ours, spares, need, required)
    return sorted(found.after), sorted(found.kept), found.admitted


def test_what_failed_is_left_out_as_long_as_the_job_can_start() -> None:
    assert planned("n2") == (["n2"], [], ())
    assert planned("n2", "n1") == (["n1", "n2"], [], ())
    assert planned("n2", "n1", "n3") == (["n1", "n2"], ["n3"], ())
    assert planned("n2", need=4) == ([], ["n2"], ())


def test_the_users_own_list_is_kept_and_counts() -> None:
    assert planned("n2", listed=["n1"]) == (["n1", "n2"], [], ())
    assert planned("n2", listed=["n1"], need=3) == (["n1"], ["n2"], ())
    assert planned("n1", listed=["n1"]) == (["n1"], [], ()), "it was theirs before"


def test_a_node_that_the_job_asks_for_is_not_left_out() -> None:
    assert planned("n2", required=["n2"]) == ([], ["n2"], ())
    assert planned("n1", required=["n2"]) == (["n1"], [], ())


def test_what_has_served_its_time_is_let_in_again_and_nothing_else() -> None:
    assert planned(listed=["n1", "n2"], ours=["n2"]) == (["n1"], [], ("n2",))
    assert planned("n2", listed=["n2"], ours=["n2"]) == (["n2"], [], ())
    # Somebody has emptied the list by hand meanwhile.
    assert planned(ours=["n2"]) == ([], [], ())
    assert planned("n2", ours=["n2"]) == ([], [], ())


def test_a_node_that_a_person_lets_in_again_has_a_clean_record() -> None:
    lost, other = suspected("n1", 1, certain=True), suspected("n2", 1, certain=True)
    by_hand = {"event": "node_admitted", "node": "n1", "job_id": "7", "time": 2 * HOUR}
    assert failed(lost, other, {**by_hand, "by": "person"}) == ["n2"]
    assert failed(lost, other, by_hand) == ["n1", "n2"], "there was no other node"
    again = suspected("n1", 3, certain=True)
    assert failed(lost, other, {**by_hand, "by": "person"}, again) == ["n1", "n2"]


@pytest.mark.usefixtures("answers")
def test_a_list_that_a_person_has_changed_is_not_changed_back(
    make_spec: Callable[..., JobSpec], submitted: RunFolder
) -> None:
    """By the command that `why` prints, as long as the job waits."""
    lost = {"attempt": 1, "reason": "it was lost"}
    for name in ("n2", "n3"):
        submitted.append("node_suspected", node=name, certain=True, **lost)
        submitted.append("node_excluded", node=name, job_id="7", until=time.time() + HOUR, **lost)
    for _ in range(2):
        found = exclusion.make_plan(submitted, make_spec(nodes=1), "7")
        assert found.after == found.before == {"n2", "n9"}
        exclusion.carry_out(submitted, found, 2, "7")
    assert [event["node"] for event in left_out(submitted.events(), "7")] == ["n2"]


def node(name: str, state: str = "IDLE", **changes: Any) -> Node:
    values = {"partitions": frozenset(["low"]), "gres": {"gpu:a100": 8}, "cpus": 64, "memory": 1000}
    return Node(name, state, **{**values, **changes})


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (node("n2"), True),
        (node("n2", "ALLOCATED"), True),
        (node("n2", "IDLE+POWERED_DOWN"), True),
        (node("n2", "DOWN*"), False),
        (node("n2", "MIXED+DRAIN"), False),
        (node("n2", "IDLE+RESERVED"), False),
        (node("n2", "IDLE+MAINTENANCE"), False),
        (node("n2", "IDLE+INVALID_REG"), False),
        (node("n2", "IDLE+TELEPORTING"), False),
        (node("n2", ""), False),
        (node("n2", partitions=frozenset(["high"])), False),
        (node("n2", gres={"gpu:a100": 4}), False),
        (node("n2", gres={"gpu:v100": 8}), False),
        (node("n2", gres={"gpu:a100": 8, "nvme": 1}), True),
        (node("n2", memory=500), False),
        (node("n2", features=frozenset(["a100"])), True),
    ],
)
def test_a_spare_is_no_less_than_what_it_replaces(other: Node, counts: bool) -> None:
    known = {"n1": node("n1", "DOWN"), "n2": other}
    assert find_spares("n1", {"Partition": "low"}, known, None) == ({"n2"} if counts else set())


def test_spares_have_the_features_of_what_they_replace() -> None:
    known = {n.name: n for n in (node("n1", features=frozenset(["ib"])), node("n2"))}
    assert find_spares("n1", {"Partition": "low"}, known, None) == set()
    assert find_spares("n2", {"Partition": "low"}, known, None) == {"n1"}


def test_spares_are_of_one_partition_and_of_the_reservation() -> None:
    high = frozenset(["high"])
    nodes = (node("n1"), node("n2"), node("n3"), node("n4", partitions=high))
    known = {n.name: n for n in nodes}
    assert find_spares("n1", {"Partition": "high,low"}, known, None) == {"n2", "n3"}
    assert find_spares("n1", {"Partition": "low"}, known, {"n1", "n2"}) == {"n2"}
    assert find_spares("gone", {"Partition": "low"}, known, None) == set()


def test_a_new_job_has_a_list_of_its_own() -> None:
    out = {"event": "node_excluded", "node": "n2", "job_id": "7", "reason": "", "until": 1.0}
    back = {"event": "node_admitted", "node": "n2", "job_id": "7"}
    assert left_out([out], "7") == [out]
    assert left_out([out], "8") == []
    assert left_out([out, back], "7") == []


@pytest.mark.parametrize(
    ("silent", "after"),
    [
        ("", {"n2", "n3", "n9"}),
        ("show job", set()),
        ("show node", set()),
        ("show hostnames", set()),
        ("show reservation", set()),
    ],
)
def test_a_list_stays_as_it_is_where_slurm_does_not_answer(
    answers: pytest.MonkeyPatch,
    make_spec: Callable[..., JobSpec],
    submitted: RunFolder,
    silent: str,
    after: set[str],
) -> None:
    """n2 is left out already, n9 is the user's own, and n3 has failed as well."""
    answers.setenv("SILENT", silent)
    for name in ("n2", "n3"):
        submitted.append("node_suspected", attempt=1, node=name, reason="it was lost", certain=True)
    until = time.time() + HOUR
    submitted.append("node_excluded", node="n2", job_id="7", reason="it was lost", until=until)
    found = exclusion.make_plan(submitted, make_spec(nodes=1), "7")
    assert found.after == after
    assert (found.before == found.after) == bool(silent)
    assert list(found.kept) == (["n3"] if silent else [])


@pytest.mark.parametrize(
    ("said", "why", "refused"),
    [
        ("Access denied", "Slurm refuses: Access denied", True),
        ("Socket timed out", "Slurm does not answer: Socket timed out", False),
    ],
)
def test_silence_is_no_refusal_for_good(
    answers: pytest.MonkeyPatch,
    make_spec: Callable[..., JobSpec],
    submitted: RunFolder,
    said: str,
    why: str,
    refused: bool,
) -> None:
    answers.setenv("SAID", said)
    submitted.append("node_suspected", attempt=1, node="n3", reason="it was lost", certain=True)
    found = exclusion.make_plan(submitted, make_spec(nodes=1), "7")
    exclusion.carry_out(submitted, found, 1, "7")
    kept = submitted.events()[-1]
    assert (kept["event"], kept["reason"], kept["refused"]) == ("node_kept", why, refused)


@pytest.mark.parametrize(
    ("state", "until", "said", "updates"),
    [
        ("PENDING", -1.0, "", ["update JobId=7 ExcNodeList=n9"]),
        ("PENDING", HOUR, "", []),
        ("RUNNING", -1.0, "", []),
        ("TELEPORTING", -1.0, "", []),
        ("PENDING", -1.0, "Access denied", ["update JobId=7 ExcNodeList=n9"]),
    ],
)
def test_a_job_that_waits_is_let_have_a_node_whose_hours_have_passed(
    answers: pytest.MonkeyPatch,
    make_spec: Callable[..., JobSpec],
    submitted: RunFolder,
    tmp_path: Path,
    state: str,
    until: float,
    said: str,
    updates: list[str],
) -> None:
    """n9 is the user's own, and n3, which has failed since, is left out at the next handover."""
    answers.setenv("STATE", state)
    answers.setenv("SAID", said)
    why = {"reason": "it was lost", "attempt": 1}
    submitted.append("node_excluded", node="n2", job_id="7", until=time.time() + until, **why)
    submitted.append("node_suspected", node="n3", certain=True, **why)
    admitted = exclusion.admit_expired(submitted, make_spec(nodes=1), "7")
    assert admitted == (["n2"] if updates and not said else [])
    asked = tmp_path / "scontrol.updates"
    assert (asked.read_text().splitlines() if asked.exists() else []) == updates
    assert [event["node"] for event in left_out(submitted.events(), "7")] == (
        [] if admitted else ["n2"]
    )
    kinds = {event["event"] for event in submitted.events()}
    assert kinds <= {"submitted", "node_excluded", "node_suspected", "node_admitted"}
