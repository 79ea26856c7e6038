"""Flags, configuration files, profiles and grids: read, or refused in one line."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import example
from hypothesis import strategies as st

from launcher.slurm.sbatch import batch_script
from launcher.spec.job_spec import JobSpec
from launcher.spec.profile import KEYS, load_profile
from launcher.submit.resolve import build_spec
from launcher.submit.sweep import points, read_grid
from minimind.config import TrainConfig, parse_args, read_config_file, write_config_file
from minimind.errors import ConfigError
from tests.fuzz.damage import NASTY_TEXTS, damaged_bytes, damaged_value, fuzz, in_one_line

FLAGS = [f.name for f in dataclasses.fields(TrainConfig)]
CONFIG = {k: v for k, v in TrainConfig().to_dict().items() if v is not None}
PROFILE: dict[str, Any] = {
    "cluster": "slurm",
    "nodes": 2,
    "gpus": 4,
    "partition": "low",
    "time": "1:00:00",
    "mem": "64G",
    "cpus_per_gpu": 2,
    "mounts": ["/a:/b:ro"],
    "env": {"A": "b"},
    "secret_env": ["TOKEN"],
    "setup": ["module load x"],
    "sbatch": {"exclusive": True},
    "max_restarts": 3,
    "hang_timeout": 600,
    "python": "python3",
}
GRID = {"learning_rate": [1e-3, 5e-4], "batch_size": [2, 4]}

toml_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.datetimes(),
    st.text(max_size=20),
    st.sampled_from([text for text in NASTY_TEXTS if text.isascii() or text.isprintable()]),
)
toml_values = st.recursive(
    toml_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def toml(value: Any) -> bytes:
    """TOML text; what TOML has no word for becomes bytes that are none."""
    try:
        return tomli_w.dumps(value).encode()
    except (TypeError, ValueError, AttributeError):
        return b"\xff"


def damaged_toml(value: dict[str, Any]) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged_bytes(toml(value)), damaged_value(value, toml_values).map(toml))


@fuzz(data=damaged_toml(CONFIG))
@example(data=b"epochs = " + b"9" * 5000)
@example(data=b"epochs = 0x" + b"f" * 5000)
@example(data=b"data_path = " + b"[" * 50_000)
def test_config_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "c.toml")
        path.write_bytes(data)
        try:
            config = parse_args(["--config", str(path)])
        except ConfigError as error:
            in_one_line(error)
            return
        # What was accepted can be written and read back: a run does both.
        write_config_file(config, path)
        assert TrainConfig(**read_config_file(path)) == config


WORDS = st.one_of(
    st.sampled_from([f"--{name}" for name in FLAGS]),
    st.sampled_from(NASTY_TEXTS),
    st.sampled_from(["1", "0", "0.5", "1e99", "cuda:99999999999", "--", "-1", "=", "٣"]),
    st.text(max_size=8),
)


@fuzz(words=st.lists(WORDS, max_size=6), value=st.sampled_from(NASTY_TEXTS))
def test_flags(words: list[str], value: str) -> None:
    for argv in (words, [f"--{FLAGS[len(words)]}", value]):
        if {"-h", "--help"} & set(argv):
            continue
        try:
            parse_args(argv)
        except ConfigError as error:
            in_one_line(error)


@fuzz(data=damaged_toml(PROFILE))
@example(data=b"sbatch = {x = 1979-05-27}")
@example(data=b'sbatch = {"x\\n#SBATCH --uid" = "0"}')
@example(data=b"nodes = " + b"9" * 5000)
def test_profiles(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "profile.toml")
        path.write_bytes(data)
        try:
            profile = load_profile(path)
            assert profile.keys() <= KEYS.keys()
            options = {"name": "fuzz", "runs_dir": name}
            spec = build_spec(options, [], profile, cluster="slurm", site=None)
        except ConfigError as error:
            in_one_line(error)
            return
        assert JobSpec.from_json(spec.to_json()) == spec
        directives = [x for x in batch_script(spec).split("\n") if x.startswith("#SBATCH")]
        assert all(line.isprintable() for line in directives)


@fuzz(data=damaged_toml(GRID))
def test_grids(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "grid.toml")
        path.write_bytes(data)
        try:
            assert points(read_grid(path))
        except ConfigError as error:
            in_one_line(error)
