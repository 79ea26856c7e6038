from __future__ import annotations

from pathlib import Path

import pytest

from launcher.slurm import array_indices
from launcher.sweep import parse_vary, points, read_grid
from minimind.errors import ConfigError


def test_every_combination_in_order() -> None:
    grid = parse_vary(["learning-rate=1e-3,5e-4", "--epochs=1,2"])
    assert points(grid) == [
        {"learning_rate": rate, "epochs": epochs}
        for rate in ("1e-3", "5e-4")
        for epochs in ("1", "2")
    ]


@pytest.mark.parametrize("entry", ["epochs", "=1", "epochs="])
def test_bad_vary(entry: str) -> None:
    with pytest.raises(ConfigError, match="FLAG=VALUE"):
        parse_vary([entry])


def test_grid_file(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('learning_rate = [1e-3, 0.5]\nsave_weight = ["a"]\n')
    assert read_grid(path) == {"learning_rate": ["0.001", "0.5"], "save_weight": ["a"]}
    path.write_text("epochs = 3\n")
    with pytest.raises(ConfigError, match="epochs must be a list"):
        read_grid(path)


def test_empty_and_enormous_grids_are_refused() -> None:
    with pytest.raises(ConfigError, match="--vary"):
        points({})
    with pytest.raises(ConfigError, match="10000 points"):
        points({name: [str(i) for i in range(10)] for name in "abcd"})


@pytest.mark.parametrize(
    "text, expected",
    [("0-2,5%4", [0, 1, 2, 5]), ("7", [7]), ("0-6:3", [0, 3, 6]), ("N/A", []), ("", [])],
)
def test_array_indices(text: str, expected: list[int]) -> None:
    assert array_indices(text) == expected
