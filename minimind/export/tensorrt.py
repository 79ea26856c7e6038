"""TensorRT: an engine built from the ONNX graph, for one kind of GPU.

The build needs an NVIDIA GPU of the kind that the engine is to run on.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minimind.errors import ConfigError, MiniMindError
from minimind.export.onnx import past_names
from minimind.model import MiniMindConfig

FILE = "model.engine"


class Shapes(NamedTuple):
    """The shapes that an input may take: least, the one to be fastest at, most."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = dict[str, Shapes]
"""One optimisation profile: the graph's inputs and their shapes."""


def optimisation_profiles(
    config: MiniMindConfig, kv_cache: bool, max_batch_size: int, max_length: int
) -> list[Profile]:
    """The shapes an engine is built for.

    With the cache there are two profiles, for the two ways in which a text is made: profile 0
    reads a prompt of up to ``max_length`` tokens into an empty cache, profile 1 writes one token
    after up to ``max_length − 1``. Without it there is one. In the middle between 1 and the
    largest lies what the engine is fastest at, for batch and length alike.
    """
    if not kv_cache:
        return [_profile(config, kv_cache, max_batch_size, (1, max_length), past=(0, 0))]
    return [
        _profile(config, kv_cache, max_batch_size, (1, max_length), past=(0, 0)),
        _profile(config, kv_cache, max_batch_size, (1, 1), past=(1, max_length - 1)),
    ]


def _profile(
    config: MiniMindConfig,
    kv_cache: bool,
    max_batch_size: int,
    length: tuple[int, int],
    past: tuple[int, int],
) -> Profile:
    def shapes(make: Callable[[int, int, int], tuple[int, ...]]) -> Shapes:
        corners = zip(*(_three(*span) for span in ((1, max_batch_size), length, past)), strict=True)
        return Shapes(*(make(*corner) for corner in corners))

    profile = {
        "input_ids": shapes(lambda batch, new, old: (batch, new)),
        "attention_mask": shapes(lambda batch, new, old: (batch, old + new)),
        "position_ids": shapes(lambda batch, new, old: (batch, new)),
    }
    heads, head_dim = config.num_key_value_heads, config.head_dim
    for name in past_names(config.num_hidden_layers) if kv_cache else []:
        profile[name] = shapes(lambda batch, new, old: (batch, heads, old, head_dim))
    return profile


def _three(least: int, most: int) -> tuple[int, int, int]:
    return least, (least + most + 1) // 2, most


def trtexec_command(
    program: str, onnx_file: Path, engine_file: Path, profiles: list[Profile]
) -> list[str]:
    """The arguments that have ``trtexec`` build the engine, and not time it."""
    command = [
        program,
        f"--onnx={onnx_file}",
        f"--saveEngine={engine_file}",
        # The graph's own precision; TensorRT 11 knows nothing else.
        "--stronglyTyped",
        "--skipInference",
    ]
    for number, profile in enumerate(profiles):
        command.append(f"--profile={number}")
        for which in Shapes._fields:
            spec = ",".join(
                f"{name}:{'x'.join(map(str, getattr(shapes, which)))}"
                for name, shapes in profile.items()
            )
            command.append(f"--{which}Shapes={spec}")
    return command


def find_builder() -> tuple[str, Any]:
    """What can build an engine here: ``("python", module)`` or ``("trtexec", path)``.

    Raises:
        ConfigError: neither is installed.
    """
    try:
        import tensorrt
    except ImportError:
        program = shutil.which("trtexec")
        if program is None:
            raise ConfigError(
                "--format tensorrt needs TensorRT: 'pip install tensorrt', or trtexec on the PATH, "
                "on a machine with an NVIDIA GPU; --format onnx writes what it builds from"
            ) from None
        return "trtexec", program
    return "python", tensorrt


def build_engine(
    builder: tuple[str, Any], onnx_file: Path, engine_file: Path, profiles: list[Profile]
) -> None:
    """Build the engine with what :func:`find_builder` found.

    Raises:
        MiniMindError: TensorRT refuses; the message repeats its last words.
    """
    kind, tool = builder
    if kind == "python":
        engine_file.write_bytes(_build_in_python(tool, onnx_file, profiles))
        return
    command = trtexec_command(tool, onnx_file, engine_file, profiles)
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode or not engine_file.is_file():
        last = "\n".join(result.stdout.splitlines()[-5:])
        raise MiniMindError(f"trtexec ended with code {result.returncode}:\n{last}")


def _build_in_python(trt: Any, onnx_file: Path, profiles: list[Profile]) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Required by TensorRT 10 for the graph's own precision, accepted and ignored by 11.
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise MiniMindError(f"TensorRT cannot read {onnx_file.name}: {errors}")
    settings = builder.create_builder_config()
    for profile in profiles:
        shapes_of = builder.create_optimization_profile()
        for name, shapes in profile.items():
            shapes_of.set_shape(name, *shapes)
        settings.add_optimization_profile(shapes_of)
    engine = builder.build_serialized_network(network, settings)
    if engine is None:
        raise MiniMindError("TensorRT built no engine; its messages above say why")
    return bytes(engine)
