import math
import subprocess
import sys

import pytest

from minimind.charts.loss_curve import plot_loss_curve
from minimind.system.jsonl import JsonLog

Image = pytest.importorskip("PIL.Image")

TRAIN_BLUE, EVAL_RED, RATE_GREEN = (31, 119, 180), (214, 39, 40), (44, 160, 44)


def colours(path, box=None):
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = image.convert("RGB").crop(box or (0, 0, *image.size))
        return {colour: count for count, colour in pixels.getcolors(1 << 24)}


def write(path, *records):
    log = JsonLog(path)
    for record in records:
        log.write(record)
    log.close()


def train_point(step, loss):
    return {"epoch": 1, "step": step, "global_step": step, "loss": loss, "learning_rate": 1e-4}


def test_the_three_curves_are_drawn(tmp_path):
    metrics, png = tmp_path / "metrics.jsonl", tmp_path / "new" / "loss.png"
    write(
        metrics,
        *[train_point(s, 9 / s) for s in range(1, 50)],
        *[{"epoch": 1, "step": s, "global_step": s, "eval_loss": 10 / s} for s in (20, 40)],
        {"event": "resumed", "global_step": 49},
        train_point(50, math.nan),
    )
    plot_loss_curve(metrics, png)
    found = colours(png)
    for colour in (TRAIN_BLUE, EVAL_RED, RATE_GREEN):
        assert found.get(colour, 0) > 50
    assert [p.name for p in png.parent.iterdir()] == ["loss.png"]


def test_a_single_point_is_visible(tmp_path):
    metrics, png = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    write(metrics, train_point(1, 8.7))
    plot_loss_curve(metrics, png)
    without_legend = (100, 150, 1080, 500)
    assert colours(png, without_legend).get(TRAIN_BLUE, 0) > 10
    assert EVAL_RED not in colours(png)


@pytest.mark.parametrize("text", [None, "", '{"event": "started"}\n', '{"torn'])
def test_no_points_give_an_empty_chart(tmp_path, text):
    metrics, png = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    if text is not None:
        metrics.write_text(text)
    plot_loss_curve(metrics, png)
    assert TRAIN_BLUE not in colours(png)


def test_a_failure_leaves_the_old_picture(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    metrics, png = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    write(metrics, train_point(1, 2.0))
    png.write_bytes(b"old")

    def half_written(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", half_written)
    with pytest.raises(OSError, match="No space"):
        plot_loss_curve(metrics, png)
    assert png.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, minimind.charts.loss_curve; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
