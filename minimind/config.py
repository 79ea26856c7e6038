"""Every flag of a pretraining run, once: its name, default, help and range.

The same table makes the command line, the TOML file and the library call. It imports
no torch, so that a launcher can validate a job's flags on a login node.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minimind.errors import ConfigError
from minimind.rundir.data_path import parse_sources
from minimind.rundir.layout import OutputPaths, checkpoint_file, stem_of
from minimind.system.command_line import Parser
from minimind.system.durable import write_text_durably
from minimind.system.text import is_utf8
from minimind.system.toml import read_toml

Check = tuple[Callable[[Any], bool], str]

AUTO = -1
"""What ``--batch_size auto`` is in a :class:`TrainConfig`, until the run has found a number."""
DEFAULT_BATCH_SIZE = 32
LEARNING_RATES = {"adamw": 5e-4, "muon": 5e-3}
"""What an optimiser takes where ``--learning_rate`` names none; docs/performance.md compares."""

RECIPES: dict[str, dict[str, Any]] = {
    "minimind": {"optimizer": "adamw", "warmup_ratio": 0.01},
    "fast": {"optimizer": "muon", "warmup_ratio": 0.05},
}
"""What ``--recipe`` makes of flags that nobody sets; docs/performance.md compares.

All recipes name the same flags, whose default is None. ``--learning_rate`` follows the optimiser.
"""


def _words(flags: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in flags.items())


FLEX_HEAD_SIZE = 16
"""Smallest head that flex_attention's kernels take."""

LARGEST = 2**31 - 1
"""No flag means more; larger numbers would only overflow somewhere later."""

POSITIVE: Check = (lambda v: v > 0, "must be greater than 0")
POSITIVE_OR_AUTO: Check = (lambda v: v > 0 or v == AUTO, "must be greater than 0, or auto")
NOT_NEGATIVE: Check = (lambda v: v >= 0, "must be 0 or more")
FRACTION: Check = (lambda v: 0 <= v < 1, "must be at least 0 and below 1")
UNIT: Check = (lambda v: 0 <= v <= 1, "must be between 0 and 1")
DEVICE: Check = (
    lambda v: not v or re.fullmatch(r"(?!cpu:)[a-z][a-z0-9_]*(:[0-9]{1,4})?", v) is not None,
    "must be a device as torch names it, such as cpu, cuda, cuda:1, mps, xpu or npu",
)
DEVICE_HELP = "cpu, cuda, cuda:N, mps, xpu, npu …, as torch names it (default: an accelerator if there is one)"
LONGEST_NAME = 150
"""Bytes of ``--save_weight``. A file system takes 255, and size, step and a temporary file's
host and process are added."""

FILE_NAME: Check = (
    lambda v: (
        0 < len(v.encode()) <= LONGEST_NAME
        and not any(c in v for c in "/\\\0\n")
        and v not in (".", "..")
    ),
    f"must be a plain file name, without slashes and of at most {LONGEST_NAME} bytes",
)
UPSTREAMS = {
    "use_compile": "--compile on (off, or auto, the default)",
    "out_dir": "--save_dir",
    "dim": "--hidden_size",
    "n_layers": "--num_hidden_layers",
    "warmup_iters": "--warmup_ratio, a share of the steps,",
    "ddp": "--procs N",
    "local_rank": "--procs N",
}
"""Flags of upstream MiniMind's train_pretrain.py, of today and before → ours."""

SWANLAB_PROJECT = re.compile(r"[0-9a-zA-Z_\-+.]{1,100}")
"""What SwanLab takes for a project's name, in every mode."""

TRACKERS = ("swanlab", "tensorboard")
TRACKER: Check = (
    lambda v: all(name.strip() in TRACKERS for name in v.split(",")) or not v,
    f"must be {', '.join(TRACKERS)}, or several of them with commas",
)


