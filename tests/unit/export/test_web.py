"""The page's runtime is what is pinned, from npm or from a folder, or there is none."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from minimind.cli.export import main
from minimind.errors import ConfigError, MiniMindError
from minimind.export import web


def archive(files: dict[str, bytes]) -> bytes:
    """As npm packs it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return packed.getvalue()


NPM = """#!/bin/sh
# npm, which the end-to-end tests have: "pack NAME" writes an archive into its own folder here.
[ "$1 $2" = "pack @us/thing@1.2.3" ] || exit 9
cp {file} . 2>/dev/null && exit
echo "npm error code ENOTFOUND" >&2
echo "npm error Log files were not written" >&2
exit 1
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm of one package, ``@us/thing``, that is all the page needs."""
    data = archive({"dist/run.js": b"runs", "dist/other.js": b"other"})
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    package = web.Package("@us/thing", "1.2.3", f"sha512-{digest}", ("dist/run.js",))
    monkeypatch.setattr(web, "PACKAGES", (package,))
    file = tmp_path / "us-thing-1.2.3.tgz"
    file.write_bytes(data)
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM.format(file=file))
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    return file


def test_only_what_the_page_needs_is_taken_from_a_package(registry: Path, tmp_path: Path) -> None:
    web.write_runtime(tmp_path / "runtime", None)
    found = {file.name: file.read_bytes() for file in (tmp_path / "runtime").iterdir()}
    assert found == {"run.js": b"runs"}
    web.write_runtime(tmp_path / "again", tmp_path / "runtime")
    assert (tmp_path / "again" / "run.js").read_bytes() == b"runs"


def test_another_archive_under_that_name_is_refused(registry: Path, tmp_path: Path) -> None:
    registry.write_bytes(archive({"dist/run.js": b"does harm"}))
    with pytest.raises(MiniMindError, match=r"is not @us/thing@1\.2\.3 as it was: its hash"):
        web.write_runtime(tmp_path / "runtime", None)


def test_without_a_network_one_line_says_what_to_do(registry: Path, tmp_path: Path) -> None:
    registry.unlink()
    with pytest.raises(
        ConfigError, match=r"@us/thing@1\.2\.3 .*npm error code ENOTFOUND\); --runtime"
    ):
        web.write_runtime(tmp_path / "runtime", None)


def test_without_npm_one_line_says_what_to_do(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no npm to fetch .*: install Node\.js; --runtime DIR"):
        web.write_runtime(tmp_path / "runtime", None)


def test_a_folder_that_lacks_a_file_is_refused(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no run\.js; .*@us/thing@1\.2\.3"):
        web.write_runtime(tmp_path / "runtime", tmp_path)


def test_the_page_says_everything_in_both_languages(tmp_path: Path) -> None:
    web.write_page(tmp_path, "q4", 128)
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "dtype": "q4",
        "context": 128,
        "answer": 64,
    }
    words = (tmp_path / "words.js").read_text(encoding="utf-8")
    english, chinese = words.split("zh: {")
    assert re.findall(r"(\w+): \"", english) == re.findall(r"(\w+): \"", chinese)
    used = set(re.findall(r"data-word=\"(\w+)\"", (tmp_path / "index.html").read_text()))
    assert used <= set(re.findall(r"(\w+): \"", english))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["hf", "--runtime", "here"], "--runtime is for web"),
        (["web", "--variants", "q4", "q8"], "name one"),
        (["web", "--no_kv_cache"], "--no_kv_cache"),
    ],
)
def test_flags_of_the_page(words: list[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        main(["--weight", "absent.pth", "--out", str(tmp_path / "out"), "--format", *words])
