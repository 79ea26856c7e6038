"""What a hub's list may name, and what of it is text."""

from __future__ import annotations

import pytest

from minimind.data import recipes
from minimind.data.hub import HubFile
from minimind.data.recipes import Recipe, text_files

OID = "0" * 40
WORDS = Recipe("words", "lab/words", "", "", "", "", "")


def test_what_describes_a_data_set_is_no_text_in_a_folder_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        HubFile(path, 1, OID)
        for path in ("en/000.parquet", "en/README.txt", "en/dataset_infos.json")
    ]
    monkeypatch.setattr(recipes, "files_of", lambda dataset, folder: found)
    assert text_files(WORDS) == found[:1]