def option(default: Any, group: str, help: str, check: Check | None = None) -> Any:
    """A dataclass field that is also a flag; a mutable default is copied for every config."""
    metadata = {"group": group, "help": help, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """One pretraining run. Every field is a flag of the same name.

    Raises:
        ConfigError: a value is out of its range, or two values contradict each other.
    """

    save_dir: str = option("out", "output", "folder for weights, metrics, log and loss curve")
    save_weight: str = option(
        "pretrain", "output", "file name prefix of weights and checkpoint", FILE_NAME
    )
    checkpoint_dir: str = option("checkpoints", "output", "folder for checkpoints (exact resume)")
    save_interval: int = option(
        100, "output", "save weights and checkpoint every N micro-steps", POSITIVE
    )
    keep_checkpoints: int = option(
        2,
        "output",
        "how many checkpoints to keep; older ones are the fallback for a damaged newest",
        POSITIVE,
    )
    log_interval: int = option(100, "output", "log every N micro-steps", POSITIVE)
    log_level: Literal["debug", "info", "warning", "error"] = option(
        "info", "output", "detail of the console log; the log file has everything"
    )

    data_path: list[str] = option(
        ["data/sample/train.jsonl"],
        "data",
        "training text: files (jsonl, JSON, Parquet, Arrow, csv, txt; compressed or not), folders, globs, data sets in the hub's cache; with weights a mix: zh.jsonl:0.7 en.jsonl:0.3",
    )
    text_field: str = option(
        "text", "data", "the field that holds the text; a.b: the field b inside of a"
    )
    render_chat: bool = option(
        False,
        "data",
        "the field holds conversations (lists of messages): train on what the tokenizer's chat template makes of them",
    )
    tokenizer_path: str = option(
        "", "data", "a Hugging Face tokenizer folder (default: the tokenizer shipped with MiniMind)"
    )
    bos_token: str = option(
        "", "data", "token that begins each document (default: the one that the tokenizer names)"
    )
    eos_token: str = option(
        "", "data", "token that ends each document (default: the one that the tokenizer names)"
    )
    max_seq_len: int = option(
        512,
        "data",
        "row length in tokens",
        (lambda v: 8 <= v <= 1 << 20, "must be from 8 to 1048576"),
    )
    pack: Literal["bestfit", "none"] = option(
        "bestfit",
        "data",
        "bestfit: documents share rows, no padding, no attention across them; none: one document a row, truncated and padded",
    )
    num_workers: int = option(
        1,
        "data",
        "loader processes per rank, bounded by the cores; 0: load in the training process",
        NOT_NEGATIVE,
    )
    cache_dir: str = option(
        "",
        "data",
        "folder for tokenised data (default: $MINIMIND_CACHE or the user's cache folder); share it between nodes",
    )
    max_bad_rows: int = option(
        -1,
        "data",
        "stop with exit code 2 when more rows than this are unusable (-1: only report them)",
        (lambda v: v >= -1, "must be -1 or more"),
    )
    eval_data_path: list[str] = option(
        [], "data", "held-out text, scored every --eval_interval and at the end"
    )
    eval_interval: int = option(1000, "data", "score held-out text every N micro-steps", POSITIVE)

    hidden_size: int = option(512, "model", "width of the model", POSITIVE)
    num_hidden_layers: int = option(8, "model", "number of layers", POSITIVE)
    num_attention_heads: int = option(8, "model", "query heads", POSITIVE)
    num_key_value_heads: int = option(
        4, "model", "key/value heads (grouped-query attention)", POSITIVE
    )
    use_moe: Literal[0, 1] = option(0, "model", "1: mixture of experts")
    num_experts: int = option(4, "model", "experts per layer (MoE)", POSITIVE)
    num_experts_per_tok: int = option(1, "model", "experts that each token visits (MoE)", POSITIVE)
    gradient_checkpointing: bool = option(
        False, "model", "recompute activations in the backward pass: less memory, more time"
    )
    from_weight: str = option(
        "none",
        "model",
        "start from these weights: a name in save_dir, a .pth, .pt, .gguf or .onnx file, or a model folder",
    )

    allow_other_tokenizer: bool = option(
        False,
        "model",
        "start from weights although they were trained with another tokenizer",
    )

    epochs: int = option(1, "optimisation", "passes over the data", POSITIVE)
    batch_size: int = option(
        DEFAULT_BATCH_SIZE,
        "optimisation",
        "rows per rank and micro-step; auto: as many as fit a GPU or run fastest on a CPU, with accumulation_steps lowered or raised so that an update keeps its rows",
        POSITIVE_OR_AUTO,
    )
    accumulation_steps: int = option(8, "optimisation", "micro-steps per optimiser step", POSITIVE)
    recipe: Literal["minimind", "fast"] = option(
        "minimind",
        "optimisation",
        f"values for flags that nothing else sets; fast, to learn most from a token: {_words(RECIPES['fast'])}; minimind: the defaults of this table",
    )
    optimizer: Literal["adamw", "muon"] = option(
        None,
        "optimisation",
        "muon: Muon for the matrices of the layers, AdamW for the rest; learns most from a token",
    )
    learning_rate: float = option(
        None,
        "optimisation",
        f"peak learning rate; {LEARNING_RATES['muon']} unless given with --optimizer muon",
        POSITIVE,
    )
    min_lr_ratio: float = option(
        0.1, "optimisation", "floor of the cosine schedule, as a share of the peak", UNIT
    )
    warmup_ratio: float = option(
        None, "optimisation", "share of the optimiser steps that warm the rate up", FRACTION
    )
    weight_decay: float = option(
        0.1, "optimisation", "weight decay, on matrices only", NOT_NEGATIVE
    )
    beta1: float = option(0.9, "optimisation", "AdamW's decay rate of the first moment", FRACTION)
    beta2: float = option(0.95, "optimisation", "AdamW's decay rate of the second moment", FRACTION)
    grad_clip: float = option(
        1.0, "optimisation", "largest norm of the gradient (0: no clipping)", NOT_NEGATIVE
    )
    skip_nonfinite: int = option(
        0,
        "optimisation",
        "skip up to N optimiser steps whose loss or gradient is NaN or infinite (0: stop at the first)",
        NOT_NEGATIVE,
    )
    seed: int = option(
        42,
        "optimisation",
        "seed of the weights and of the data order",
        (lambda v: 0 <= v < 2**31, "must be between 0 and 2147483647"),
    )

    device: str = option("", "machine", DEVICE_HELP, DEVICE)
    dtype: Literal["bfloat16", "float16", "float32"] = option(
        "bfloat16",
        "machine",
        "autocast precision; weights and optimiser stay in float32 (and so does all on a CPU without bfloat16; a GPU without it takes float16)",
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto",
        "machine",
        "torch.compile; auto: where it is a gain (on a GPU, and on a CPU for runs of some minutes)",
    )
    attention: Literal["auto", "sdpa", "eager", "blockwise", "flex_attention"] = option(
        "auto",
        "machine",
        "attention by torch's fused kernel, by matrix products (eager; blockwise: without most of what a causal mask hides) or by compiled blocks (flex_attention, on a GPU only); auto: compiled on a GPU flex_attention for rows from 512 tokens, compiled in bfloat16 on a CPU blockwise for rows up to 1024 tokens, else sdpa",
    )
    deterministic: bool = option(
        False,
        "machine",
        "deterministic CUDA kernels, for bitwise resume on GPUs (a CPU run always is)",
    )

    from_resume: Literal["0", "1", "auto"] = option(
        "0",
        "run",
        "1: go on from the newest checkpoint, or start when there is none (auto: the same, without a warning)",
    )
    max_steps: int = option(
        0, "run", "end after N optimiser steps in all (0: after the epochs)", NOT_NEGATIVE
    )
    max_minutes: float = option(
        0.0, "run", "end in good order after N minutes of this process (0: no limit)", NOT_NEGATIVE
    )
    record_rows: bool = option(
        False, "run", "write the row ids of every micro-step to save_dir/rows.rank{R}.jsonl (audit)"
    )
    tracker: str = option(
        "",
        "run",
        "track the run: swanlab, tensorboard (event files in save_dir/tensorboard), or both with a comma",
        TRACKER,
    )
    use_wandb: bool = option(
        False, "run", "the same as --tracker swanlab (online with an API key, else offline)"
    )
    wandb_project: str = option("MiniMind-Pretrain", "run", "SwanLab project")
    profile: int = option(
        0,
        "run",
        "trace N micro-steps near the start into save_dir/profile, and print where their time goes",
        NOT_NEGATIVE,
    )
    sample_interval: int = option(
        0,
        "run",
        "let the model continue a few texts every N micro-steps, into save_dir/samples.jsonl (0: never)",
        NOT_NEGATIVE,
    )
    sample_prompts: str = option(
        "",
        "run",
        "file of texts to continue, one a line or jsonl (default: four short ones of our own)",
    )

    def __post_init__(self) -> None:
        hints = _hints()
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "batch_size" and value == "auto":
                value = AUTO
            if value is None:
                value = self._by_recipe(f.name)
            value = coerce(f.name, hints[f.name], value)
            object.__setattr__(self, f.name, value)
            check: Check | None = f.metadata["check"]
            if check is not None and not check[0](value):
                raise ConfigError(f"--{f.name} {check[1]}, but is {value!r}")
        self._check_together()

    def _by_recipe(self, name: str) -> Any:
        """What a flag is that nobody has set; the flags that decide it come before it."""
        if name == "learning_rate":
            return LEARNING_RATES[self.optimizer]
        return RECIPES[self.recipe][name]

    @property
    def beside_recipe(self) -> dict[str, tuple[Any, Any]]:
        """Flags that were set to something else than the recipe's: name → (set, recipe's)."""
        recipe = RECIPES[self.recipe]
        whole = {**recipe, "learning_rate": LEARNING_RATES[recipe["optimizer"]]}
        return {
            name: (getattr(self, name), value)
            for name, value in whole.items()
            if getattr(self, name) != value
        }

    def _check_together(self) -> None:
        """Rules that concern more than one flag."""
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"--hidden_size {self.hidden_size} must be a multiple of "
                f"--num_attention_heads {self.num_attention_heads}"
            )
        if self.head_size % 2:
            raise ConfigError(
                f"--hidden_size {self.hidden_size} over --num_attention_heads "
                f"{self.num_attention_heads} must be even (rotary embedding)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"--num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"--num_key_value_heads {self.num_key_value_heads}"
            )
        if self.attention == "flex_attention" and self.head_size < FLEX_HEAD_SIZE:
            raise ConfigError(
                f"--attention flex_attention needs heads of {FLEX_HEAD_SIZE} or more, but "
                f"--hidden_size {self.hidden_size} over --num_attention_heads "
                f"{self.num_attention_heads} makes them {self.head_size}"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                f"--num_experts_per_tok {self.num_experts_per_tok} exceeds "
                f"--num_experts {self.num_experts}"
            )
        if self.use_moe and self.hidden_size % 8:
            raise ConfigError(
                f"--hidden_size {self.hidden_size} must be a multiple of 8 with --use_moe 1 "
                "(alignment of the grouped matrix product)"
            )
        if self.device == "cpu" and self.dtype == "float16":
            raise ConfigError("--dtype float16 needs a GPU; use bfloat16 or float32 on a CPU")
        if not self.data_path:
            raise ConfigError("--data_path names no file")
        parse_sources(self.data_path)
        if parse_sources(self.eval_data_path) is not None:
            raise ConfigError("--eval_data_path takes no weights: all of it is scored once")
        if "swanlab" in self.trackers and not SWANLAB_PROJECT.fullmatch(self.wandb_project):
            raise ConfigError(
                f"--wandb_project {self.wandb_project!r}: SwanLab takes 1 to 100 of 0-9, a-z, A-Z, "
                "_, -, + and ."
            )
        if self.sample_prompts and not self.sample_interval:
            raise ConfigError("--sample_prompts needs --sample_interval N: when to sample")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def run_stem(self) -> str:
        """File name stem of weights and checkpoint: ``{save_weight}_{hidden_size}[_moe]``."""
        return stem_of(self.save_weight, self.hidden_size, self.use_moe)

    @property
    def weight_file(self) -> Path:
        return OutputPaths(self.save_dir).weight_file(self.run_stem)

    @property
    def checkpoint_file(self) -> Path:
        return checkpoint_file(self.checkpoint_dir, self.run_stem)

    @property
    def trackers(self) -> list[str]:
        """The trackers that were asked for, SwanLab first; --use_wandb means SwanLab."""
        asked = {name.strip() for name in self.tracker.split(",")}
        if self.use_wandb:
            asked.add("swanlab")
        return [name for name in TRACKERS if name in asked]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@functools.cache
