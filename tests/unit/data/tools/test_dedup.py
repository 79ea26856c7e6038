from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from minimind.cli.data import main
from minimind.data.tools import lines
from minimind.data.tools.dedup import dedup
from minimind.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files with blank lines, bad rows, extra fields and repeats, also across them."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    first.write_text(
        '\ufeff{"text": "one", "id": 1}\n\nbroken\n{"text":"two"}\r\n{"id": 3, "text": "one"}\n\n\n'
    )
    second.write_bytes(
        gzip.compress(b'{"text": "three"}\n{"text": 5}\n{"text": "tw\\u006f"}\n{"text": "two "}')
    )
    return [str(first), str(second)]


def test_the_first_row_of_a_text_stays_as_it_was_written(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out" / "unique.jsonl"
    found = dedup(files, out)
    assert out.read_bytes() == (
        b'{"text": "one", "id": 1}\n{"text":"two"}\r\n{"text": "three"}\n{"text": "two "}\n'
    )
    assert (found["rows"], found["kept"], found["duplicates"]) == (6, 4, 2)
    listed = list(map(json.loads, Path(found["rejected"]["list"]).read_text().splitlines()))
    assert [(entry["file"], entry["line"]) for entry in listed] == [(files[0], 3), (files[1], 2)]
    assert found["rejected"]["count"] == 2
    assert found["rejected"]["first"].startswith(f"{files[0]}:3: invalid JSON")
    # What is unique stays whole, and then no list of bad rows is left.
    again = tmp_path / "again.jsonl"
    assert dedup([str(out)], again)["duplicates"] == 0
    assert again.read_bytes() == out.read_bytes()
    assert not lines.rejected_file(again).exists()


def test_the_command(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "u.jsonl"
    words = ["dedup", *files, "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 4 of 6 rows; 2 (33.3%) had a text that was there before\n"
    assert "2 rows are unusable and left out (1 invalid JSON, 1 field 'text' is a num" in said.err
    assert f"the first is {files[0]}:3: invalid JSON" in said.err
    with pytest.raises(ConfigError, match="exists; add --overwrite"):
        main(words)
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bad_rows": 1}, r"2 unusable rows, more than --max_bad_rows 1; the first is .*:3:"),
        (
            {"text_field": "body"},
            r"the first rows have no field 'body'; there are 'text', 'id'; --text_f",
        ),
    ],
)
def test_data_that_is_refused_leaves_nothing(
    files: list[str], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    out = tmp_path / "u.jsonl"
    with pytest.raises(DataError, match=message):
        dedup(files, out, **settings)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_changes_meanwhile(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path) -> Any:
        Path(files[0]).write_text('{"text": "other"}\n')
        return original(path)

    original = lines.read_chunks
    monkeypatch.setattr(lines, "read_chunks", changing)
    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was being read"):
        dedup(files, tmp_path / "u.jsonl")
    assert not (tmp_path / "u.jsonl").exists()
