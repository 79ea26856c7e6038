"""Data sets that ``minimind data download`` knows by name.

Only what could be read on the pages is said of them. Whoever adds one reads its page first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from minimind.data.folders import kind_of
from minimind.data.hub import HubFile, files_of, page_of
from minimind.errors import ConfigError, DataError
from minimind.system.terminal import size_text


@dataclass(frozen=True)
class Recipe:
    """A data set, or a part of one.

    Attributes:
        name: what the command calls it, and a folder for its files.
        dataset: on the hub, ``OWNER/NAME``.
        path: the file or folder of it.
        what: in a few words.
        licence: as its page names it.
        size: as its page names it.
        read: the day on which its page was read.
    """

    name: str
    dataset: str
    path: str
    what: str
    licence: str
    size: str
    read: str

    @property
    def page(self) -> str:
        return page_of(self.dataset)


RECIPES = (
    Recipe(
        "pretrain_t2t_mini",
        "jingyaogong/minimind_dataset",
        "pretrain_t2t_mini.jsonl",
        "MiniMind's own, for a quick run; multilingual",
        "apache-2.0, cc-by-nc-2.0",
        "1.2 GB",
        "2026-11-30",
    ),
    Recipe(
        "pretrain_t2t",
        "jingyaogong/minimind_dataset",
        "pretrain_t2t.jsonl",
        "MiniMind's own, all of it; multilingual",
        "apache-2.0, cc-by-nc-2.0",
        "10 GB",
        "2026-11-30",
    ),
    Recipe(
        "fineweb-edu",
        "HuggingFaceFW/fineweb-edu",
        "sample/10BT",
        "English web pages with educational value: the sample of 10 billion tokens",
        "odc-by",
        "10 billion tokens",
        "2026-11-30",
    ),
    Recipe(
        "fineweb-edu-chinese",
        "opencsg/Fineweb-Edu-Chinese-V2.1",
        "4_5",
        "Chinese web pages with educational value: those with the best scores",
        "apache-2.0; OpenCSG's community licence lies beside it: read it before commercial use",
        "70 GB, 46 billion tokens, 17,790,513 rows",
        "2026-11-30",
    ),
)


def recipe_of(name: str) -> Recipe | None:
    """The recipe of that name; ``datasets/OWNER/NAME[/FOLDER]`` is any data set of the hub."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    kind, _, rest = name.partition("/")
    owner, _, rest = rest.partition("/")
    dataset, _, path = rest.strip("/").partition("/")
    if kind != "datasets" or not owner or not dataset:
        return None
    return Recipe(dataset, f"{owner}/{dataset}", path, "", "", "", "")


def text_files(recipe: Recipe) -> list[HubFile]:
    """A recipe's files of text, as the hub lists them.

    Raises:
        DataError: there are none, or of several formats.
        MiniMindError: the hub cannot be asked.
    """
    found = files_of(recipe.dataset, recipe.path)
    files = [(file, kind_of(PurePosixPath(file.path).name)) for file in found]
    kinds = sorted({kind for _, kind in files if kind})
    if len(kinds) != 1:
        raise DataError(
            f"{recipe.page}: {recipe.path or 'it'} holds {' and '.join(kinds) or 'no'} files of "
            f"text; name a folder of it: datasets/{recipe.dataset}/FOLDER"
        )
    return [file for file, kind in files if kind]


def first_gigabytes(files: Sequence[HubFile], max_gb: float) -> list[HubFile]:
    """As many of the first files as are not larger together.

    Raises:
        ConfigError: not even the first is small enough.
    """
    chosen: list[HubFile] = []
    left = max_gb * 1e9
    for file in files:
        left -= file.size
        if left < 0:
            break
        chosen.append(file)
    if not chosen:
        raise ConfigError(
            f"--max_gb {max_gb:g}: the first file has {size_text(files[0].size)}; ask for more"
        )
    return chosen
