from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import numpy as np
import pytest

from minimind.cli.data import main
from minimind.config import TrainConfig
from minimind.data.sampler import epoch_order
from minimind.data.tools.preview import describe_row, first_rows, plan_of
from minimind.errors import ConfigError
from tests.unit.data.helpers import TEXTS, write_jsonl


@pytest.fixture
def words(tmp_path: Path, tokenizer_path: str) -> list[str]:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [*TEXTS, "\x1b[31mred", "long " * 60])
    flags = {"data_path": corpus, "tokenizer_path": tokenizer_path, "max_seq_len": 48}
    flags["cache_dir"] = str(tmp_path / "cache")
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def config(words: list[str]) -> TrainConfig:
    return TrainConfig(**{k[2:]: v for k, v in zip(words[::2], words[1::2], strict=True)})


@pytest.mark.parametrize("pack", ["bestfit", "none"])
def test_all_rows_together_are_the_corpus(config: TrainConfig, pack: str) -> None:
    config = TrainConfig(**{**config.to_dict(), "pack": pack})
    plan = plan_of(config)
    texts: dict[int, dict[int, list[int]]] = {}
    for row in range(plan.n_rows):
        shown = describe_row(plan, row, config.tokenizer_path)
        batch = plan.build(np.array([row]), 1)
        ids = [i for document in shown["documents"] for i in document["ids"]]
        assert ids == batch["input_ids"][0, : shown["tokens"]].tolist()
        assert shown["tokens"] + shown["padding"] == 48
        for document in shown["documents"]:
            assert len(document["ids"]) == document["tokens"]
            pieces = texts.setdefault(document["document"], {})
            pieces[document["from_token"]] = document["ids"]
            assert document["cut_before"] == (document["from_token"] > 0)
    from minimind.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.tokenizer_path)
    expected = [*TEXTS, "\x1b[31mred", "long " * 60]
    for number, text in enumerate(expected):
        ids = []
        for start, piece in sorted(texts[number].items()):
            ids[start:] = piece  # pieces overlap by one token
        whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if pack == "bestfit" or len(ids) < 48:
            assert whole == f"<s>{text}</s>"


def test_the_first_rows_are_those_that_training_reads(config: TrainConfig) -> None:
    plan = plan_of(config)
    assert first_rows(plan, 42, 1, 3) == epoch_order(plan.n_rows, 42, 1)[:3].tolist()


def test_the_command_without_a_terminal_has_no_colour(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", *words, "--row", "0", "1"]) == 0
    said = capsys.readouterr().out
    assert "═══ row 0: " in said
    assert "═══ row 1: " in said
    assert "\x1b" not in said
    assert main(["preview", *words, "--count", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3
    assert main(["preview", *words, "--json", "--row", str(rows[1]["row"])]) == 0
    assert json.loads(capsys.readouterr().out) == [rows[1]]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_borders_are_in_colour_on_a_terminal(
    words: list[str], no_color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    if not no_color:
        monkeypatch.delenv("NO_COLOR")
    read, write = pty.openpty()
    with open(write, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["preview", *words, "--row", "0"]) == 0
    said = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and all is read
        while part := os.read(read, 4096):
            said += part
    os.close(read)
    assert "─── document".encode() in said
    assert (b"\x1b[36m" in said) == (not no_color)


def test_text_cannot_act_on_the_terminal(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", *words, "--count", "99"]) == 0
    assert "\\x1b[31mred" in capsys.readouterr().out


def test_a_row_of_a_mix_names_its_source(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", ["something else"] * 9)
    words[1] = f"{words[1]}:1"
    words.insert(2, f"{other}:1")
    assert main(["mix", *words, "--json"]) == 0
    mix = json.loads(capsys.readouterr().out)
    rows = [source["rows"] for source in mix["sources"]]
    assert sum(source["rows_per_epoch"] for source in mix["sources"]) == sum(rows)
    assert main(["preview", *words, "--row", str(rows[0]), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["source"] == other
    assert shown["documents"][0]["document"] == 0
    assert main(["mix", *words]) == 0
    assert f"an epoch: {sum(rows)} rows of 48 tokens" in capsys.readouterr().out


def test_what_cannot_be_shown(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--row 999: there are rows 0 to \d+"):
        main(["preview", *words, "--row", "999"])
    with pytest.raises(ConfigError, match="--count must be 1 or more"):
        main(["preview", *words, "--count", "0"])
    with pytest.raises(ConfigError, match="--data_path has no weights; write FILE:WEIGHT"):
        main(["mix", *words])
    with pytest.raises(ConfigError, match="unrecognized arguments: --rwo 3"):
        main(["preview", *words, "--rwo", "3"])
