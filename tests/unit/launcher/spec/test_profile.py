from __future__ import annotations

from pathlib import Path

import pytest

from launcher.spec import profile
from minimind.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[4]


def load(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "p.toml"
    path.write_text(text)
    return profile.load_profile(path)


def test_good_profile(tmp_path: Path) -> None:
    text = 'partition = "low"\ntime = 90\nmounts = ["/a:/b"]\n[env]\nA = "1"\n'
    assert load(tmp_path, text) == {
        "partition": "low",
        "time": 90,
        "mounts": ["/a:/b"],
        "env": {"A": "1"},
    }


@pytest.mark.parametrize(
    "text, said",
    [
        ('partitoin = "low"', "did you mean 'partition'"),
        ('gpus = "8"', "gpus has the wrong type"),
        ("gpus = true", "gpus has the wrong type"),
        ("mounts = [1]", "list of strings"),
        ("[env]\nA = 1", "env.A must be a string"),
        ("gpus = ", "not valid TOML"),
        ('device = "tpu"', "p.toml: device 'tpu': choose nvidia, amd, ascend"),
        ('[device_options]\ngress = "npu"', "device_options.gress'; did you mean 'gres'"),
    ],
)
def test_bad_profile(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, text)


def test_missing_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        profile.load_profile(tmp_path / "none.toml")


def test_user_default_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert profile.load_profile(None) == {}
    profile.user_default().parent.mkdir(parents=True)
    profile.user_default().write_text('partition = "mine"')
    assert profile.load_profile(None) == {"partition": "mine"}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "slurm/profiles").glob("*.toml")), ids=str)
def test_example_profiles_are_valid(path: Path) -> None:
    assert profile.load_profile(path)


def test_there_are_examples() -> None:
    names = {path.stem for path in (REPOSITORY / "slurm/profiles").glob("*.toml")}
    assert names >= {"plain", "pyxis", "apptainer", "devcluster", "amd", "ascend"}
