"""The page that follows runs: who gets it, and what is in it."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from minimind.cli.report import main
from minimind.errors import ConfigError
from minimind.report import serve
from minimind.report.serve import LivePage, Server
from tests.unit.report.folders import write_done

Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Server, Ask]]]:
    """``served(page)``: a server, and how to ask it."""
    servers: list[Server] = []

    def start(page: Callable[[], str]) -> tuple[Server, Ask]:
        server = Server(0, page)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def ask(path: str = server.path, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(serve.HOST, server.server_port, timeout=20)
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=names)
            return connection.getresponse()

        return server, ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_page_is_behind_its_link(served: Callable[..., tuple[Server, Ask]]) -> None:
    server, ask = served(lambda: "the page")
    assert server.server_address[0] == "127.0.0.1"
    assert urlsplit(server.link).path == server.path
    assert len(server.path) > 20
    answer = ask()
    assert (answer.status, answer.read()) == (200, b"the page")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/", "/favicon.ico", server.path[:-1], server.path + "x", "/%C3%A9/"):
        refused = ask(path)
        assert (refused.status, refused.read()) == (404, b"no such page\n"), path
    assert Server.__mro__.count(serve.ThreadingHTTPServer) == 1
    other, _ = served(lambda: "another")
    assert other.path != server.path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),  # through a tunnel, which has a port of its own
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("runs.example.org", 404),  # another's page, whose name leads here
        ("127.0.0.1.example.org:80", 404),
        ("[::1", 404),
        ("", 404),
    ],
)
def test_the_machine_answers_to_its_own_name_alone(
    served: Callable[..., tuple[Server, Ask]], host: str, status: int
) -> None:
    _, ask = served(lambda: "the page")
    assert ask(Host=host).status == status


def test_what_is_known_is_not_sent_again(served: Callable[..., tuple[Server, Ask]]) -> None:
    pages = ["one", "one", "two"]
    _, ask = served(lambda: pages.pop(0))
    tag = ask().headers["ETag"]
    same = ask(If_None_Match=tag)
    assert (same.status, same.read()) == (304, b"")
    other = ask(If_None_Match=tag)
    assert (other.status, other.read()) == (200, b"two")


@pytest.mark.parametrize(("error", "is_said"), [(BrokenPipeError, False), (RuntimeError, True)])
def test_a_window_that_is_closed_is_no_error(
    served: Callable[..., tuple[Server, Ask]],
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
    is_said: bool,
) -> None:
    def page() -> str:
        raise error("while it is sent")

    _, ask = served(page)
    with pytest.raises(http.client.RemoteDisconnected):
        ask()
    assert ("while it is sent" in capsys.readouterr().err) is is_said


def test_the_page_follows_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LEAST_SECONDS", 0.0)
    run = write_done(tmp_path / "mine")
    page = LivePage([run], "My runs")
    assert "<title>My runs</title>" in page()
    assert "connect-src 'self'" in page()
    assert "<h2>Log</h2>" not in page()
    (run / "attempts" / "2").mkdir(parents=True)
    log = run / "attempts" / "2" / "rank-0.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "<b>\x1b[31mthe end\n")
    shown = page()
    assert "line 99" in shown
    assert "line 9\n" not in shown
    assert "&lt;b&gt;\\x1b[31mthe end" in shown


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    run = write_done(tmp_path / "mine")
    (tmp_path / "secret").write_text("nobody's business")
    (run / "attempts" / "2").mkdir(parents=True)
    (run / "attempts" / "2" / "rank-0.log").symlink_to(tmp_path / "secret")
    assert "nobody" not in LivePage([run])()


def test_many_windows_do_not_read_the_runs_more_often(tmp_path: Path) -> None:
    run = write_done(tmp_path / "mine")
    page = LivePage([run])
    first = page()
    shutil.rmtree(run)
    assert page() is first


def test_a_run_that_is_gone_is_said_in_one_line(
    tmp_path: Path,
    served: Callable[..., tuple[Server, Ask]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "LEAST_SECONDS", 0.0)
    run = write_done(tmp_path / "mine")
    _, ask = served(LivePage([run]))
    assert ask().status == 200
    shutil.rmtree(run)
    answer = ask()
    assert answer.status == 503
    assert answer.read().decode().startswith(f"{run} is no folder")


def test_a_port_that_cannot_be_had_is_an_error_in_one_line() -> None:
    with Server(0, str) as taken:
        port = taken.server_port
        with pytest.raises(ConfigError, match=f"--serve {port}: .* choose another port"):
            Server(port, str)
    with pytest.raises(ConfigError, match="--serve 70000: a port is 0 to 65535"):
        Server(70_000, str)


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    run = write_done(tmp_path / "mine")
    words = [sys.executable, "-m", "minimind", "report", str(run), "--serve", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads("".join(iter(lambda: process.stdout.readline().decode(), "}\n")) + "}")
        link = urlsplit(found["link"])
        connection = http.client.HTTPConnection(serve.HOST, found["port"], timeout=20)
        connection.request("GET", link.path)
        assert b"<title>mine</title>" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("flag", ["--out", "--png"])
def test_a_file_beside_the_served_page_is_refused(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--serve writes no file: leave {flag} out"):
        main([str(write_done(tmp_path / "mine")), "--serve", flag, str(tmp_path / "x")])
