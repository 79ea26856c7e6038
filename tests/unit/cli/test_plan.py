from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from minimind.cli import plan as module
from minimind.cli.plan import main
from minimind.planning.run_plan import Machine
from minimind.telemetry.console import PACKAGE_LOGGER
from minimind.training import trial


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "text.jsonl").write_text('{"text": "' + "word " * 1000 + '"}\n')
    return str(tmp_path / "text.jsonl")


def test_for_a_card_nothing_is_measured(
    corpus: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_measured", None)
    flags = ["--on", "4090", "--procs", "8", "--data-path", corpus, "--use_moe", "1"]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert "of them active for a token" in shown
    assert "on 8 ranks" in shown
    assert "30% of the RTX 4090's data sheet" in shown


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
@pytest.mark.parametrize(
    ("card", "size", "shown"),
    [
        ("3090", (512, 8), "512×8 | *110,000*"),
        ("3090", (768, 16), "768×16 | *28,000*"),
        ("4090", (768, 16), "768×16 | *64,000*"),
    ],
)
def test_the_readmes_estimates_are_those_of_the_plan(
    page: str,
    card: str,
    size: tuple[int, int],
    shown: str,
    corpus: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown in (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    model = ["--hidden_size", str(size[0]), "--num_hidden_layers", str(size[1])]
    row = ["--batch_size", "1", "--accumulation_steps", "1"]  # the corpus has few
    assert main(["--on", card, *model, *row, "--data_path", corpus, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    said = int(shown.split("*")[1].replace(",", ""))
    assert plan["tokens_per_update"] / plan["seconds_per_update"] == pytest.approx(said, rel=0.03)


def test_a_model_that_cannot_fit_ends_with_2(
    corpus: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--on", "3090", "--data_path", corpus, "--json"]
    assert main([*flags, "--hidden_size", "4096", "--num_hidden_layers", "32"]) == 2
    assert json.loads(capsys.readouterr().out)["fits"] is False


def test_a_login_node_without_torch_says_what_it_can(
    corpus: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "this_host", lambda ranks: Machine("cpu", "host", 10**11))
    assert main(["--data_path", corpus]) == 0
    shown = capsys.readouterr()
    assert "torch is not installed here: nothing is measured" in shown.err
    assert "about 4 sequences of 512 tokens" in shown.out


def test_a_device_that_others_have_filled_leaves_the_arithmetic(
    corpus: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trial, "_prepare", fail)
    monkeypatch.setattr(logging.getLogger(PACKAGE_LOGGER), "handlers", [])
    assert main(["--data_path", corpus, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "nothing is measured: out of memory (CUDA out of memory." in shown.err
    assert "unknown: `minimind plan` measures it" in shown.out
