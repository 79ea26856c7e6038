"""What Slurm's commands print, damaged: every reader answers, none raises, none hangs."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

from launcher.inspect import doctor
from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm.environment import query_environment
from launcher.slurm.parse import (
    MOST_TASKS,
    array_indices,
    count_devices,
    is_down,
    leading_number,
    limit_seconds,
    parse_stamp,
)
from launcher.spec.devices import MAKERS
from launcher.supervise.classify import Evidence, classify
from minimind.rundir import causes
from tests.fuzz.damage import damaged_bytes, fuzz

ANSWERS = Path(__file__).parents[1] / "unit" / "launcher" / "slurm" / "answers"
FILES = sorted(ANSWERS.glob("*/*.txt"))


@fuzz(data=st.data())
def test_damaged_answers(data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        blob = data.draw(damaged_bytes(data.draw(st.sampled_from(FILES)).read_bytes()))
        text = blob.decode(errors="replace")
        return subprocess.CompletedProcess(command, data.draw(st.sampled_from([0, 0, 1])), text, "")

    monkeypatch.setattr(slurm, "run", answer)
    read_answers(answer("log").stdout)
    slurm.signal_step("5", None, signal.SIGQUIT)
    slurm.requeue("5")


def read_answers(log: str) -> None:
    """Ask Slurm all that we ask of it, and classify an attempt by its answers and a log."""
    for info in (slurm.job_states() or {}).values():
        assert len(state.slurm_state(info, started=True)) == 3
    config = slurm.show_config()
    doctor.examine_config(config)
    site = slurm.read_site()
    for partition in site.partitions.values() if site else ():
        doctor.examine_partition(partition, config, 100.0, MAKERS["nvidia"])
    assert all(isinstance(node, str) for node in slurm.show_nodes("n[1-2]"))
    slurm.node_address("n1")
    slurm.expand_nodes("n[1-2]")
    limit_seconds(log)
    assert len(array_indices(log)) <= MOST_TASKS
    evidence = Evidence(75, log, job=slurm.show_job("5"), signal_lead=120, now=1.0)
    assert classify(evidence) in causes.DESCRIPTIONS


@fuzz(text=st.text(max_size=40) | st.from_regex(r"[0-9:,%-]{0,30}"))
def test_small_readers(text: str) -> None:
    limit = limit_seconds(text)
    assert limit is None or limit >= 0
    assert count_devices(text, "gpu") >= 0
    assert len(array_indices(text)) <= MOST_TASKS
    parse_stamp(text)
    leading_number(text, 1)
    is_down(text)


@fuzz(names=st.lists(st.sampled_from(["SQUEUE_STATES", "SINFO_FORMAT", "HOME", "SLURM_CONF"])))
def test_a_users_own_filters_are_not_asked(names: list[str]) -> None:
    kept = query_environment(dict.fromkeys(names, "x"))
    assert not [name for name in kept if name.startswith(("SQUEUE_", "SINFO_"))]
    assert {"HOME", "SLURM_CONF"} & set(names) <= kept.keys()
    with tempfile.TemporaryDirectory():
        assert kept["SLURM_BITSTR_LEN"] == "0"
