"""Who is blamed for what the nodes report: recorded reports in, a verdict out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from launcher.preflight.judge import Report, Seen, Verdict, judge, read_report

GIB = 1 << 30
FINE = Report("", folder="", reach="", shared_memory=GIB, gpus=8, gpus_given=8, clock=0.0)
READ_ONLY = {"folder": "Read-only file system", "folder_code": "EROFS"}
FULL = {"folder": "No space left on device", "folder_code": "ENOSPC"}


def seen(*changes: dict[str, object] | None, silent: tuple[str, ...] = ()) -> Seen:
    """Nodes n1, n2, … that are as they should be but for ``changes``; None: it says nothing."""
    nodes = [f"n{number}" for number in range(1, len(changes) + 1)]
    told = zip(nodes, changes, strict=True)
    reports = {n: replace(FINE, node=n, **c) for n, c in told if c is not None}  # type: ignore[arg-type]
    return Seen(tuple(nodes), reports, silent)


def verdict(*changes: dict[str, object] | None, silent: tuple[str, ...] = ()) -> Verdict:
    return judge(seen(*changes, silent=silent), on_gpus=True)


def test_healthy_nodes_give_no_reason_for_anything() -> None:
    found = verdict({}, {}, {"gpus_given": None, "shared_memory": None})
    assert (found.unfit, found.everywhere, found.warnings) == ({}, "", ())
    assert found.seen == {
        "looked_at": 3,
        "seconds": 0.0,
        "gpus": 8,
        "shared_memory": GIB,
        "clocks_apart": 0.0,
    }


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (READ_ONLY, "it cannot write to the run folder (Read-only file system)"),
        ({"folder": None, "late": ("folder",)}, "the run folder does not answer there"),
        ({"shared_memory": 3 << 20}, "/dev/shm has 3 MiB left"),
        ({"gpus": 7}, "it shows 7 of the 8 GPUs that Slurm has given"),
        ({"gpus": 0, "gpus_said": "No devices\n"}, r"8 GPUs that Slurm has given (No devices\n)"),
        ({"gpus": None}, "it shows no GPU, and other nodes do"),
        ({"reach": "n1 port 7: timed out"}, "it cannot reach n1 port 7: timed out"),
        ({"clock": -100.0}, "its clock is 100 s behind"),
    ],
)
def test_what_one_node_alone_has_is_its_own_fault(fault: dict[str, object], reason: str) -> None:
    found = verdict({}, {}, fault)
    assert list(found.unfit) == ["n3"]
    assert found.unfit["n3"].endswith(reason)
    assert (found.everywhere, found.warnings) == ("", ())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (READ_ONLY, "n1: it cannot write to the run folder (Read-only file system); the same"),
        ({"gpus": 0, "gpus_said": "driver gone"}, "8 GPUs that Slurm has given (driver gone)"),
    ],
)
def test_what_every_node_has_is_for_a_person_to_change(fault: dict[str, object], said: str) -> None:
    found = verdict(fault, fault)
    assert found.unfit == {}
    assert said in found.everywhere
    assert found.everywhere.endswith("start the ranks anyway with --no-preflight")


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        # Pretend GPUs, and ranks that share one, are a site's right.
        (({"gpus": 1}, {"gpus": 1}), "n1: it shows 1 of the 8 GPUs"),
        (({"shared_memory": 0}, {"shared_memory": 0}), "n1: /dev/shm has 0 MiB left; the same"),
        (({"shared_memory": 0},), "n1: /dev/shm has 0 MiB left"),
        # An outage that ends, and a full disk that only some have met.
        (({"folder": "Stale", "folder_code": "ESTALE"},) * 2, "cannot write to the run folder"),
        (({}, {}, FULL), "the run folder is full, as n3 sees it"),
        # Which of the two is it?
        (({}, {"reach": "n1 port 7: refused"}), "n2: it cannot reach n1 port 7: refused"),
        (
            ({}, {"reach": "x"}, {"reach": "x"}),
            "n2: it cannot reach x; the same on all other nodes",
        ),
        (({}, {"clock": 500.0}), "the clocks of n1, n2 differ by up to 500 s"),
    ],
)
def test_where_nobody_can_tell_whose_it_is_the_run_starts(
    changes: tuple[dict[str, object], ...], warning: str
) -> None:
    found = verdict(*changes)
    assert (found.unfit, found.everywhere) == ({}, "")
    assert len(found.warnings) == 1
    assert warning in found.warnings[0]


def test_the_only_node_of_a_job_is_to_blame_for_a_gpu_that_slurm_has_given_there() -> None:
    assert list(verdict({"gpus": 7}).unfit) == ["n1"]
    assert list(verdict({"gpus": 0}).unfit) == ["n1"]


def test_nodes_without_a_driver_are_a_cluster_without_gpus() -> None:
    """So are the pretend GPUs of a test cluster: the training says that it runs on CPUs."""
    found = verdict({"gpus": None}, {"gpus": None})
    assert (found.unfit, found.everywhere, found.warnings) == ({}, "", ())


COMPUTES = {"computes": "", "computing": 8, "reduces": ""}
XID = {"computes": "cuda:3: CUDA error", "computing": 7, "reduces": None}
NOTHING = {"computes": "torch sees no GPU", "computing": 0, "reduces": None}
WAITS = {**COMPUTES, "reduces": None}
TOGETHER = "the nodes do not compute together: an all-reduce between them"


@pytest.mark.parametrize(
    ("changes", "unfit", "warnings"),
    [
        ((COMPUTES, COMPUTES), {}, ()),
        ((WAITS, XID), {"n2": "cuda:3: CUDA error"}, ()),
        # Only the program, or the image, is the same everywhere.
        ((NOTHING, NOTHING), {}, ("n1: torch sees no GPU; the same on all other nodes",)),
        ((NOTHING,), {}, ("n1: torch sees no GPU",)),
        ((XID,), {"n1": "cuda:3: CUDA error"}, ()),
        # Whose network it is, nobody can tell.
        ((WAITS, WAITS), {}, (f"{TOGETHER} comes to no end",)),
        ((WAITS, {**COMPUTES, "reduces": "no route"}), {}, (f"{TOGETHER} fails (n2: no route)",)),
    ],
)
def test_a_gpu_that_does_not_compute_is_its_nodes_fault_where_others_do(
    changes: tuple[dict[str, object], ...], unfit: dict[str, str], warnings: tuple[str, ...]
) -> None:
    found = verdict(*changes)
    assert (found.unfit, found.everywhere, found.warnings) == (unfit, "", warnings)


def test_gpus_are_nothing_to_a_run_on_cpus() -> None:
    assert judge(seen({}, {"gpus": 0}), on_gpus=False).unfit == {}


def test_a_clock_is_no_further_off_than_the_answer_took() -> None:
    assert verdict({}, {}, {"clock": 40.0, "clock_within": 15.0}).unfit == {}


def test_the_one_that_does_not_answer_is_unfit_most_of_them_are_not() -> None:
    assert verdict({}, {}, None, silent=("n3",)).unfit == {"n3": "it does not answer"}
    found = verdict({}, None, silent=("n2",))
    assert (found.unfit, found.warnings) == ({}, ("no answer from n2",))


def test_a_node_that_could_not_be_asked_is_not_blamed() -> None:
    told = replace(seen({}, None), problem="n2 could not be looked at: old Python")
    found = judge(told, on_gpus=True)
    assert (found.unfit, found.warnings) == ({}, ("n2 could not be looked at: old Python",))


def test_a_report_is_read_as_far_as_it_makes_sense() -> None:
    line = {"node": "n1", "folder": 3, "gpus": True, "clock": "soon", "late": [1, "gpus"], "x": 1}
    assert read_report(json.dumps(line)) == Report("n1", late=("gpus",))


@pytest.mark.parametrize("line", ["", "hello", "[]", "{}", '{"node": 3}', "[" * 100000, "NaN"])
def test_a_line_that_is_no_report_is_none(line: str) -> None:
    assert read_report(line) is None
