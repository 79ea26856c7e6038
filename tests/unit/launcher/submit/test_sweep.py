from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.slurm.parse import array_indices
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.submit.sweep import parse_vary, point_specs, points, read_grid
from minimind.config import parse_args, write_config_file
from minimind.errors import ConfigError
from minimind.rundir.layout import label


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


@pytest.mark.parametrize("flag", ["save_dir", "checkpoint_dir"])
def test_points_do_not_share_a_folder(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    command = ["sweep", "--name", "sw", "--cluster", "local", "--vary", "learning_rate=1e-3,5e-4"]
    assert main([*command, "--", f"--{flag}", "mine"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"--{flag} {tmp_path / 'mine'}" in said
    assert "2 points" in said
    (tmp_path / "mine.toml").write_text(f'{flag} = "mine"\n')
    assert main([*command, "--", "--config", "mine.toml"]) == 2
    assert not (tmp_path / "runs").exists()


def test_points_may_name_a_folder_each(make_spec: Callable[..., JobSpec]) -> None:
    specs = point_specs(make_spec(), [], {"save_dir": ["/a", "/b"]})
    assert [spec.save_dir for spec in specs] == ["/a", "/b"]
    (one,) = point_specs(make_spec(), ["--save_dir", "/a"], {"epochs": ["1"]})
    assert one.save_dir == "/a"


def test_config_of_a_run_is_swept_in_folders_of_their_own(
    tmp_path: Path, make_spec: Callable[..., JobSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    (old,) = point_specs(make_spec(run_dir=str(tmp_path / "old")), [], {"epochs": ["3"]})
    (tmp_path / "old" / "0" / "attempts").mkdir(parents=True)
    (tmp_path / "old" / "0" / "spec.json").write_text(old.to_json())
    file = tmp_path / "config.toml"
    write_config_file(parse_args(old.train_args), file)
    spec = make_spec(run_dir=str(tmp_path / "new"))
    specs = point_specs(spec, ["--config", str(file)], {"learning_rate": ["1e-3", "5e-4"]})
    assert [point.save_dir for point in specs] == [str(tmp_path / f"new/{i}/out") for i in (0, 1)]
    assert [parse_args(point.train_args).epochs for point in specs] == [3, 3]
    # The sweep's own spec has said it once.
    assert capsys.readouterr().err == ""


def test_a_point_says_what_sets_it_apart(tmp_path: Path) -> None:
    point = RunFolder(tmp_path / "grid" / "1")
    point.root.mkdir(parents=True)
    assert point.varied() == {}
    flags = [{"learning_rate": "1e-3"}, {"learning_rate": "5e-4"}]
    found = [{"run_dir": str(tmp_path / "grid" / str(i)), "flags": f} for i, f in enumerate(flags)]
    (tmp_path / "grid" / "sweep.json").write_text(json.dumps(found))
    assert point.varied() == {"learning_rate": "5e-4"}
    assert label(point.name, point.varied()) == "grid/1 learning_rate=5e-4"
    (tmp_path / "grid" / "sweep.json").write_text('[{"run_dir": 7}]')
    assert point.varied() == {}
