"""Ranks that Slurm has killed for want of memory, by its own words."""

from __future__ import annotations

import pytest

from launcher.supervise.classify import Evidence
from launcher.supervise.memory import described, killed_for_memory
from launcher.supervise.suspects import find_suspects

OF_SRUN = "srun: error: n2: task 1: Out Of Memory"
OF_A_RANK = (
    "slurmstepd-n2: error: Detected 1 oom-kill event(s) in StepId=2.1. Some of your processes may "
    "have been killed by the cgroup out-of-memory handler."
)
"""Recorded of 22.05.8."""
OTHERS = "minimind.errors.LostRankError: rank 1 on n2 has ended"


@pytest.mark.parametrize("line", [OF_SRUN, OF_A_RANK])
def test_it_is_named_with_its_node(line: str) -> None:
    said = killed_for_memory(["", f"something\n{line}\nsrun: error: n1: task 0: Exited"])
    assert said
    assert said[0] == line
    assert described(said).startswith("out of memory on n2: raise --mem")


def test_a_daemon_that_does_not_say_where_it_is() -> None:
    said = killed_for_memory([OF_A_RANK.replace("slurmstepd-n2", "slurmstepd")])
    assert said
    assert described(said).startswith("out of memory: ")


@pytest.mark.parametrize("text", ["", "srun: error: n2: task 1: Killed", "CUDA out of memory"])
def test_other_ends_are_not_taken_for_it(text: str) -> None:
    assert killed_for_memory([text]) is None


def test_no_node_is_blamed_for_what_would_be_too_much_on_any() -> None:
    def blamed(line: str) -> list[str]:
        evidence = Evidence(1, log=f"{line}\nsrun: error: n1: task 0: Exited with exit code 1")
        found = find_suspects("crash", evidence, ["n1", "n2"], 1, lambda: {0: OTHERS, 1: ""})
        return [suspect.node for suspect in found]

    assert blamed(OF_SRUN) == []
    assert blamed("srun: error: n2: task 1: Killed") == ["n2"]
