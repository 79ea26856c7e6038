"""Downloads of many files: a proxy on this machine plays a hub and the storage behind it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.data import hub as module
from minimind.data.folders import files_of_folder
from minimind.data.recipes import RECIPES
from minimind.errors import EXIT_CRASHED, EXIT_DONE, EXIT_USER_ERROR, DataError

TOKEN = "hf_thisIsNoRealToken"
SET = "HuggingFaceFW/fineweb-edu"
BIG, BIGGER, SMALL = os.urandom(300_000), os.urandom(500_000), b"PAR1 small"
FILES = {
    "sample/10BT/000.parquet": BIG,
    "sample/10BT/001.parquet": BIGGER,
    "sample/10BT/deep/002 ?.parquet": SMALL,
    "sample/10BT/README.md": b"about it",
    "sample/100BT/000.parquet": b"not asked for",
}


class Internet(http.server.BaseHTTPRequestHandler):
    """``hub.invalid`` lists, and redirects to ``storage.invalid``, which serves ranges."""

    files: dict[str, bytes]
    drops: list[int]
    """After how many bytes the next answers of the storage end."""
    asked: list[tuple[str, str | None, str | None]]
    """Host, Range and Authorization of each request."""
    spoiled = False

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        self.asked.append(
            (url.netloc, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        if url.netloc == "storage.invalid":
            self.serve(path.removeprefix("/"))
        elif path.startswith(f"/api/datasets/{SET}/tree/main/"):
            self.list(path.removeprefix(f"/api/datasets/{SET}/tree/main/"), query)
        elif (name := path.removeprefix(f"/datasets/{SET}/resolve/main/")) in self.files:
            self.resolve(name)
        else:
            self.send_error(404)

    def list(self, folder: str, query: dict[str, list[str]]) -> None:
        names = [name for name in self.files if name.startswith(f"{folder}/")]
        first = int(query.get("cursor", ["0"])[0])
        entries = [{"type": "directory", "path": f"{folder}/deep", "oid": "0" * 40, "size": 0}]
        entries += [self.entry(name) for name in names[first : first + 2]]
        self.send_response(200)
        if first + 2 < len(names):
            # The address of the hub itself, which a mirror hands on.
            link = f'<https://huggingface.co/api/x?recursive=true&cursor={first + 2}>; rel="next"'
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(json.dumps(entries).encode())

    def entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        entry = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
        if len(data) > 1000:
            entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return entry

    def resolve(self, name: str) -> None:
        data = self.files[name]
        if len(data) > 1000:
            self.send_response(302)
            self.send_header("Location", f"http://storage.invalid/{sha256(data)}")
            self.send_header("X-Linked-ETag", f'"{sha256(data)}"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{git_sha1(data)}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(self.broken(data))

    def serve(self, wanted: str) -> None:
        data = next(data for data in self.files.values() if sha256(data) == wanted)
        given = self.headers.get("Range")
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given else 0
        self.send_response(206 if given else 200)
        self.send_header("ETag", f'"{wanted}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.drops.pop(0) if self.drops else None
        self.wfile.write(self.broken(data)[start:end])

    def broken(self, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if self.spoiled else data

    def log_message(self, *_: object) -> None:
        pass


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Internet]]:
    handler = type("Here", (Internet,), {"files": dict(FILES), "drops": [], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    for name in ("no_proxy", "NO_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(out: Path, *more: str) -> int:
    return main(["data", "download", "fineweb-edu", "--out", str(out), *more])


def content(out: Path) -> dict[str, bytes]:
    folder = out / "fineweb-edu"
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_all_files_of_a_recipe(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path) == EXIT_DONE
    text = {"000.parquet": BIG, "001.parquet": BIGGER, "deep/002 ?.parquet": SMALL}
    assert content(tmp_path) == text
    said = capsys.readouterr().out
    assert "3 of 3 files, 800.0 kB of 800.0 kB; licence odc-by" in said
    assert len(files_of_folder(tmp_path / "fineweb-edu")) == 3


def test_a_part_and_later_the_rest(internet: type[Internet], tmp_path: Path) -> None:
    assert fetch(tmp_path, "--max_gb", "0.0005") == EXIT_DONE
    assert content(tmp_path) == {"000.parquet": BIG}
    internet.asked.clear()
    assert fetch(tmp_path) == EXIT_DONE
    assert len(content(tmp_path)) == 3
    assert len([host for host, *_ in internet.asked if host == "storage.invalid"]) == 1


def test_less_than_the_first_file(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "--max_gb", "0.0001") == EXIT_USER_ERROR
    assert "the first file has 300.0 kB; ask for more" in capsys.readouterr().err


def test_lost_connections_are_taken_up_as_long_as_something_comes(
    internet: type[Internet], tmp_path: Path
) -> None:
    internet.drops = [100_000, 50_000]
    assert fetch(tmp_path, "--max_gb", "0.0005") == EXIT_DONE
    assert content(tmp_path) == {"000.parquet": BIG}
    ranges = [wanted for host, wanted, _ in internet.asked if host == "storage.invalid"]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_has_arrived_is_kept_and_is_no_text_yet(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    internet.drops = [1000, 0]
    assert fetch(tmp_path) == EXIT_CRASHED
    assert "the same command goes on from here" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"an unfinished download, 000\.parquet\.part"):
        files_of_folder(tmp_path / "fineweb-edu")
    assert fetch(tmp_path) == EXIT_DONE
    assert content(tmp_path)["000.parquet"] == BIG
    assert (None, "bytes=1000-") in {(token, wanted) for _, wanted, token in internet.asked}


@pytest.mark.parametrize("name", ["sample/10BT/000.parquet", "sample/10BT/deep/002 ?.parquet"])
def test_a_spoiled_byte(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    internet.files = {name: FILES[name]}
    internet.spoiled = True
    assert fetch(tmp_path) == EXIT_CRASHED
    assert "checksum" in capsys.readouterr().err
    assert not any(place.endswith((".parquet", ".part")) for place in content(tmp_path))


def test_another_file_of_that_name_stays(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "fineweb-edu" / "000.parquet"
    mine.parent.mkdir()
    mine.write_bytes(BIG[::-1])
    assert fetch(tmp_path) == EXIT_USER_ERROR
    assert f"{mine}: is another file than the hub's" in capsys.readouterr().err
    assert mine.read_bytes() == BIG[::-1]


def test_a_disk_that_is_too_small_is_found_before(
    internet: type[Internet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=700_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert fetch(tmp_path) == EXIT_CRASHED
    assert "800.0 kB are still to come, and 700.0 kB are free" in capsys.readouterr().err
    assert content(tmp_path) == {}


def test_a_token_goes_to_the_hub_alone_and_into_no_message(
    internet: type[Internet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(tmp_path) == EXIT_DONE
    tokens = {(host, token) for host, _, token in internet.asked}
    assert tokens == {("hub.invalid", f"Bearer {TOKEN}"), ("storage.invalid", None)}
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n{TOKEN}")
    assert fetch(tmp_path / "again") == EXIT_USER_ERROR
    said = capsys.readouterr()
    assert "HF_TOKEN: is no token" in said.err
    assert TOKEN not in said.out + said.err


def test_any_data_set_of_the_hub(
    internet: type[Internet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "download", f"datasets/{SET}/sample/100BT", "--out", str(tmp_path)]
    assert main(command) == EXIT_DONE
    assert content(tmp_path) == {"000.parquet": b"not asked for"}
    assert main(["data", "download", "datasets/no/such", "--out", str(tmp_path)]) == EXIT_CRASHED
    assert "the server says 404" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"<html>", b'{"error": 1}', b'[{"type": "file"}]'])
def test_what_is_no_list(
    internet: type[Internet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: bytes,
) -> None:
    def say(self: Internet, *_: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    monkeypatch.setattr(internet, "list", say)
    assert fetch(tmp_path) == EXIT_CRASHED
    assert "is not a hub's list of files" in capsys.readouterr().err


def test_a_list_cannot_name_files_elsewhere(internet: type[Internet], tmp_path: Path) -> None:
    internet.files = {"sample/10BT/../../../x.parquet": BIG}
    with pytest.raises(module.MiniMindError, match="is not a hub's list"):
        module.files_of(SET, "sample/10BT")


def test_what_is_known_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "download", "--list"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for recipe in RECIPES:
        assert f"{recipe.page} ({recipe.path}; read on {recipe.read})" in said
        assert f"licence  {recipe.licence}\n" in said
        assert recipe.licence


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["pretrain_hq", "--max_gb", "1"], "--max_gb: pretrain_hq is one file"),
        (["fineweb-edu", "--max_gb", "0"], "--max_gb must be greater than 0"),
        (["fineweb-edu", "--source", "modelscope"], "fineweb-edu is only fetched with hf"),
    ],
)
def test_flags_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["data", "download", *arguments]) == EXIT_USER_ERROR
    assert message in capsys.readouterr().err
