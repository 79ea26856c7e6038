"""Folders, and data sets by their name on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from minimind.data.inputs import find_files
from minimind.data.rows import read_texts
from minimind.errors import DataError
from minimind.rundir.data_path import parse_sources
from tests.unit.data.helpers import TEXTS, write_jsonl


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, TEXTS)
    return folder


def names(*given: str) -> list[str]:
    return [path.name for path in find_files(list(given))]


def test_a_folder_is_its_files_of_text(tmp_path: Path) -> None:
    folder = make(tmp_path, "b.jsonl", "a.jsonl.gz", "deep/c.JSONL", ".hidden/d.jsonl", "README.md")
    make(folder, "dataset_info.json", "LICENSE.txt")
    assert names(str(folder)) == ["a.jsonl.gz", "b.jsonl", "c.JSONL"]
    (folder / "deep" / "loop").symlink_to(folder)
    assert names(str(folder)) == ["a.jsonl.gz", "b.jsonl", "c.JSONL"]


def test_a_folder_of_text_files_is_a_document_each(tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}-train-or-test.txt").write_text(text)
    found = [text for file in find_files([str(tmp_path)]) for text in read_texts(file)]
    assert found == TEXTS


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), r"is a folder with no files of text; name the files in it, e.g. '.*/\*\.jsonl'"),
        (("a.jsonl", "b.parquet"), r"is a folder with 1 jsonl and 1 parquet files of text; name"),
        (("train-1.jsonl", "test-1.jsonl"), r"holds (train|test) and (train|test); name the"),
        (("train/a.jsonl", "validation/a.jsonl"), r"holds train and validation; name the files"),
    ],
)
def test_a_folder_that_is_not_clear(tmp_path: Path, made: tuple[str, ...], message: str) -> None:
    make(tmp_path, *made)
    with pytest.raises(DataError, match=message):
        find_files([str(tmp_path)])


def test_parts_that_are_missing_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl")
    assert len(names(str(tmp_path))) == 2
    assert "2 of 3 parts are there" in caplog.text


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache as ``huggingface_hub`` lays it out, with blobs behind links."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hf/hub/datasets--owner--stories"
    snapshot = folder / "snapshots" / "abc123"
    blob = make(folder, "blobs/0123") / "blobs/0123"
    for file in ("data/train-0.jsonl", "extra/more.jsonl"):
        (snapshot / file).parent.mkdir(parents=True)
        (snapshot / file).symlink_to(blob)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc123")
    (folder / "snapshots/older").mkdir()
    return folder


def test_data_sets_of_the_hub_by_name(hub: Path) -> None:
    assert names("owner/stories/data") == ["train-0.jsonl"]
    assert names("owner/stories/data/train-*") == ["train-0.jsonl"]
    assert names("owner/stories/extra/more.jsonl") == ["more.jsonl"]
    # Two names of one file.
    assert names("owner/stories") == ["train-0.jsonl"]
    (hub / "refs/main").write_text("gone")
    with pytest.raises(DataError, match="owner/stories: no such file; nor is a data set of that"):
        find_files(["owner/stories"])


def test_a_file_wins_over_a_data_set(hub: Path, tmp_path: Path) -> None:
    make(tmp_path, "owner/stories/own.jsonl")
    assert names("owner/stories") == ["own.jsonl"]


def test_files_that_a_glob_finds_win_over_a_data_set(hub: Path, tmp_path: Path) -> None:
    make(tmp_path, "owner/stories/data/train-own.jsonl")
    assert names("owner/stories/data/train-*") == ["train-own.jsonl"]
    assert names("owner/stories/extra/*") == ["more.jsonl"]


def test_a_user_without_a_home_has_no_data_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="other/set: no such file; nor is a data set"):
        find_files(["other/set"])


@pytest.mark.parametrize("entry", ['"a.arrow"', "{}", "3"])
def test_a_list_of_saved_files_that_is_damaged(tmp_path: Path, entry: str) -> None:
    (tmp_path / "state.json").write_text(f'{{"_data_files": [{entry}]}}')
    with pytest.raises(DataError, match=r"state\.json: is damaged"):
        find_files([str(tmp_path)])


def test_saved_files_are_those_of_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere.jsonl", "saved/a.jsonl")
    state = tmp_path / "saved/state.json"
    state.write_text('{"_data_files": [{"filename": "../elsewhere.jsonl"}]}')
    with pytest.raises(DataError, match=r"saved/elsewhere\.jsonl: is missing"):
        find_files([str(tmp_path / "saved")])


def test_a_data_set_that_is_not_cached(hub: Path) -> None:
    with pytest.raises(
        DataError, match=r"other/set: no such file; nor is a data set .* in .*/hub or .*/datasets;"
    ):
        find_files(["other/set"])


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``load_dataset("owner/TinyStories")`` leaves, with the result of a ``map``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    cache = tmp_path / "datasets" / "owner___tiny_stories"
    return make(
        cache,
        "default/0.0.0/f54c09/tiny_stories-train.arrow",
        "default/0.0.0/f54c09/cache-0a1b2c3d4e5f6a7b_00000_of_00002.arrow",
        "default/0.0.0/f54c09/dataset_info.json",
        "default/0.0.0/aa.incomplete/dataset_info.json",
    )


def test_a_data_set_that_the_datasets_library_has_prepared(prepared: Path) -> None:
    train = ["tiny_stories-train.arrow"]
    for name in ("", "/default", "/*train*", "/default/*train*"):
        assert names(f"owner/TinyStories{name}") == train
    make(prepared, "zh/0.0.0/f54c09/dataset_info.json", "zh/0.0.0/f54c09/a.arrow")
    with pytest.raises(DataError, match=r"several times in .* \(default, zh\); name one conf"):
        find_files(["owner/TinyStories"])
    assert names("owner/TinyStories/zh") == ["a.arrow"]
    assert names("owner/TinyStories/default") == train


def test_the_cache_of_the_datasets_library_lies_in_its_home(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_DATASETS_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert names("owner/TinyStories") == ["tiny_stories-train.arrow"]


def test_messages_name_the_link_not_what_is_behind_it(hub: Path) -> None:
    (hub / "blobs/0123").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (path,) = find_files(["owner/stories/data"])
    with pytest.raises(DataError, match=r"snapshots/abc123/data/train-0.jsonl: is a git-lfs"):
        list(read_texts(path))


def test_an_existing_file_wins_over_syntax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "dump_12:30", "a.jsonl:1,b.jsonl:2", "~home", "c[1].jsonl")
    for name in ("dump_12:30", "a.jsonl:1,b.jsonl:2"):
        assert parse_sources([name]) is None
    assert names("dump_12:30", "~home", "c[1].jsonl") == ["dump_12:30", "~home", "c[1].jsonl"]
    weighted = parse_sources(["dump_12:30:0.5", "other:2"])
    assert weighted is not None
    assert [source.path for source in weighted] == ["dump_12:30", "other"]
