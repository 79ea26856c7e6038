"""What a hub's list may name, and what of it is text."""

from __future__ import annotations

import io
from typing import Any

import pytest

from minimind.data import hub, recipes
from minimind.data.download import dataset_url
from minimind.data.hub import HubFile, file_url, files_of
from minimind.data.recipes import Recipe, text_files
from minimind.errors import ConfigError, MiniMindError

OID = "0" * 40
WORDS = Recipe("words", "lab/words", "", "", "", "", "")


def answer(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    """A hub that lists files of these paths."""
    entries: list[dict[str, Any]] = [
        {"type": "file", "path": path, "oid": OID, "size": 1} for path in paths
    ]
    monkeypatch.setattr(hub, "_page", lambda url: (entries, None))


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("", "/root/.bashrc"),
        ("4_5", "/root/.bashrc"),
        ("4_5", "4_5_more/000.parquet"),
        ("4_5", "4_5"),
        ("4_5", "4_5/../000.parquet"),
    ],
)
def test_a_list_names_files_below_the_folder_alone(
    monkeypatch: pytest.MonkeyPatch, folder: str, path: str
) -> None:
    answer(monkeypatch, path)
    with pytest.raises(MiniMindError, match="is not a hub's list of files"):
        files_of("lab/words", folder)


@pytest.mark.parametrize("content", [b"<html>", b"[" * 100_000])
def test_an_answer_that_is_no_list(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(hub, "opened", lambda url: io.BytesIO(content))
    with pytest.raises(MiniMindError, match="is not a hub's list of files"):
        files_of("lab/words", "")


def test_files_of_the_whole_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "en/001.parquet", "en/000.parquet")
    assert files_of("lab/words", "") == [
        HubFile("en/000.parquet", 1, OID),
        HubFile("en/001.parquet", 1, OID),
    ]


def test_what_describes_a_data_set_is_no_text_in_a_folder_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        HubFile(path, 1, OID)
        for path in ("en/000.parquet", "en/README.txt", "en/dataset_infos.json")
    ]
    monkeypatch.setattr(recipes, "files_of", lambda dataset, folder: found)
    assert text_files(WORDS) == found[:1]


def test_a_mirror_without_http_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT=hf-mirror\.com: .*https://"):
        file_url("lab/words", "000.parquet")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "mirror")
    with pytest.raises(ConfigError, match=r"MODELSCOPE_ENDPOINT=mirror: .*https://"):
        dataset_url("words.jsonl", "modelscope")
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    assert file_url("lab/words", "a b").startswith("https://hf-mirror.com/datasets/lab/words/")
