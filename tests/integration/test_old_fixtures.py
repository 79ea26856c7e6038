"""Checkpoints, weights, token stores and run folders of version 0.1.0: today's code goes on.

``tests/fixtures/make_v1.py`` says what they are; ``tests/unit/launcher/test_old_runs.py`` has what
needs no training. Losses are compared closely, not bit for bit: they come from another machine.
After a change of the records' keys on purpose: ``python -m tests.integration.test_old_fixtures``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import minimind.cli
from launcher.rank.environment import attempt_environment
from launcher.rank.task import run_rank
from launcher.spec.run_folder import RunFolder
from minimind.data.packing import plan_rows
from minimind.data.token_store import TokenStore
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from minimind.distributed.local_ranks import place_variables
from minimind.rundir.metrics import read_metrics
from minimind.system.process import free_port
from tests.corpus import documents
from tests.fixtures.v1 import unpack
from tests.runs import FORKSERVER, Run
from tests.shapes import as_text, shapes_by_kind

GOLDEN = Path(__file__).parents[1] / "goldens" / "resumed_run.txt"

CLOSELY = 1e-5


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All fixtures; the tests that change one have it for themselves."""
    return unpack(tmp_path_factory.mktemp("v1"), "plain", "tokens", "finished")


def expected_of(lab: Path) -> dict[str, Any]:
    return dict(json.loads((lab / "plain" / "expected.json").read_text()))


def assert_expected_losses(lab: Path, found: list[tuple[int, int, float]]) -> None:
    expected = {(epoch, step): loss for epoch, step, loss in expected_of(lab)["losses"]}
    assert {(epoch, step): loss for epoch, step, loss in found} == pytest.approx(
        expected, rel=CLOSELY
    )


def test_an_old_checkpoint_is_resumed_to_the_end(tmp_path: Path) -> None:
    lab = unpack(tmp_path, "plain")
    expected = expected_of(lab)
    config = lab / "plain" / "out" / "config.toml"
    run = Run(lab / "plain", {"config": config, "from_resume": "1"}).complete()
    assert_expected_losses(lab, [(*place, loss) for place, (loss, _) in run.losses().items()])
    assert run.trained_rows() == [tuple(row) for row in expected["trained_rows"]]
    state = run.state()
    assert state["global_step"] == expected["global_step"]
    assert list(state["model"]) == list(expected["weights"])
    for name, value in state["model"].items():
        about = [float(value.double().mean()), float(value.double().norm())]
        assert about == pytest.approx(expected["weights"][name], rel=1e-4, abs=1e-6), name


