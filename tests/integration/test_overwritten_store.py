"""A run whose token store was overwritten in place, as long as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minimind.data.sealed import BLOCK_BYTES
from tests.corpus import write_corpus
from tests.runs import Run, differences


def test_a_run_does_not_train_on_what_was_overwritten(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    corpus, cache = write_corpus(tmp_path / "text.jsonl", count=1200), tmp_path / "cache"
    flags = {"data_path": corpus, "cache_dir": cache, "batch_size": 32, "max_seq_len": 128}
    run = make_run("run", max_steps=4, **flags).complete()
    whole = run.state()

    (tokens,) = cache.glob("tokens-*/tokens.bin")
    with open(tokens, "r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(b"\x05" * (tokens.stat().st_size - BLOCK_BYTES))
    assert run.finish(run.start(max_steps=8)) == [2]
    (error,) = (line for line in run.output.splitlines() if "error:" in line)
    assert f"{tokens}: block 1 (bytes 65536 to " in error
    assert f"remove {tokens.parent}, and it is made anew at the next start" in error
    assert differences(run.state()["model"], whole["model"]) == []

    # What the message says is enough.
    tokens.unlink()
    run.complete(max_steps=8)
    assert run.state()["global_step"] == 8
