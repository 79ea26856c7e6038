"""Loader workers against signals, a killed parent and a parent that just ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from minimind.data.tokenize.build import open_corpus
from tests.unit.data.helpers import TEXTS, write_jsonl

PROGRAM = """
import os, signal, sys
from minimind.data.tokenize.build import open_corpus
from minimind.data.dataloader import make_loader
from minimind.data.packing import plan_rows
from minimind.data.sampler import SkipBatchSampler

# As a trainer does: its handlers only set flags.
for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
    signal.signal(name, lambda *_: None)
plan = plan_rows(open_corpus([sys.argv[1]], cache_dir=sys.argv[2]), 32)
sampler = SkipBatchSampler(plan.n_rows, batch_size=4, rank=0, world_size=1, seed=0, epoch=0)
batches = iter(make_loader(plan, sampler, num_workers=1, pin_memory=False))
rows = next(batches)["row_ids"].tolist()
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[3] == "read on":
    for batch in batches:
        rows += batch["row_ids"].tolist()
    print(sorted(rows) == list(range(plan.n_rows)), flush=True)
# else: ends with the iterator alive
"""


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS * 50)
    cache = str(tmp_path / "cache")
    open_corpus([data], cache_dir=cache)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, data, cache, request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("run", ["read on"], indirect=True)
def test_signals_to_every_process_do_not_hurt_the_workers(run: subprocess.Popen[str]) -> None:
    (worker,) = psutil.Process(run.pid).children()
    for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT) * 10:
        worker.send_signal(name)
        run.send_signal(name)
    output, _ = run.communicate("go on\n", timeout=60)
    assert output == "True\n"
    assert run.returncode == 0
    assert not psutil.wait_procs([worker], timeout=10)[1]


@pytest.mark.parametrize("run", ["read on"], indirect=True)
def test_workers_end_with_a_killed_parent(run: subprocess.Popen[str]) -> None:
    workers = psutil.Process(run.pid).children()
    run.kill()
    run.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.parametrize("run", ["end"], indirect=True)
def test_a_parent_that_ends_in_mid_epoch_does_not_hang(run: subprocess.Popen[str]) -> None:
    workers = psutil.Process(run.pid).children()
    run.communicate("end\n", timeout=60)
    assert run.returncode == 0
    assert not psutil.wait_procs(workers, timeout=10)[1]
