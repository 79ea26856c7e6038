"""What the server of test processes has done before it forks any: imports, and the peak's measure.

Each forked command or run would else do it again. It starts no thread, which a fork would not copy.
"""

from __future__ import annotations

import importlib

import torch

from minimind.telemetry.flops import peak_flops

LOADED_LATE = (
    # by the launcher's commands
    "launcher.cli.main",
    "launcher.cli.output",
    "launcher.inspect.control",
    "launcher.inspect.explain",
    "launcher.inspect.logs",
    "launcher.submit.submission",
    "pydantic.json_schema",  # by typer, where there is one
    "pydantic.types",
    "rich.table",
    "tests.integration.launcher.forked",
    # by a run
    "minimind.distributed.local_ranks",
    "minimind.train_pretrain",
    "minimind.training.pretrain",
    "numpy.ma",
    "numpy.random",
    "pytest",  # by a test's module, where a run calls a function of it
    "tests.runs",
    "tokenizers.decoders",
    "tomli_w",
    "torch._dynamo",  # by DistributedDataParallel, whether it compiles or not
    "torch.utils.serialization.config",
)
"""Of what a command or a run loads."""

for name in LOADED_LATE:
    importlib.import_module(name)

torch.set_num_threads(1)
peak_flops("cpu", torch.float32)