def _hints() -> dict[str, Any]:
    # A sweep makes thousands of configs, and working the types out is most of each.
    return typing.get_type_hints(TrainConfig)


def coerce(name: str, hint: Any, value: Any) -> Any:
    """Return ``value`` as the type that the flag has.

    Raises:
        ConfigError: the value does not have that type, naming what is allowed.
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"--{name} must be at most {LARGEST}")
    origin = typing.get_origin(hint)
    if origin is list:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
            raise ConfigError(f"--{name} must be a list of strings, but is {value!r}")
        for item in items:
            _check_text(name, item)
        return list(items)
    if origin is Literal:
        allowed = typing.get_args(hint)
        for choice in allowed:
            if value == choice or str(value) == str(choice):
                return choice
        raise ConfigError(f"--{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
    if hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"--{name} must be true or false, but is {value!r}")
        return value
    if isinstance(value, bool):
        raise ConfigError(f"--{name} must be a {hint.__name__}, but is {value!r}")
    if hint is float and isinstance(value, (int, str)):
        value = _number(name, float, value)
    elif hint is int and isinstance(value, str):
        value = _number(name, int, value)
        if abs(value) > LARGEST:
            raise ConfigError(f"--{name} must be at most {LARGEST}")
    if not isinstance(value, hint):
        raise ConfigError(f"--{name} must be a {hint.__name__}, but is {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"--{name} must be a finite number, but is {value!r}")
    if isinstance(value, str):
        _check_text(name, value)
    return value


def _check_text(name: str, value: str) -> None:
    """Refuse what no file name can hold, and what no log or JSON file could name."""
    if "\0" in value:
        raise ConfigError(f"--{name} must not contain a NUL byte")
    if not is_utf8(value):
        raise ConfigError(f"--{name} {value!r} is not valid UTF-8: rename the file")


def _number(name: str, kind: type, value: Any) -> Any:
    try:
        return kind(value)
    except (ValueError, OverflowError):
        word = "a whole number" if kind is int else "a number"
        raise ConfigError(f"--{name} must be {word}, but is {value!r}") from None


@functools.cache
def build_parser() -> Parser:
    """The command line of ``minimind pretrain``; absent flags stay out of the namespace."""
    parser = Parser(
        prog="minimind pretrain",
        description="Pretrain a MiniMind language model.",
        epilog="Example: minimind pretrain --data_path data/sample/train.jsonl --batch_size 16",
        argument_default=argparse.SUPPRESS,
    )
    parser.elsewhere = UPSTREAMS
    parser.add_argument(
        "--config", metavar="FILE.toml", help="read flags from a TOML file; the command line wins"
    )
    _add_procs(parser)
    groups: dict[str, Any] = {}
    defaults = TrainConfig()
    hints = _hints()
    for f in dataclasses.fields(TrainConfig):
        title = f.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group = groups[title]
        hint = hints[f.name]
        flag = f"--{f.name}"
        text = f.metadata["help"].replace("%", "%%")
        if hint is bool:
            group.add_argument(flag, action="store_true", help=text)
            continue
        default = getattr(defaults, f.name)
        shown = " ".join(default) if isinstance(default, list) else default
        if shown not in ("", None):
            text += f" (default: {shown})"
        if typing.get_origin(hint) is list:
            group.add_argument(flag, nargs="+", metavar="PATH", help=text)
        elif typing.get_origin(hint) is Literal:
            group.add_argument(flag, metavar="|".join(map(str, typing.get_args(hint))), help=text)
        else:
            metavar = {int: "N", float: "X"}.get(hint, "TEXT")
            group.add_argument(flag, metavar=metavar, help=text)
    return parser


def _add_procs(parser: Parser) -> None:
    """No field of the run: with another number of processes it is the same one."""
    parser.add_argument(
        "--procs", metavar="N", help="start N ranks on this machine, one for each GPU or on the CPU"
    )


def take_procs(argv: Sequence[str]) -> tuple[list[str], int]:
    """Split ``--procs N`` off the words of ``minimind pretrain``; 1 where it is not there.

    Raises:
        ConfigError: N is no number above 0.
    """
    parser = Parser(prog="minimind pretrain", add_help=False, argument_default="1")
    _add_procs(parser)
    found, rest = parser.parse_known_args(argv)
    count = coerce("procs", int, found.procs)
    if count < 1:
        raise ConfigError(f"--procs must be the number of ranks to start, 1 or more, not {count}")
    return rest, count


def parse_args(argv: Sequence[str]) -> TrainConfig:
    """Make a config from command-line words, and from the TOML file that ``--config`` names.

    Dashes work where underscores do (``--batch-size``).

    Raises:
        ConfigError: an unknown flag or key, or a bad value; one line that says what to change.
        SystemExit: ``--help`` was asked for.
    """
    given = parse_words(argv)
    if "procs" in given:
        raise ConfigError(
            "--procs goes with `minimind pretrain` alone; the launcher has options of its own: "
            "launcher run --procs N, launcher submit --gpus N"
        )
    config_file = given.pop("config", None)
    values = read_config_file(config_file) if config_file else {}
    return TrainConfig(**{**values, **given})


def parse_words(argv: Sequence[str]) -> dict[str, Any]:
    """What the command-line words themselves say, ``config`` included; no value is checked.

    Raises:
        ConfigError: an unknown flag.
        SystemExit: ``--help`` was asked for.
    """
    return vars(build_parser().parse_args(argv))


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read flags from a TOML file.

    Raises:
        ConfigError: the file cannot be read or has a key that is no flag.
    """
    values = read_toml(path, "--config")
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    result = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            if name in UPSTREAMS:
                raise ConfigError(f"--config {path}: unknown key {key!r}: use {UPSTREAMS[name]}")
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"--config {path}: unknown key {key!r}{hint}")
        result[name] = value
    return result


def write_config_file(config: TrainConfig, path: Path) -> None:
    """Write the effective configuration, so that ``--config`` repeats the run."""
    import tomli_w

    write_text_durably(path, tomli_w.dumps(config.to_dict()))
