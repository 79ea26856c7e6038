"""A run folder's files and the keys in them are frozen: scripts and older programs read them.

So are the answers of the commands that describe it as JSON. Write the golden file anew, on
purpose, with ``python -m tests.integration.test_frozen_run_folder``.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import launcher.cli
import minimind.cli
from launcher.spec.run_folder import RunFolder
from launcher.supervise import host
from minimind.system.toml import read_toml
from tests.corpus import write_corpus, write_tokenizer
from tests.e2e.lab import Lab, lab_environment, poll, words
from tests.shapes import as_text, shape, shapes_by_kind

GOLDEN = Path(__file__).parents[1] / "goldens" / "run_folder.txt"

FLAGS: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "compile": "off",
    "data_path": "corpus.jsonl",
    "eval_data_path": "eval.jsonl",
    "tokenizer_path": "tokenizer",
    "cache_dir": "cache",
    "num_workers": 0,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_seq_len": 64,
    "batch_size": 2,
    "accumulation_steps": 2,
    "max_steps": 4,
    "log_interval": 1,
    "save_interval": 4,
    "eval_interval": 8,
    "sample_interval": 8,
    "sample_prompts": "prompts.txt",
    "record_rows": True,
}
"""Four optimiser steps, with all that can be recorded but a tracker."""


def described(folder: Path) -> str:
    """The names and keys that a run in the empty ``folder`` leaves behind."""
    run = finished_run(folder)
    sections = {
        "files": sorted(run_files(run.root)),
        "files of the cache": sorted(cache_files(folder / "cache")),
        **records(run),
        **checkpoint(run),
        **answers(run),
    }
    return as_text(sections)


def finished_run(folder: Path) -> RunFolder:
    write_tokenizer(folder / "tokenizer")
    write_corpus(folder / "corpus.jsonl", 30)
    write_corpus(folder / "eval.jsonl", 5, seed=1)
    (folder / "prompts.txt").write_text("The\n")
    lab = Lab(folder, lab_environment() | {"XDG_CONFIG_HOME": str(folder / "config")})
    lab.ok("submit", "--name", "frozen", "--cluster", "local", "--wait", "--", *words(FLAGS))
    run = RunFolder(lab.runs / "frozen")
    # The marker that the run is over comes before the supervisor's own end.
    poll(lambda: host.supervisor_pid(run.events()) is None, "the supervisor to end")
    return run


def run_files(root: Path) -> Iterator[str]:
    """All files, without process numbers; of the snapshot of the code only what is on top."""
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if parts[0] == "code":
            if len(parts) == 2:
                yield "/".join(parts) + "/"
        elif path.is_file():
            yield re.sub(r"(?<=^submitit/)\d+(?=_)", "JOB", "/".join(parts))


def cache_files(cache: Path) -> set[str]:
    found = [str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()]
    return {re.sub(r"(?<=tokens-)[0-9a-f]+", "KEY", name) for name in found}


def records(run: RunFolder) -> dict[str, list[str]]:
    out = run.root / "out"
    environment = json.loads((out / "environment.json").read_text())
    # Only a torch that was built for GPUs has this.
    environment.pop("cuda", None)
    meta = next(run.root.parents[1].glob("cache/tokens-*/meta.json"))
    return {
        "spec.json": shape([json.loads(run.spec_file.read_text())]),
        "DONE": shape([json.loads(run.done_marker.read_text())]),
        **shapes_by_kind(json_lines(run.events_file), "events.jsonl"),
        **shapes_by_kind(json_lines(out / "metrics.jsonl"), "out/metrics.jsonl"),
        **shapes_by_kind(json_lines(out / "samples.jsonl"), "out/samples.jsonl"),
        **shapes_by_kind(json_lines(out / "rows.rank0.jsonl"), "out/rows.rank0.jsonl"),
        "out/environment.json": shape([environment]),
        "out/pretrain_16.saved.json": shape(
            [json.loads((out / "pretrain_16.saved.json").read_text())]
        ),
        "out/config.toml": shape([read_toml(out / "config.toml", "flags")]),
        "meta.json of a token store": shape([json.loads(meta.read_text())]),
    }


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def checkpoint(run: RunFolder) -> dict[str, list[str]]:
    """Keys of a checkpoint and of the weights, but for what torch and Transformers keep inside."""
    import torch

    state = torch.load(run.root / "checkpoints" / "pretrain_16.pt", weights_only=True)
    weights = torch.load(run.root / "out" / "pretrain_16.pth", weights_only=True)
    assert len(state["ranks"]) == 1
    return {
        "checkpoint": [f"{key}: {type(value).__name__}" for key, value in sorted(state.items())],
        "checkpoint: an entry of ranks": sorted(state["ranks"][0]),
        "checkpoint: rng of a rank": sorted(state["ranks"][0]["rng"]),
        "checkpoint: execution": shape([state["execution"]]),
        "checkpoint: config": shape([state["config"]]),
        "checkpoint: model": [_tensor(name, value) for name, value in state["model"].items()],
        "weights": [_tensor(name, value) for name, value in weights.items()],
    }


def _tensor(name: str, value: Any) -> str:
    return f"{name}: {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def answers(run: RunFolder) -> dict[str, list[str]]:
    runs_dir, root = str(run.root.parent), str(run.root)
    asked: dict[str, tuple[Callable[..., Any], list[str]]] = {
        "launcher status RUN --json": (launcher.cli.main, ["status", run.name]),
        "launcher status --json": (launcher.cli.main, ["status"]),
        "launcher list --json": (launcher.cli.main, ["list"]),
        "launcher why RUN --json": (launcher.cli.main, ["why", run.name]),
        "launcher logs RUN --json": (launcher.cli.main, ["logs", run.name]),
        "minimind report RUN --json": (minimind.cli.main, ["report", root]),
        "minimind inspect RUN --json": (minimind.cli.main, ["inspect", root]),
        "minimind inspect CHECKPOINT --json": (
            minimind.cli.main,
            ["inspect", f"{root}/checkpoints/pretrain_16.pt"],
        ),
        "minimind inspect WEIGHTS --json": (
            minimind.cli.main,
            ["inspect", f"{root}/out/pretrain_16.pth"],
        ),
    }
    found = {}
    for title, (main, argv) in asked.items():
        own = ["--runs-dir", runs_dir] if main is launcher.cli.main else []
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main([*argv, *own, "--json"]) == 0, title
        found[title] = shape([json.loads(said.getvalue())])
    return found


def test_names_and_keys_of_a_run_are_frozen(tmp_path: Path) -> None:
    assert described(tmp_path) == GOLDEN.read_text(encoding="utf-8")


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(described(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    write()
