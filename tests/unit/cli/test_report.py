from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.charts import png
from minimind.cli import main as minimind
from minimind.cli.report import main
from minimind.errors import ConfigError
from minimind.report import page
from minimind.report.svg import COLOURS
from tests.unit.report.folders import METRICS, write_done, write_output


def test_the_page_lies_in_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_done(tmp_path / "mine")
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'} (")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [f.name for f in run.iterdir() if f.name.startswith(".")] == []


def test_scripts_get_numbers_and_the_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [write_done(tmp_path / "a"), write_output(tmp_path / "b", METRICS)]
    page = tmp_path / "pages" / "both.html"
    assert main([*map(str, runs), "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == [str(page)]
    assert [run["run"] for run in found["runs"]] == ["a", "b"]
    assert found["runs"][0]["ledger"]["lost_steps"] == 20
    assert page.is_file()


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_done(tmp_path / "$a_{")
    assert main([str(run), "--png", str(tmp_path / "pictures"), "--json"]) == 0
    files = [Path(name) for name in json.loads(capsys.readouterr().out)["files"]]
    assert [f.name for f in files][:3] == ["report.html", "loss.png", "learning_rate.png"]
    assert {f.read_bytes()[:4] for f in files[1:]} == {b"\x89PNG"}
    assert {f.name for f in (tmp_path / "pictures").iterdir()} == {f.name for f in files[1:]}


def test_pictures_have_the_colours_of_the_page() -> None:
    sheet = (Path(page.__file__).parent / "page.css").read_text()
    light, dark = sheet.split("@media (prefers-color-scheme: dark)")
    for part in (light, dark):
        names = [int(name) for name in re.findall(r"--c(\d+): #", part)]
        assert names == list(range(COLOURS))
    assert tuple(re.findall(r"--c\d+: (#\w{6})", light)) == png.COLOURS
    assert len(set(png.COLOURS)) == COLOURS
    for number in range(COLOURS):
        assert f".c{number} {{ color: var(--c{number}); }}" in sheet


def test_a_chinese_name_is_drawn_where_the_system_has_a_font_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    font_manager = pytest.importorskip("matplotlib.font_manager")
    runs = [write_done(tmp_path / name) for name in ("夜间训练", "白天训练")]
    page = tmp_path / "both.html"
    draw = [*map(str, runs), "--png", str(tmp_path / "pictures"), "--out", str(page)]
    names = ["Comic Neue", "Noto Sans CJK SC", "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "get_font_names", lambda: names)
    assert png.fonts() == ["DejaVu Sans", "Noto Sans CJK SC"]
    names.remove("Noto Sans CJK SC")
    assert main(draw) == 0
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "no installed font has all letters of the names in the pictures"
    ]
    monkeypatch.undo()
    caplog.clear()
    assert main(draw) == 0
    assert bool(caplog.records) == (png.fonts() == ["DejaVu Sans"])


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_done(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"--out .* is a folder; name a file"):
        main([str(run), "--out", str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out .*/file/x\.html cannot be written: "):
        main([str(run), "--out", str(tmp_path / "file" / "x.html")])
    assert minimind(["report", str(tmp_path / "absent")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("minimind report: error: ")
    assert error.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "minimind report runs/my-run" in capsys.readouterr().out


def test_it_starts_without_torch(tmp_path: Path) -> None:
    run = write_done(tmp_path / "mine")
    code = (
        "import sys; from minimind.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib', 'socket'} & sys.modules.keys();"
        "sys.exit(code or ', '.join(heavy) or 0)"
    )
    command = [sys.executable, "-c", code, "report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "")