def test_old_weights_and_checkpoints_are_inspected_exported_and_write_text(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(lab / "runs" / "finished")
    paths = [
        lab / "plain" / "checkpoints" / "pretrain_8.pt",
        lab / "plain" / "checkpoints" / "pretrain_8.step0000000010.pt",
        lab / "plain" / "out" / "pretrain_8.pth",
        lab / "plain" / "out",
        lab / "tokens",
        lab / "tokenizer",
        run.root,
    ]
    assert minimind.cli.main(["inspect", "--json", *map(str, paths)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in found] == [
        "checkpoint",
        "checkpoint",
        "weights",
        "output folder of a run",
        "token store",
        "tokenizer",
        "run folder",
    ]
    assert found[0]["facts"]["global_step"] == 11
    assert found[-1]["facts"]["ended"] == "done: finished"
    assert "checkpoints/pretrain_8.pt" in found[-1]["checked"]

    tokenizer = ["--tokenizer_path", str(lab / "tokenizer")]
    for weight, form, name in ((paths[2], "hf", "hf"), (paths[0], "pth", "other.pth")):
        out = ["--format", form, "--out", str(tmp_path / name)]
        assert minimind.cli.main(["export", "--weight", str(weight), *tokenizer, *out]) == 0
    capsys.readouterr()
    written = []
    for weight in (*paths[:3], tmp_path / "other.pth", tmp_path / "hf"):
        words = ["generate", "--weight", str(weight), "--prompt", "The", "--max_new_tokens", "4"]
        assert minimind.cli.main([*words, *tokenizer, "--device", "cpu", "--json"]) == 0
        written.append(json.loads(capsys.readouterr().out))
    assert {line["prompt"] for line in written} == {"The"}
    assert written[2] == written[4], "the same weights"


def test_an_old_run_folder_is_reported(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(lab / "runs" / "finished")
    page = tmp_path / "report.html"
    folders = [str(run.root), str(lab / "plain" / "out")]
    assert minimind.cli.main(["report", *folders, "--out", str(page), "--json"]) == 0
    finished, plain = json.loads(capsys.readouterr().out)["runs"]
    assert (finished["state"], finished["step"], finished["total_steps"]) == ("done", 33, 33)
    assert finished["attempts"][0]["cause"] == "done"
    assert finished["samples"] > 0
    assert plain["step"] == 11
    assert "finished" in page.read_text(encoding="utf-8")
    points = read_metrics(run.root / "out" / "metrics.jsonl")
    losses = [(p["epoch"], p["step"], p["loss"]) for p in points if "loss" in p]
    assert_expected_losses(lab, losses)


def files_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Whatever is written anew has another number, or another time."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def test_an_old_token_store_and_its_plan_are_used_as_they_are(lab: Path) -> None:
    folder = lab / "tokens"
    before = files_of(folder)
    store = TokenStore.open(folder)
    plan = plan_rows(store, 64)
    assert files_of(folder) == before
    assert plan.n_rows == 131
    texts = documents(30)
    assert store.n_docs == len(texts)
    tokenizer = load_tokenizer(str(lab / "tokenizer"))
    ids = store.tokens[int(store.offsets[3]) : int(store.offsets[4])]
    assert tokenizer.decode(ids, skip_special_tokens=True) == texts[3]
    assert plan.build([0, 1], 2)["input_ids"].shape == (2, 64)


def test_an_old_token_store_is_found_under_its_old_name(tmp_path: Path) -> None:
    """Its name says what it was made of: with another rule all corpora are tokenised again."""
    lab = unpack(tmp_path, "plain", "tokens")
    source, fingerprint = lab / "corpus.jsonl", expected_of(lab)["tokenizer_fingerprint"]
    assert tokenizer_fingerprint(str(lab / "tokenizer")) == fingerprint
    files = [[str(source), source.stat().st_size, source.stat().st_mtime_ns]]
    key = hashlib.sha256(json.dumps([1, files, "text", fingerprint]).encode()).hexdigest()[:32]
    folder = lab / "cache" / f"tokens-{key}"
    folder.parent.mkdir()
    (lab / "tokens").rename(folder)
    before = files_of(folder)
    store = open_corpus([str(source)], str(lab / "tokenizer"), cache_dir=str(folder.parent))
    assert store.path == folder
    assert files_of(folder.parent).keys() == {folder.name, *(f"{folder.name}/{n}" for n in before)}
    assert files_of(folder) == before
    # A checkpoint of then knows the rows by these: today's format must not change them.
    again = open_corpus([str(source)], str(lab / "tokenizer"), cache_dir=str(tmp_path / "new"))
    assert again.content_hash == store.content_hash
    assert plan_rows(again, 64).fingerprint == plan_rows(store, 64).fingerprint
    assert (again.path / "SHA256SUMS").exists()


def old_rank(argv: list[str], environ: dict[str, str], output: str) -> None:
    """The body of a rank's process, as a supervisor of the launcher's starts it."""
    os.environ.update(environ)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(run_rank(RunFolder(argv[-1])))


def resumed_run(folder: Path) -> RunFolder:
    """The run whose supervisor was killed, gone on to its end as its spec says."""
    run = RunFolder(unpack(folder, "killed") / "runs" / "killed")
    number = run.new_attempt()
    environ = attempt_environment(run, run.spec(), number) | place_variables(0, 1, free_port())
    process = FORKSERVER.Process(
        target=old_rank, args=([str(run.root)], environ, str(run.rank_log(number, 0)))
    )
    process.start()
    process.join()
    assert process.exitcode == 0, run.rank_log(number, 0).read_text()
    return run


def records_of(run: RunFolder) -> str:
    """The keys of what the resumed run has recorded, by the old code and by today's."""
    metrics = read_metrics(run.root / "out" / "metrics.jsonl")
    return as_text(
        {
            **shapes_by_kind(run.events(), "events.jsonl"),
            **shapes_by_kind(metrics, "out/metrics.jsonl"),
        }
    )


def test_an_old_run_whose_supervisor_was_killed_goes_on_to_its_end(
    lab: Path, tmp_path: Path
) -> None:
    run = resumed_run(tmp_path)
    assert [event["event"] for event in run.events()].count("resumed") == 1
    assert run.events()[-1]["event"] == "finished"
    points = read_metrics(run.root / "out" / "metrics.jsonl")
    losses = [(p["epoch"], p["step"], p["loss"]) for p in points if "loss" in p]
    assert_expected_losses(lab, losses)
    assert records_of(run) == GOLDEN.read_text(encoding="utf-8")


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(records_of(resumed_run(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    write()
