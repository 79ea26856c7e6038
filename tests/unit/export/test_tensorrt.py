"""TensorRT needs a GPU: here are the shapes, the command line and the calls, not the build."""

from __future__ import annotations

import stat
import sys
from types import ModuleType, SimpleNamespace

import pytest

from minimind.cli.export import main
from minimind.errors import ConfigError, MiniMindError
from minimind.export.tensorrt import (
    Shapes,
    build_engine,
    find_builder,
    optimisation_profiles,
    trtexec_command,
)

from .helpers import make_model, write_checkpoint


@pytest.fixture
def config():
    return make_model(num_hidden_layers=1).config


def test_one_profile_reads_the_prompt_and_one_writes(config):
    prompt, step = optimisation_profiles(config, True, max_batch_size=4, max_length=100)
    cache = ("past_key_values.0.key", "past_key_values.0.value")
    assert prompt == {
        "input_ids": Shapes((1, 1), (3, 51), (4, 100)),
        "attention_mask": Shapes((1, 1), (3, 51), (4, 100)),
        "position_ids": Shapes((1, 1), (3, 51), (4, 100)),
        **dict.fromkeys(cache, Shapes((1, 2, 0, 8), (3, 2, 0, 8), (4, 2, 0, 8))),
    }
    assert step == {
        "input_ids": Shapes((1, 1), (3, 1), (4, 1)),
        "attention_mask": Shapes((1, 2), (3, 51), (4, 100)),
        "position_ids": Shapes((1, 1), (3, 1), (4, 1)),
        **dict.fromkeys(cache, Shapes((1, 2, 1, 8), (3, 2, 50, 8), (4, 2, 99, 8))),
    }


def test_without_a_cache_there_is_one_profile(config):
    (profile,) = optimisation_profiles(config, False, max_batch_size=1, max_length=2)
    assert set(profile) == {"input_ids", "attention_mask", "position_ids"}
    assert profile["input_ids"] == Shapes((1, 1), (1, 2), (1, 2))


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (2, 3), (8, 2048), (5, 7)])
def test_every_corner_is_consistent(config, batch, length):
    """TensorRT adds up shapes at each corner, and refuses a profile where they do not fit."""
    for profile in optimisation_profiles(config, True, batch, length):
        for name, shapes in profile.items():
            for least, best, most in zip(*shapes, strict=True):
                assert least <= best <= most, name
        for which in Shapes._fields:
            rows, new = getattr(profile["input_ids"], which)
            past = getattr(profile["past_key_values.0.key"], which)
            assert getattr(profile["attention_mask"], which) == (rows, past[2] + new)
            assert past[0] == rows
            assert past[2] + new <= length


def test_the_trtexec_command(config, tmp_path):
    profiles = optimisation_profiles(config, True, max_batch_size=4, max_length=100)
    command = trtexec_command("/opt/trtexec", tmp_path / "a b.onnx", tmp_path / "e", profiles)
    assert command == [
        "/opt/trtexec",
        f"--onnx={tmp_path}/a b.onnx",
        f"--saveEngine={tmp_path}/e",
        "--stronglyTyped",
        "--skipInference",
        "--profile=0",
        "--minShapes=input_ids:1x1,attention_mask:1x1,position_ids:1x1,"
        "past_key_values.0.key:1x2x0x8,past_key_values.0.value:1x2x0x8",
        "--optShapes=input_ids:3x51,attention_mask:3x51,position_ids:3x51,"
        "past_key_values.0.key:3x2x0x8,past_key_values.0.value:3x2x0x8",
        "--maxShapes=input_ids:4x100,attention_mask:4x100,position_ids:4x100,"
        "past_key_values.0.key:4x2x0x8,past_key_values.0.value:4x2x0x8",
        "--profile=1",
        "--minShapes=input_ids:1x1,attention_mask:1x2,position_ids:1x1,"
        "past_key_values.0.key:1x2x1x8,past_key_values.0.value:1x2x1x8",
        "--optShapes=input_ids:3x1,attention_mask:3x51,position_ids:3x1,"
        "past_key_values.0.key:3x2x50x8,past_key_values.0.value:3x2x50x8",
        "--maxShapes=input_ids:4x1,attention_mask:4x100,position_ids:4x1,"
        "past_key_values.0.key:4x2x99x8,past_key_values.0.value:4x2x99x8",
    ]


def program(tmp_path, script):
    """A stand-in for trtexec, on the PATH."""
    file = tmp_path / "trtexec"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_trtexec_is_run_where_there_is_no_python_api(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = program(
        tmp_path, 'for word; do echo "$word" >> "$0.log"; done; : > "${2#--saveEngine=}"'
    )
    builder = find_builder()
    assert builder == ("trtexec", path)
    profiles = optimisation_profiles(config, False, 1, 8)
    onnx_file, engine = tmp_path / "m.onnx", tmp_path / "m.engine"
    build_engine(builder, onnx_file, engine, profiles)
    ran = (tmp_path / "trtexec.log").read_text().splitlines()
    assert ran == trtexec_command(path, onnx_file, engine, profiles)[1:]
    failing = program(tmp_path, "echo the GPU is on fire; exit 3")
    with pytest.raises(MiniMindError, match=r"(?s)code 3.*the GPU is on fire"):
        build_engine(("trtexec", failing), onnx_file, engine, profiles)


class FakeTensorRT(ModuleType):
    """Records what is asked of TensorRT's Python API, as NVIDIA documents it."""

    WARNING = 2

    def __init__(self, readable=True, engine=b"engine"):
        super().__init__("tensorrt")
        self.calls = []
        self.readable, self.engine = readable, engine
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.Builder = lambda logger: self
        self.OnnxParser = lambda network, logger: self
        self.num_errors = 1

    def create_network(self, flags):
        self.calls.append(("network", flags))
        return "network"

    def parse_from_file(self, file):
        self.calls.append(("parse", file))
        return self.readable

    def get_error(self, index):
        return f"error {index}"

    def create_builder_config(self):
        return SimpleNamespace(add_optimization_profile=lambda p: self.calls.append(("profile", p)))

    def create_optimization_profile(self):
        shapes = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, *three: shapes.update({name: three})
        )

    def build_serialized_network(self, network, settings):
        return self.engine


def test_the_python_api_is_given_every_profile(config, tmp_path, monkeypatch):
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    profiles = optimisation_profiles(config, True, 4, 100)
    build_engine(find_builder(), tmp_path / "m.onnx", tmp_path / "m.engine", profiles)
    assert (tmp_path / "m.engine").read_bytes() == b"engine"
    assert fake.calls[:2] == [("network", 2), ("parse", str(tmp_path / "m.onnx"))]
    given = [call.shapes for _, call in fake.calls[2:]]
    assert given == [{name: tuple(shapes) for name, shapes in p.items()} for p in profiles]


@pytest.mark.parametrize(
    ("fake", "complaint"),
    [
        (FakeTensorRT(readable=False), "cannot read m.onnx: error 0"),
        (FakeTensorRT(engine=None), "no engine"),
    ],
)
def test_what_tensorrt_refuses_is_said(fake, complaint, config, tmp_path):
    with pytest.raises(MiniMindError, match=complaint):
        build_engine(("python", fake), tmp_path / "m.onnx", tmp_path / "m.engine", [])


def test_without_tensorrt_the_command_says_what_is_missing(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    with pytest.raises(ConfigError, match=r"pip install tensorrt.*trtexec.*--format onnx"):
        main(["--weight", str(checkpoint), "--format", "tensorrt", "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
