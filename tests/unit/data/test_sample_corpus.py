from __future__ import annotations

import builtins
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimind.cli.data import main
from minimind.data import sample_corpus as sample
from minimind.data.packing import plan_rows
from minimind.data.rows import read_texts
from minimind.data.sample_corpus import make_sample
from minimind.errors import MiniMindError

MODULE = '''\
"""Module {name}: {long}"""
# A comment of one line.
x = 1  # not alone on its line, {long}
# First line of a block, {long}
#   indented line,
# last line.


class Thing(object):
    """A class. {long}"""

    async def work(self, n: int = 3, *rest, **more):
        """
        A method. {long}

            indented
        """
        "not a docstring {long}"

    def same(self):
        """Module {name}: {long}"""

raise SystemExit("this module must not be run")
'''
LONG = "The quick brown fox jumps over the lazy dog. " * 3


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended standard library."""
    root = tmp_path / "lib"
    for package in ("test", "pkg/tests", "site-packages", "pydoc_data", "pkg"):
        (root / package).mkdir(parents=True, exist_ok=True)
        (root / package / "mod.py").write_text(MODULE.format(name=package, long=LONG))
    (root / "pkg" / "__init__.py").write_text(f'"""{LONG} of the package"""')
    (root / "broken.py").write_text("def (:\n")
    (root / "latin.py").write_bytes(b'"""caf\xe9 ' + LONG.encode() + b'"""')
    (root / "odd.py").write_text(f'"""\\ud800 nul \\0 {LONG}"""')
    topics = {"a": f"topic a\n{LONG}", "b": f"topic b\n{LONG}", "short": "too short"}
    (root / "pydoc_data" / "topics.py").write_text(f"# data\ntopics = {topics!r}\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    monkeypatch.setattr(sample, "HELD_OUT", 3)
    return root


def texts_of(folder: Path) -> dict[str, list[str]]:
    return {
        name: list(map(str, read_texts(folder / f"{name}.jsonl"))) for name in ("train", "eval")
    }


def test_what_is_taken_from_a_library(library: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "out")
    splits = texts_of(tmp_path / "out")
    texts = splits["train"] + splits["eval"]
    assert len(texts) == len(set(texts))
    long = LONG.strip()
    assert set(texts) == {
        f"topic a\n{long}",
        f"topic b\n{long}",
        f"pkg\n\n{LONG} of the package",
        f"odd\n\n nul  {long}",
        *(
            text
            for name in ("pkg", "pydoc_data")
            for text in (
                f"{name}.mod\n\nModule {name}: {long}",
                f"{name}.mod.Thing\n\nA class. {long}",
                f"{name}.mod.Thing.work(self, n: int=3, *rest, **more)\n\nA method. {long}"
                "\n\n    indented",
                f"{name}.mod.Thing.same(self)\n\nModule {name}: {long}",
            )
        ),
        # The same in both modules, so once.
        f"First line of a block, {long}\n  indented line,\nlast line.",
    }


def test_installed_packages_too(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = library / "site-packages"
    (installed / "theirs.py").write_text(f'"""Installed. {LONG}"""')
    paths = {"stdlib": str(library), "purelib": str(installed)}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    for packages in (False, True):
        make_sample(tmp_path / "out", packages=packages)
        splits = texts_of(tmp_path / "out")
        texts = splits["train"] + splits["eval"]
        assert (f"theirs\n\nInstalled. {LONG.strip()}" in texts) is packages
        assert f"topic a\n{LONG.strip()}" in texts
        assert len(texts) == len(set(texts))


def test_no_library_module_is_imported(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: Any, *_: Any) -> None:
        pytest.fail(f"executed {code}")

    monkeypatch.setattr(builtins, "exec", refuse)
    make_sample(tmp_path / "out")


def test_the_same_again(library: Path, tmp_path: Path) -> None:
    first = make_sample(tmp_path / "a")
    second = make_sample(tmp_path / "b")
    for name in ("train", "eval"):
        assert first[name][0].read_bytes() == second[name][0].read_bytes()
        assert first[name][1:] == second[name][1:]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "eval.jsonl",
        "train.jsonl",
    ]


def test_a_folder_that_cannot_be_written(library: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MiniMindError, match="cannot be written") as raised:
        make_sample(tmp_path / "file" / "sample")
    assert raised.value.exit_code == 1


def test_a_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(MiniMindError, match="no Python sources"):
        make_sample(tmp_path / "out")


def test_the_real_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few MB, disjoint splits, and rows with under 1 % padding."""
    from minimind.data.tokenize.build import open_corpus

    out = tmp_path / "sample"
    assert main(["sample", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert str(out / "train.jsonl") in printed
    splits = texts_of(out)
    assert not set(splits["train"]) & set(splits["eval"])
    assert 2e6 < (out / "train.jsonl").stat().st_size < 6e6
    assert 0.02 < len(splits["eval"]) / len(splits["train"]) < 0.1
    store = open_corpus([str(out / "train.jsonl")], cache_dir=str(tmp_path / "cache"))
    assert store.n_docs == len(splits["train"])
    assert store.n_rejected == 0
    for max_seq_len in (256, 512):
        plan = plan_rows(store, max_seq_len)
        assert plan.fill > 0.99
        assert np.asarray(plan.targets_per_row).sum() == store.n_tokens - store.n_docs
