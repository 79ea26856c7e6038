"""The page that follows a run, in a real Chromium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minimind.report import serve
from minimind.report.serve import LivePage, Server
from tests.e2e.lab import poll
from tests.look.browser import Page
from tests.unit.report.folders import EVENTS, METRICS, sample, write_run

PHONE, DESK = 390, 1120


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Shows the run in ``tmp_path / "mine"``, which goes on stage by stage."""
    monkeypatch.setattr(serve, "LEAST_SECONDS", 0.0)
    stage(tmp_path / "mine", 3, 3)
    with Server(0, LivePage([tmp_path / "mine"])) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def stage(root: Path, n_events: int, n_records: int, **final: Any) -> None:
    """The run folder after so many events and lines of metrics."""
    samples = [sample(step, text=f" sea of {step}") for step in range(10, 10 + 10 * n_records, 10)]
    shutil.rmtree(root, ignore_errors=True)
    write_run(root, EVENTS[:n_events], METRICS[:n_records], final or None, samples)
    log = root / "attempts" / "1" / "rank-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {number}\n" for number in range(10 * n_records)))


def test_a_page_follows_a_run_that_is_lost_resumed_and_done(
    chromium: Page, server: Server, tmp_path: Path
) -> None:
    chromium.resize(DESK, 900, dark=False)
    chromium.open(server.link)

    def shows(state: str, steps: str) -> bool:
        words = "document.querySelector({!r})?.innerText ?? ''".format
        tile = "[...document.querySelectorAll('.tile')].map((t) => t.innerText).join('|')"
        return chromium.run(words(".state")) == state and f"steps\n{steps}\n" in chromium.run(tile)

    poll(lambda: shows("running", "30"), "the page", 60)
    chromium.run("document.querySelector('details').open = true")
    chromium.run("window.mine = 1")
    log = "document.querySelector('.log')"
    assert chromium.run(f"{log}.innerText.trim().split('\\n').at(-1)") == "line 29"

    stage(tmp_path / "mine", 5, 6)
    poll(lambda: shows("waiting", "60"), "the loss of a node", 60)
    assert chromium.run("document.querySelector('details').open"), "what was folded out stays so"
    assert chromium.run(f"{log}.scrollTop + {log}.clientHeight >= {log}.scrollHeight - 4")

    stage(tmp_path / "mine", 8, 9)
    poll(lambda: shows("running", "60"), "the next attempt", 60)
    # Who reads a value off a curve is left alone, and has the right one.
    hover(chromium)
    assert "step" in chromium.run("document.querySelector('.tip').innerText")
    stage(tmp_path / "mine", 11, 13, cause="done", exit_code=0, reason="finished")
    leave(chromium)
    poll(lambda: shows("done", "100"), "the end", 60)
    assert chromium.run("window.mine") == 1, "the page was never loaded anew"
    hover(chromium)
    assert "step" in chromium.run("document.querySelector('.tip').innerText")
    leave(chromium)

    for width in (PHONE, DESK):
        for dark in (False, True):
            chromium.resize(width, 900, dark=dark)
            assert chromium.run("document.documentElement.scrollWidth") <= width
            paper = chromium.run("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(22, 24, 28)" if dark else "rgb(250, 249, 246)")

    server.shutdown()
    server.server_close()
    notice = "document.querySelector('#notice')"
    poll(lambda: not chromium.run(f"{notice}.hidden"), "word of the server's end", 60)
    assert "has ended" in chromium.run(f"{notice}.innerText")
    assert shows("done", "100")


def hover(chromium: Page) -> None:
    """Puts the pointer into the middle of the first chart."""
    chromium.run(
        "(() => { const plot = document.querySelector('.plot'); "
        "const box = plot.querySelector('svg').getBoundingClientRect(); "
        "plot.dispatchEvent(new PointerEvent('pointermove', "
        "{ clientX: box.x + box.width / 2, clientY: box.y + 9 })); })()"
    )


def leave(chromium: Page) -> None:
    chromium.run("document.querySelector('.plot').dispatchEvent(new Event('pointerleave'))")
