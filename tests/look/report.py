"""Pictures of report pages in a real Chromium, for people to look at: ``make report-look``.

Every page is drawn light, dark and as wide as a phone. A page that is wider than its window fails.
``--readme`` also cuts out the pictures of the README.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from minimind.report.page import render
from minimind.report.read import read_run

PHONE, DESK = 390, 1120
TALLEST = 12_000

FRAME = """<!doctype html><meta charset="utf-8"><title></title>
<body style="margin:0"><iframe srcdoc="{page}" style="border:0;width:{width}px;height:{height}px">
</iframe><script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const ends = [...page.querySelectorAll(".wide, section, .sample")].map((part) =>
    part.getBoundingClientRect().bottom);
  const wide = page.documentElement.scrollWidth;
  document.title = JSON.stringify({{wide, ends, height: page.body.scrollHeight}});
}}</script>"""
"""A frame of any width, since no Chromium window is as narrow as a phone."""


class Browser:
    """A headless Chromium with a profile of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def _run(self, page: str, width: int, height: int, *words: str) -> str:
        file = self.folder / "frame.html"
        file.write_text(
            FRAME.format(page=html.escape(page), width=width, height=height), encoding="utf-8"
        )
        command = [
            self.program,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={self.folder / 'profile'}", "--virtual-time-budget=2000"),
            f"--window-size={max(width, 500)},{height}",
            *words,
            file.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    def measure(self, page: str, width: int) -> dict[str, Any]:
        """Widest line, height of the whole, and where the sections, the widest chart
        and the samples end, in pixels, in the page's order."""
        found = re.search(r"<title>(.+?)</title>", self._run(page, width, TALLEST, "--dump-dom"))
        assert found, "the browser did not load the page"
        return dict(json.loads(html.unescape(found[1])))

    def picture(self, page: str, width: int, height: int, dark: bool, file: Path) -> Image.Image:
        scheme = "--blink-settings=preferredColorScheme=" + ("0" if dark else "1")
        self._run(page, width, height, scheme, f"--screenshot={file}")
        return Image.open(file).convert("RGB").crop((0, 0, width, height))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+", type=Path, help="one run, or several to compare")
    parser.add_argument("--out", type=Path, default=Path("build/report-look"))
    parser.add_argument("--readme", type=Path, metavar="DIR", help="pictures for the README too")
    args = parser.parse_args(argv)
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("report-look needs chromium on the path", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    page = render([read_run(run) for run in args.run])
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(program, Path(folder))
        for name, width in (("desk", DESK), ("phone", PHONE)):
            found = browser.measure(page, width)
            if found["wide"] > width:
                print(f"the page is {found['wide']} px wide on a {name} of {width}")
                return 1
            for scheme in ("light", "dark"):
                file = args.out / f"{name}-{scheme}.png"
                whole = browser.picture(page, width, found["height"], scheme == "dark", file)
                whole.save(file)
                print(file)
                if args.readme and name == "desk":
                    cut(whole, found["ends"], args.readme, scheme)
    return 0


def cut(whole: Image.Image, ends: list[float], folder: Path, scheme: str) -> None:
    """The head of the page with the loss, and the parts about time and text, each a small file."""
    folder.mkdir(parents=True, exist_ok=True)
    curves, loss, _time, _texts, *samples = map(round, ends)
    for name, top, bottom in (("loss", 0, loss), ("time", curves + 20, max(samples[:2]))):
        picture = whole.crop((0, top, whole.width, bottom + 12))
        picture.quantize(200, dither=Image.Dither.NONE).save(
            folder / f"report-{name}-{scheme}.png", optimize=True
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
