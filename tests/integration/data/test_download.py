"""Downloads from a real HTTP server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.data import hub as module
from minimind.data.download import dataset_url, download
from minimind.errors import MiniMindError
from minimind.system.process import free_port

DATA = os.urandom(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Redirects like a hub to a storage that serves ranges, and can drop the connection."""

    data = DATA
    etag = '"v1"'
    named_sha256: str | None = SHA256
    stop_after: int | None = None
    ranges: list[str | None]
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        if "/missing" in self.path:
            self.send_error(404)
        elif "/datasets/" in self.path:
            self.send_response(302)
            self.send_header("Location", "/storage/blob?signature=x%2Fy")
            if self.named_sha256:
                self.send_header("X-Linked-ETag", f'"{self.named_sha256}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.serve_blob()

    def serve_blob(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        start = 0
        if wanted and self.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.data):
                self.send_error(416)
                return
            self.send_response(206)
            last = len(self.data) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(self.data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : self.stop_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("ThisHub", (Hub,), {"ranges": [], "paths": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_a_whole_download(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    code = main(["data", "download", "pretrain_hq", "--out", str(tmp_path), "--source", source])
    assert code == 0
    target = tmp_path / "pretrain_hq.jsonl"
    assert target.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [target]
    assert f"{target}: {len(DATA)} bytes, sha256 {SHA256}" in capsys.readouterr().out
    asked = {
        "hf": "/datasets/jingyaogong/minimind_dataset/resolve/main/pretrain_hq.jsonl",
        "modelscope": "/datasets/gongjy/minimind_dataset/resolve/master/pretrain_hq.jsonl",
    }[source]
    assert hub.paths[0] == asked


def interrupted(hub: type[Hub], target: Path) -> str:
    """Download until the connection drops at a third; return the URL."""
    url = dataset_url("a.jsonl", "hf")
    hub.stop_after = len(DATA) // 3
    with pytest.raises(MiniMindError, match="the same command goes on from here"):
        download(url, target)
    hub.stop_after = None
    assert not target.exists()
    assert target.with_name("a.jsonl.part").stat().st_size == len(DATA) // 3
    return url


@pytest.mark.parametrize("planted", ["link", "second name"])
def test_what_others_planted_is_not_written_to(
    hub: type[Hub], tmp_path: Path, planted: str
) -> None:
    target = tmp_path / "data" / "a.jsonl"
    url = interrupted(hub, target)
    part, precious = target.with_name("a.jsonl.part"), tmp_path / "precious"
    os.rename(part, precious)
    before = precious.read_bytes()
    (os.symlink if planted == "link" else os.link)(precious, part)
    assert download(url, target) == SHA256
    assert hub.ranges[-1] is None, "it began anew"
    assert precious.read_bytes() == before


def test_a_dropped_download_goes_on(hub: type[Hub], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    assert download(interrupted(hub, target), target) == SHA256
    assert target.read_bytes() == DATA
    assert hub.ranges == [None, f"bytes={len(DATA) // 3}-"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_changed_meanwhile_starts_again(hub: type[Hub], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    url = interrupted(hub, target)
    hub.data, hub.etag = DATA[::-1], '"v2"'
    hub.named_sha256 = hashlib.sha256(hub.data).hexdigest()
    assert download(url, target) == hub.named_sha256
    assert target.read_bytes() == DATA[::-1]


def test_a_part_of_unknown_origin_is_not_trusted(hub: type[Hub], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    (tmp_path / "a.jsonl.part").write_bytes(b"from somewhere else")
    assert download(dataset_url("a.jsonl", "hf"), target) == SHA256
    assert hub.ranges == [None]


def test_stopped_between_the_last_byte_and_the_name(hub: type[Hub], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    part = tmp_path / "a.jsonl.part"
    part.write_bytes(DATA)
    note = {"validator": hub.etag, "size": len(DATA), "sha256": SHA256}
    (tmp_path / "a.jsonl.part.json").write_text(json.dumps(note))
    assert download(dataset_url("a.jsonl", "hf"), target) == SHA256
    assert target.read_bytes() == DATA


def test_a_wrong_checksum_is_an_error(hub: type[Hub], tmp_path: Path) -> None:
    hub.named_sha256 = "0" * 64
    target = tmp_path / "a.jsonl"
    with pytest.raises(MiniMindError, match=f"checksum {SHA256} is not 0000"):
        download(dataset_url("a.jsonl", "hf"), target)
    assert not target.exists()
    assert not (tmp_path / "a.jsonl.part").exists()


def test_without_a_named_checksum_it_is_shown_only(hub: type[Hub], tmp_path: Path) -> None:
    hub.named_sha256 = None
    assert download(dataset_url("a.jsonl", "hf"), tmp_path / "a.jsonl") == SHA256


def test_a_missing_file(hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download", "missing.jsonl", "--out", str(tmp_path)]) == 1
    assert "the server says 404" in capsys.readouterr().err


def test_no_network_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["data", "download", "pretrain_hq.jsonl", "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "no connection" in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(MiniMindError, match="timed out"):
            download(dataset_url("a.jsonl", "hf"), tmp_path / "a.jsonl")
