"""Who is to blame for an attempt's end: a node, where that is beyond doubt; else nobody."""

from __future__ import annotations

import pytest

from launcher.supervise.classify import Evidence
from launcher.supervise.suspects import Suspect, find_suspects, hardware_error

NODES = ["n1", "n2", "n3"]
VICTIM = "minimind.errors.LostRankError: rank 1 on n2 has ended: RuntimeError: boom"
CLOSED = "RuntimeError: [pair.cc:534] Connection closed by peer [10.0.0.2]:41202"
OWN = "Traceback (most recent call last):\n  File x\ntorch.AcceleratorError: unspecified failure"


def blamed(cause: str, evidence: Evidence, *logs: str, nodes: list[str] = NODES) -> list[Suspect]:
    return find_suspects(cause, evidence, nodes, 1, lambda: dict(enumerate(logs)))


def test_a_node_that_is_lost_is_to_blame() -> None:
    lost = Evidence(1, down_nodes=("n2",), log="srun: error: Node failure on n2\n")
    assert blamed("node_failure", lost) == [Suspect("n2", "it was lost", True)]
    only_srun = Evidence(1, log="srun: error: Node failure on n3\n")
    assert blamed("node_failure", only_srun) == [Suspect("n3", "it was lost", True)]


def test_no_log_is_read_where_a_lost_node_leaves_seconds() -> None:
    def logs() -> dict[int, str]:
        raise AssertionError("thousands of ranks may have one each")

    found = find_suspects("node_failure", Evidence(143, down_nodes=("n2",)), NODES, 1, logs)
    assert [suspect.node for suspect in found] == ["n2"]


def test_the_batch_scripts_node_may_have_been_lost() -> None:
    (suspect,) = blamed("node_failure", Evidence(None, restarted=True))
    assert (suspect.node, suspect.certain) == ("n1", False)


@pytest.mark.parametrize(
    "cause", ["preempted", "time_limit", "done", "config", "lost", "cancelled"]
)
def test_other_ends_blame_no_node(cause: str) -> None:
    assert blamed(cause, Evidence(1, reasons={"n2": "ECC"}), "", OWN, "") == []


@pytest.mark.parametrize(
    ("log", "logs", "node"),
    [
        ("", (VICTIM, OWN, CLOSED), "n2"),
        (
            "srun: error: n2: task 1: Killed\nsrun: error: n1: task 0: Killed",
            (VICTIM, "", ""),
            "n2",
        ),
        ("srun: error: n2: task 1: Exited with exit code 1", (VICTIM, OWN, VICTIM), "n2"),
        # Killed everywhere, by an administrator or for want of memory: nobody was first for sure.
        ("srun: error: n1: task 0: Killed\nsrun: error: n2: task 1: Killed", ("", "", ""), ""),
        ("", (OWN, OWN, VICTIM), ""),
        ("", (VICTIM, VICTIM, VICTIM), ""),
        ("", ("", "", ""), ""),
    ],
)
def test_a_crash_is_that_of_the_node_that_says_so_alone(
    log: str, logs: tuple[str, ...], node: str
) -> None:
    found = blamed("crash", Evidence(1, log=log), *logs)
    assert found == ([Suspect(node, "ranks crashed there alone", False)] if node else [])


def test_a_job_of_one_node_cannot_tell_its_node_from_its_program() -> None:
    assert blamed("crash", Evidence(1), OWN, nodes=["n1"]) == []


STACKS = """step 4
Thread 0x00007f (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
Current thread 0x00007e (most recent call first):
  File "{}", line 30 in f
  File "/x/minimind/training/trainer.py", line 120 in train_epoch
"""
WAITS = STACKS.format("/x/torch/distributed/distributed_c10d.py")
READS = STACKS.format("/x/minimind/data/token_store.py")


@pytest.mark.parametrize(
    ("logs", "node"),
    [
        ((WAITS, READS, WAITS), "n2"),
        ((WAITS, WAITS, "step 4\n"), "n3"),
        ((WAITS, READS, READS), ""),
        ((WAITS, WAITS, WAITS), ""),
        (("", "", ""), ""),
    ],
)
def test_a_hang_is_that_of_the_node_that_all_others_wait_for(
    logs: tuple[str, ...], node: str
) -> None:
    found = blamed("hang", Evidence(137), *logs)
    assert found == ([Suspect(node, "ranks hung there alone", False)] if node else [])


@pytest.mark.parametrize(
    ("reason", "log", "said"),
    [
        ("", "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.", "Xid 79"),
        ("gpu xid 48", "", "Xid 48"),
        ("GPU3 ECC", "", "names ECC"),
        ("", "RuntimeError: CUDA error: uncorrectable ECC error encountered", "hardware error"),
        # The driver's words for a program that reads beyond its memory; and a text on eccentrics.
        ("", "NVRM: Xid (PCI:0000:3b:00): 31, pid=1, MMU Fault", ""),
        ("kernel update", "the word ECC in a sample of text, and eccentric", ""),
        ("", "", ""),
    ],
)
def test_words_of_broken_hardware(reason: str, log: str, said: str) -> None:
    found = hardware_error(reason, log)
    assert said in found
    assert bool(found) == bool(said)


def test_broken_hardware_is_certain_and_named_by_the_ranks_log() -> None:
    broken = f"{OWN}\nCUDA error: uncorrectable ECC error encountered"
    found = find_suspects(
        "crash", Evidence(1), ["n1", "n2"], 2, lambda: {0: VICTIM, 1: VICTIM, 2: broken, 3: VICTIM}
    )
    assert found == [Suspect("n2", "its GPU reported a hardware error", True)]


def test_a_rank_that_repeats_anothers_last_words_has_no_broken_hardware() -> None:
    broken = "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"
    repeated = f"minimind.errors.LostRankError: rank 1 on n2 has ended: {broken}"
    found = blamed("crash", Evidence(1), repeated, broken, repeated)
    assert found == [Suspect("n2", "its GPU reported a hardware error", True)]


@pytest.mark.parametrize(
    ("distribution", "node"),
    [
        *(("", "n2"), ("*", "n2"), ("block:cyclic,Pack", "n2")),
        *(("cyclic", "n1"), ("cyclic:block", "n1")),
        *(("plane", ""), ("arbitrary", ""), ("teleporting", "")),
    ],
)
def test_a_rank_is_where_srun_has_put_it(distribution: str, node: str) -> None:
    """The third of four, two on a node."""
    logs = {0: VICTIM, 1: VICTIM, 2: OWN, 3: VICTIM}
    evidence = Evidence(1, distribution=distribution)
    found = find_suspects("crash", evidence, ["n1", "n2"], 2, lambda: logs)
    assert [suspect.node for suspect in found] == ([node] if node else [])


def test_nobody_knows_where_ranks_are_that_are_more_than_fit() -> None:
    """As where a script of the user's own does not say how many tasks a node has."""
    logs = {0: VICTIM, 1: OWN, 2: VICTIM, 3: VICTIM}
    assert find_suspects("crash", Evidence(1), ["n1", "n2"], 1, lambda: logs) == []
