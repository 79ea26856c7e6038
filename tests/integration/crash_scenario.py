"""What is recorded for ``test_crash_consistency``: each durable file written as a run writes it.

Run as ``python -m tests.integration.crash_scenario ROOT RECORD`` under the recording library.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.spec.run_folder import Final, RunFolder
from minimind.checkpoint.store import Checkpointer
from minimind.data.packing import plan_rows
from minimind.data.tokenize.build import open_corpus
from minimind.system.durable import sync_file, sync_folder
from minimind.system.jsonl import JsonLog
from minimind.training.audit import trim_row_records
from tests.checkpoints import train_state
from tests.corpus import write_corpus, write_tokenizer
from tests.shim.crash import set_mark

CHECKPOINTS = {"keep-3": 3, "keep-1": 1, "no-links": 2, "restarted": 2}
SAVES = 4
RECORDS = 5


def checkpointer(folder: Path, keep: int) -> Checkpointer:
    return Checkpointer(folder / "run_8.pt", folder / "run_8.pth", keep=keep)


def marker(record: Path, step: int) -> Callable[[float], None]:
    return lambda seconds: set_mark(record, f"durable {step}")


def save_checkpoints(folder: Path, keep: int, record: Path, *, restart: bool) -> None:
    saver = checkpointer(folder, keep)
    for step in range(1, SAVES + 1):
        if restart:
            saver = checkpointer(folder, keep)
            saver.find_newest()
            saver.remove_leftovers()
        set_mark(record, f"begun {step}")
        saver.save(train_state(step), marker(record, step))
        saver.wait()


def save_after_damage(folder: Path, record: Path) -> None:
    """The newest checkpoint is damaged; a restart goes on from the one before it, and saves."""
    saver = checkpointer(folder, 2)
    for step in (1, 2):
        saver.save(train_state(step), lambda seconds: None)
        saver.wait()
    with saver.checkpoint_file.open("r+b") as file:
        file.write(bytes(100))
    sync_file(saver.checkpoint_file)
    set_mark(record, "damaged")
    saver = checkpointer(folder, 2)
    saver.find_newest()
    for step in (3, 4):
        saver.save(train_state(step), marker(record, step))
        saver.wait()


def write_metrics(folder: Path, record: Path) -> None:
    log = JsonLog(folder / "metrics.jsonl")
    for step in range(1, RECORDS + 1):
        log.write({"global_step": step, "step": step, "epoch": 0, "loss": 1 / step})
        set_mark(record, f"durable {step}")


def write_row_record(folder: Path, record: Path) -> None:
    path = folder / "rows.rank0.jsonl"
    path.write_text("".join(f'{{"global_step": {step}}}\n' for step in range(4)))
    sync_file(path)
    sync_folder(folder)
    set_mark(record, "written")
    trim_row_records(folder, 2)
    set_mark(record, "trimmed")


def write_run_folder(folder: Path, record: Path) -> None:
    run = RunFolder(folder)
    for number in (1, 2):
        assert run.new_attempt() == number
        set_mark(record, f"attempt {number}")
        run.append("attempt_started", attempt=number)
        set_mark(record, f"event {number}")
    run.finish(Final("crash", 1, "first"))
    set_mark(record, "stopped")
    run.reopen()
    run.finish(Final("done", 0, "finished"))
    set_mark(record, "done")


def main(root: Path, record: Path) -> None:
    link = os.link

    def no_links(*paths: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    for name, keep in CHECKPOINTS.items():
        (root / name).mkdir()
        os.link = no_links if name == "no-links" else link  # type: ignore[assignment]
        save_checkpoints(root / name, keep, record, restart=name == "restarted")
    os.link = link
    for name, write in (
        ("damaged", save_after_damage),
        ("metrics", write_metrics),
        ("rows", write_row_record),
        ("run", write_run_folder),
    ):
        (root / name).mkdir()
        write(root / name, record)
    tokenizer = write_tokenizer(root.parent / "tokenizer")
    corpus = write_corpus(root.parent / "corpus.jsonl", count=6)
    (root / "cache").mkdir()
    store = open_corpus([str(corpus)], str(tokenizer), cache_dir=str(root / "cache"))
    set_mark(record, store.content_hash)
    plan_rows(store, 64, "bestfit")
    set_mark(record, "planned")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
