"""Pictures of report pages in a real Chromium, for people to look at: ``make report-look``.

Every page is drawn light, dark and as wide as a phone. A page that is wider than its window fails.
``--readme`` also cuts out the pictures of the README.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from minimind.report.page import render
from minimind.report.read import read_run
from tests.look.browser import Page, browser, find_chromium

PHONE, DESK = 390, 1120
HEIGHT = 900

MEASURE = """JSON.stringify({
  wide: document.documentElement.scrollWidth,
  height: document.body.scrollHeight,
  ends: [...document.querySelectorAll(".wide, section, .sample")].map((part) =>
    part.getBoundingClientRect().bottom + scrollY),
})"""
"""Widest line, height of the whole, and where the sections, the widest chart and the samples end:
in pixels, in the page's order."""


def measure(page: Page, width: int) -> dict[str, Any]:
    page.resize(width, HEIGHT, dark=False)
    return dict(json.loads(page.run(MEASURE)))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+", type=Path, help="one run, or several to compare")
    parser.add_argument("--out", type=Path, default=Path("build/report-look"))
    parser.add_argument("--readme", type=Path, metavar="DIR", help="pictures for the README too")
    args = parser.parse_args(argv)
    program = find_chromium()
    if program is None:
        print("report-look needs chromium on the path", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(render([read_run(run) for run in args.run]), encoding="utf-8")
        with browser(program, Path(folder, "profile")) as page:
            page.open(file.as_uri())
            for name, width in (("desk", DESK), ("phone", PHONE)):
                found = measure(page, width)
                if found["wide"] > width:
                    print(f"the page is {found['wide']} px wide on a {name} of {width}")
                    return 1
                for scheme in ("light", "dark"):
                    page.resize(width, found["height"], dark=scheme == "dark")
                    picture = args.out / f"{name}-{scheme}.png"
                    page.picture(picture)
                    print(picture)
                    if args.readme and name == "desk":
                        cut(Image.open(picture).convert("RGB"), found["ends"], args.readme, scheme)
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
