"""What every rank reads for itself before it trains: program, flags, rows, first weights.

All ranks compare what they have read, and none goes on with something else than rank 0.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import minimind
from minimind.config import TrainConfig
from minimind.data.codec import load_codec
from minimind.data.mixture import MixedPlan, Plan
from minimind.data.tokenizer import (
    special_tokens,
    tokenizer_fingerprint,
    tokenizer_folder,
)
from minimind.distributed.alike import Reading, look_anew, read_alike
from minimind.distributed.world import World
from minimind.errors import MiniMindError, WeightsError
from minimind.rundir.layout import OutputPaths, stem_of
from minimind.weights.origin import Origin, check_tokenizer
from minimind.weights.pretrained import known_origin
from minimind.weights.state_dict import StoredWeights, read_weights

log = logging.getLogger(__name__)

OF_THE_HOST = {"device", "log_level", "num_workers", "save_dir", "checkpoint_dir", "cache_dir"}
"""Flags that may differ between ranks."""

PLACES = {"data_path", "eval_data_path", "tokenizer_path", "sample_prompts"}
"""Flags that may name another path on another host; what is read there is compared."""


def check_program(config: TrainConfig, world: World) -> None:
    """See that all ranks run the same code with the same flags.

    Raises:
        RanksDifferError: they do not.
    """
    if not world.is_distributed:
        return
    read_alike(
        world,
        "code",
        _read_code,
        remedy="install the same version of this program on all hosts",
        patient=False,
    )
    read_alike(
        world,
        "flags",
        partial(_read_flags, config),
        remedy="give all ranks the same flags, and the same file to --config",
        patient=False,
    )


def _read_code() -> Reading[None]:
    folder = Path(minimind.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    parts = {"version": minimind.__version__, "sources": digest.hexdigest()}
    return Reading(parts, str(folder), None)


def _read_flags(config: TrainConfig) -> Reading[None]:
    flags = {name: value for name, value in config.to_dict().items() if name not in OF_THE_HOST}
    flags["from_weight"] = "none" if config.from_weight == "none" else "given"
    flags |= {name: "given" if flags[name] else "not given" for name in PLACES}
    return Reading({f"--{name}": str(value) for name, value in flags.items()}, "its flags", None)


def reading_of_rows(plan: Plan, paths: Sequence[str], tokenizer_path: str) -> Reading[Plan]:
    """What of a corpus must be alike on all ranks."""
    parts = plan.parts if isinstance(plan, MixedPlan) else (plan,)
    store = plan.store
    return Reading(
        {
            "documents": str(sum(part.store.n_docs for part in parts)),
            "tokens": str(sum(part.store.n_tokens for part in parts)),
            "rows": plan.fingerprint,
            "tokenizer": tokenizer_fingerprint(tokenizer_path),
            "vocabulary": str(store.vocab_size),
            "special tokens": f"{store.bos_id}/{store.eos_id}/{store.pad_id}",
        },
        ", ".join(paths),
        plan,
    )


def read_first_weights(config: TrainConfig, world: World) -> StoredWeights | None:
    """The weights that ``--from_weight`` names; None without it.

    Raises:
        ConfigError, WeightsError: they cannot be used; on every rank.
        RanksDifferError: a rank finds others under the name.
    """
    if config.from_weight == "none":
        return None
    found = read_alike(
        world,
        "weights",
        partial(_read_weights, config, world),
        remedy="let --from_weight name the same file on all hosts, then start again",
    )
    if isinstance(found, MiniMindError):
        found.reported_elsewhere = not world.is_main
        raise found
    return found


def find_weight(config: TrainConfig) -> Path:
    """``--from_weight`` is a path, or the prefix of a weight file in save_dir.

    Raises:
        WeightsError: there is neither; the message names weights that are there.
    """
    path = Path(config.from_weight)
    look_anew(path)
    if path.exists():
        return path
    stem = stem_of(config.from_weight, config.hidden_size, config.use_moe)
    file = OutputPaths(config.save_dir).weight_file(stem)
    look_anew(file)
    if not file.exists():
        others = sorted(found.name for found in file.parent.glob("*.pth"))
        there = f"; there are {', '.join(others[:5])}" if others else ""
        raise WeightsError(
            f"--from_weight {config.from_weight}: no such file or folder, and no {file}{there}"
        )
    return file


def open_tokenizer(config: TrainConfig, stored: StoredWeights | None) -> Origin:
    """What the weights of this run have to say of its tokenizer.

    Args:
        stored: the weights to start from, which may have been trained with another one.

    Raises:
        DataError: the tokenizer cannot be used.
        WeightsError: the weights are known to be another's, and the flags do not insist.
    """
    tokenizer = load_codec(config.tokenizer_path, special_tokens(config))
    folder = tokenizer_folder(config.tokenizer_path)
    for role in ("bos", "eos"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            word = {"bos": "begins", "eos": "ends"}[role]
            log.warning(
                "the tokenizer %s names no token that %s a document: the text gets none; "
                "--%s_token names one",
                folder,
                word,
                role,
            )
    if stored is not None and not config.allow_other_tokenizer:
        weights = find_weight(config)
        origin = known_origin(stored, weights)
        check_tokenizer(origin, tokenizer, weights, folder)
        if not origin.tokenizer:
            log.warning(
                "%s does not say with which tokenizer it was trained; this run takes %s",
                weights,
                folder,
            )
    return Origin.of_tokenizer(tokenizer)


def _read_weights(config: TrainConfig, world: World) -> Reading[StoredWeights | MiniMindError]:
    path = Path(config.from_weight)
    try:
        path = find_weight(config)
        stored = read_weights(path)
    except MiniMindError as error:
        return Reading({"": str(error).removeprefix(f"{path} ")}, str(path.absolute()), error)
    parts = {"content": digest_of_weights(stored)} if world.is_distributed else {}
    return Reading(parts, str(path.absolute()), stored)


def digest_of_weights(stored: StoredWeights) -> str:
    """SHA-256 (hex) of the tensors and settings themselves, whatever kind of file they are from."""
    digest = hashlib.sha256(json.dumps(stored.settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(stored.state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
