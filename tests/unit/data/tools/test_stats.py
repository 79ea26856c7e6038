from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from minimind.cli.data import main
from minimind.cli.data.stats import _marks
from minimind.data.packing import plan_rows
from minimind.data.tokenize.build import open_corpus
from minimind.data.tools.stats import stats
from minimind.errors import ConfigError, DataError
from tests.unit.data.helpers import TEXTS, make_tokenizer, write_jsonl


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = write_jsonl(tmp_path / "corpus.jsonl", [*TEXTS, TEXTS[0], TEXTS[4], TEXTS[0], "x " * 90])
    with open(path, "a") as file:
        file.write("broken\n")
    return path


@pytest.fixture
def settings(tokenizer_path: str, tmp_path: Path) -> dict[str, Any]:
    return {"tokenizer_path": tokenizer_path, "cache_dir": str(tmp_path / "cache")}


def test_the_numbers_are_those_of_the_store_and_its_rows(
    corpus: str, settings: dict[str, Any]
) -> None:
    found = stats([corpus], max_seq_lens=[16, 64], **settings)
    store = open_corpus([corpus], **settings)
    lengths = [int(n) for n in store.offsets[1:] - store.offsets[:-1]]
    assert found["documents"] == len(lengths) == len(TEXTS) + 4
    assert found["tokens"] == sum(lengths)
    assert found["bytes"] == sum(len(t.encode()) for t in [*TEXTS, TEXTS[0] * 2, TEXTS[4]]) + 180
    assert found["duplicates"]["documents"] == 3
    assert found["rejected"]["count"] == 1
    assert found["rejected"]["first"].startswith(f"{corpus}:{len(TEXTS) + 5}: invalid JSON")

    assert (found["lengths"]["min"], found["lengths"]["max"]) == (min(lengths), max(lengths))
    for bin in found["lengths"]["histogram"]:
        inside = [n for n in lengths if bin["from"] <= n <= bin["to"]]
        assert (bin["documents"], bin["tokens"]) == (len(inside), sum(inside))
    assert sum(bin["documents"] for bin in found["lengths"]["histogram"]) == len(lengths)

    for row in found["rows"]:
        packed, padded = (plan_rows(store, row["max_seq_len"], p) for p in ("bestfit", "none"))  # type: ignore[arg-type]
        assert row["packed"] == {"rows": packed.n_rows, "fill": packed.fill}
        assert row["padded"]["rows"] == padded.n_rows
        assert row["padded"]["fill"] == pytest.approx(padded.fill)
        too_long = [n for n in lengths if n > row["max_seq_len"]]
        lost = sum(n - row["max_seq_len"] for n in too_long)
        assert row["padded"]["truncated_documents"] == len(too_long) / len(lengths)
        assert row["padded"]["truncated_tokens"] == pytest.approx(lost / sum(lengths))

    assert sum(found["scripts"].values()) == pytest.approx(1)
    assert found["scripts"]["Han"] == pytest.approx(3 / len(lengths))


def test_the_command(
    corpus: str, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stats", corpus, "--max-seq-len", "64"]
    for name, value in settings.items():
        words += [f"--{name}", value]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "10 documents in 1 file(s)" in said
    assert "repeated texts: 3 (30.00% of the documents)" in said
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 10
    with pytest.raises(DataError, match="1 unusable rows, more than --max_bad_rows 0"):
        main([*words, "--max_bad_rows", "0"])
    with pytest.raises(ConfigError, match="--max_seq_len must be from 8 to"):
        main(["stats", corpus, "--max_seq_len", "4"])
    with pytest.raises(ConfigError, match="unrecognized arguments: --epochs 3"):
        main([*words, "--epochs", "3"])


def test_a_tokenizer_that_names_no_begin_and_end(tmp_path: Path) -> None:
    """``tokenizer.json`` alone: nothing is around a document until flags say what is."""
    whole = make_tokenizer(tmp_path / "whole")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(f"{whole}/tokenizer.json", bare)
    corpus = write_jsonl(tmp_path / "c.jsonl", TEXTS)
    settings: Any = {"cache_dir": str(tmp_path / "cache"), "max_seq_lens": [16]}
    marked = stats([corpus], tokenizer_path=whole, **settings)
    without = stats([corpus], tokenizer_path=str(bare), **settings)
    named = stats([corpus], tokenizer_path=str(bare), bos_token="<s>", eos_token="</s>", **settings)
    assert marked["special_tokens"] == named["special_tokens"] == {"begin": 1, "end": 2}
    assert without["special_tokens"] == {"begin": None, "end": None}
    assert marked["tokens"] == named["tokens"] == without["tokens"] + 2 * len(TEXTS)
    assert _marks(without["special_tokens"]).startswith(
        "each document has: no begin token, no end token (--bos_token"
    )
