"""Token stores built by real processes: at once, killed, signalled, within bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from minimind.data.tokenize import cache as stores_cache
from minimind.data.tokenize.build import open_corpus
from minimind.system.signals import IGNORED_BY_WORKERS
from tests.unit.data.helpers import TEXTS, write_jsonl

OPEN = """
import logging, sys
from minimind.data.tokenize import build, encoder
from minimind.data.tokenize.build import open_corpus

def peak_kib(pid):  # not ru_maxrss, which begins with what the starting process had
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def close(worker, real=encoder._Worker.close):
    if worker._process.poll() is None:
        workers.append(peak_kib(worker._process.pid))
    real(worker)

logging.basicConfig(level=logging.INFO)
build.MARK_SECONDS = 0.0
workers = []
encoder._Worker.close = close
store = open_corpus([sys.argv[1]], cache_dir=sys.argv[2], n_workers=int(sys.argv[3]))
print(store.content_hash, store.n_docs, peak_kib("self"), max(workers, default=0))
"""


def start(data: str, cache: Path, n_workers: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, data, str(cache), str(n_workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def write_words(path: Path, n_bytes: int, row_bytes: int = 2000) -> str:
    words = [word for text in TEXTS for word in text.split()]
    rng = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < n_bytes:
            text = " ".join(rng.choices(words, k=row_bytes // 12))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_words(tmp_path_factory.mktemp("data") / "large.jsonl", 5_000_000)


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(run.pid).children():
        with contextlib.suppress(psutil.Error):  # short-lived helpers of other libraries
            if "encoder import serve" in " ".join(child.cmdline()):
                found.append(child)
    return found


def leaves_signals_to_its_parent(worker: psutil.Process) -> bool:
    """Whether Python has started far enough; until then a signal ends it, as any new process."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored, 16) >> (IGNORED_BY_WORKERS[-1] - 1) & 1)


def half_built(cache: Path) -> bool:
    return any(path.stat().st_size > 0 for path in cache.glob("*.building/tokens.bin"))


def marked(cache: Path) -> bool:
    return any(cache.glob("*.building/mark.json"))


def test_two_processes_at_once_make_one_store(tmp_path: Path) -> None:
    data = write_words(tmp_path / "a.jsonl", 2_000_000)
    cache = tmp_path / "cache"
    runs = [start(data, cache) for _ in range(3)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert len({output.split()[0] for output, _ in outputs}) == 1
    (only,) = names(cache)
    assert only.startswith("tokens-")


def test_a_killed_builder_leaves_nothing_in_the_way(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    run = start(large, cache, n_workers=2)
    wait_until(lambda: half_built(cache))
    workers = workers_of(run)
    assert len(workers) == 2
    run.kill()
    run.communicate()
    # The workers end by themselves.
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    (left,) = names(cache)
    assert left.endswith(".building")

    # It may or may not have written its first mark before it was killed.
    monkeypatch.setattr(stores_cache, "KEPT_SECONDS", -1)
    monkeypatch.setattr(stores_cache, "ABANDONED_SECONDS", -1)
    small = write_jsonl(tmp_path / "b.jsonl", TEXTS)
    open_corpus([small], cache_dir=str(cache))  # of another store, and still it cleans up
    assert left not in names(cache)
    again = start(large, cache, n_workers=2)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert not [name for name in names(cache) if name.endswith(".building")]
    other = tmp_path / "other"
    assert open_corpus([large], cache_dir=str(other)).content_hash == output.split()[0]


def test_a_waiting_process_goes_on_where_a_killed_one_was(large: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = start(large, cache)
    wait_until(lambda: marked(cache))
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second has started
    second = start(large, cache)
    first.kill()
    first.communicate()
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert "going on with an interrupted build" in errors
    assert len(names(cache)) == 1
    whole = open_corpus([large], cache_dir=str(tmp_path / "other"))
    assert output.split()[0] == whole.content_hash


def test_signals_to_every_process_do_not_hurt_the_workers(large: str, tmp_path: Path) -> None:
    """What Slurm sends goes to all processes of a step; the parent decides what it means."""
    cache = tmp_path / "cache"
    run = start(large, cache, n_workers=2)
    wait_until(lambda: half_built(cache))
    workers = workers_of(run)
    # A chunk is done once one worker is up.
    wait_until(lambda: all(map(leaves_signals_to_its_parent, workers)))
    for _ in range(20):
        for worker in workers:
            for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                worker.send_signal(name)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert len(output.split()[0]) == 64


def test_a_killed_worker_is_an_error_in_one_line(large: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run = start(large, cache)
    wait_until(lambda: bool(workers_of(run)))
    workers_of(run)[0].kill()
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "a tokenising process ended with code -9; was it killed for its memory?" in errors
    assert names(cache) == []


def test_an_interrupted_build_ends_its_workers_and_keeps_what_is_done(
    large: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run = start(large, cache, n_workers=2)
    wait_until(lambda: marked(cache))
    workers = workers_of(run)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not psutil.wait_procs(workers, timeout=30)[1]
    (kept,) = names(cache)
    assert {file.name for file in (cache / kept).iterdir()} >= {"mark.json", "tokens.bin"}
    assert not (cache / kept / "owner.lock").exists()


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    small = write_words(tmp_path / "small.jsonl", 3_000_000)
    large = write_words(tmp_path / "large.jsonl", 24_000_000)
    peaks = []
    for data in (small, large):
        output, errors = start(data, tmp_path / f"of {Path(data).name}").communicate(timeout=200)
        assert output, errors
        peaks.append([int(kib) / 1024 for kib in output.split()[2:]])
    # The 21 MB between them are over 7 M tokens: 14 MB if they were held in memory.
    (small_parent, small_worker), (large_parent, large_worker) = peaks
    assert large_parent - small_parent < 8, peaks
    assert large_worker - small_worker < 8, peaks


def test_very_long_lines_take_bounded_memory(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    with open(data, "w", encoding="utf-8") as file:
        file.write(json.dumps({"text": "some words in one row, " * 900_000}) + "\n")
        file.write('{"text": "')
        for _ in range(400):
            file.write("x" * 1_000_000)
        file.write('"}\n{"text": "the last"}\n')
    output, errors = start(str(data), tmp_path / "cache").communicate(timeout=200)
    _, n_docs, parent, worker = output.split()
    assert n_docs == "2", errors
    assert "1 line longer than 50000000 bytes" in errors
    # The line of 400 MB is skipped; the row of 20 MB is encoded in segments, which would
    # otherwise take over a gigabyte.
    assert int(parent) / 1024 < 550
    assert int(worker) / 1024 < 600


def test_a_warm_store_needs_no_tokenizer(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    cache = tmp_path / "cache"
    open_corpus([data], cache_dir=str(cache))
    code = (
        "import sys; from minimind.data.tokenize.build import open_corpus\n"
        "open_corpus([sys.argv[1]], cache_dir=sys.argv[2])\n"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, data, str(cache)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_a_program_without_main_guard_works(tmp_path: Path) -> None:
    """Worker processes neither run it again nor import what lies in the current folder."""
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    script = tmp_path / "script.py"
    script.write_text(
        "from minimind.data.tokenize.build import open_corpus\n"
        f"print(open_corpus([{data!r}], cache_dir={str(tmp_path / 'cache')!r}).n_docs)\n"
    )
    folder = tmp_path / "current"
    folder.mkdir()
    for name in ("minimind", "numpy", "queue"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert run.stdout.strip() == str(len(TEXTS)), run.stderr
