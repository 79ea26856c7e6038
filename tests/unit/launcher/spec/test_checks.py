from __future__ import annotations

from pathlib import Path

import pytest

from launcher.spec.checks import check_writable, parse_env, parse_time
from minimind.errors import ConfigError


@pytest.mark.parametrize(
    "text, minutes",
    [
        ("90", 90),
        ("1:30", 2),
        ("2:00:00", 120),
        ("0:00:01", 1),
        ("1-0", 1440),
        ("1-2:30", 1590),
        ("1-00:00:01", 1441),
    ],
)
def test_time_formats(text: str, minutes: int) -> None:
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "1:2:3:4", "1h", "0:00:00"])
def test_bad_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--time"):
        parse_time(text)


def test_parse_env() -> None:
    assert parse_env(["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_env(["A"])


def test_unwritable_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        check_writable(tmp_path / "file" / "run")
