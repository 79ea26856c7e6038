"""Opens trained weights of any form, with the tokenizer and the settings that belong to them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minimind.checkpoint.state import Progress
from minimind.config import read_config_file
from minimind.data.codec import load_codec
from minimind.data.tokenizer import (
    OWN_TOKENS,
    SpecialTokens,
    load_tokenizer,
    tokenizer_folder,
)
from minimind.errors import ConfigError, DataError, WeightsError
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel
from minimind.rundir.layout import OutputPaths, stem_of_flags
from minimind.weights.onnx_layout import folder_of
from minimind.weights.origin import UNKNOWN, Origin, check_tokenizer
from minimind.weights.state_dict import (
    EMBEDDING,
    StoredWeights,
    infer_architecture,
    load_state_into,
    read_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from minimind.model import MiniMindConfig, MiniMindForCausalLM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Weights as they are stored, and what is known about them.

    Attributes:
        state: the tensors, under MiniMind's names.
        architecture: the model's shape; the special ids are the tokenizer's.
        codec: the tokenizer, for encoding and decoding.
        tokenizer_folder: where it was read from.
        special: with which the tokenizer was loaded.
        origin: what the weights say of themselves, or what is known from where they lie.
        flags: the run's flags, where the weights tell; else empty.
        progress: how far the run was, of a checkpoint.
    """

    path: Path
    state: dict[str, Tensor]
    architecture: Architecture
    codec: Any
    tokenizer_folder: Path
    special: SpecialTokens = OWN_TOKENS
    origin: Origin = UNKNOWN
    flags: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.state[EMBEDDING].dtype

    @property
    def context(self) -> int:
        """Tokens of the longest text that the model is meant for.

        What YaRN extends it to, or the rows of its training, or what is stored with it.
        """
        rope = self.config.rope_parameters
        if rope.get("rope_type") == "yarn":
            return int(rope["factor"] * rope["original_max_position_embeddings"])
        return int(self.flags.get("max_seq_len") or self.config.max_position_embeddings)

    @cached_property
    def config(self) -> MiniMindConfig:
        """The shape, for transformers."""
        from minimind.model import MiniMindConfig

        if isinstance(self.architecture, MiniMindConfig):
            return self.architecture
        return MiniMindConfig(**asdict(self.architecture))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with all that transformers makes of its folder."""
        return load_tokenizer(str(self.tokenizer_folder), self.special)

    def build_plain(self) -> LanguageModel | MiniMindForCausalLM:
        """As :meth:`build`, in plain torch if that can compute it: it takes less time to import."""
        if type(self.architecture) is not Architecture:
            return self.build()
        plain = LanguageModel(self.architecture)
        load_state_into(plain, self.state, self.path)
        return plain.eval()

    def build(self) -> MiniMindForCausalLM:
        """The model, in float32, on the CPU, in evaluation mode.

        Raises:
            WeightsError: tensors are missing, unexpected or of another shape.
        """
        from minimind.model import MiniMindForCausalLM

        model = MiniMindForCausalLM(self.config)
        load_state_into(model, self.state, self.path)
        return model.eval()


def open_pretrained(
    path: str | Path,
    tokenizer_path: str = "",
    num_experts_per_tok: int | None = None,
    allow_other_tokenizer: bool = False,
) -> Pretrained:
    """Open a ``.pth``, a checkpoint ``.pt``, a model folder, a ``.gguf`` or an ``.onnx``.

    The shape of the model is read off the tensors. What they do not show comes from the
    folder's ``config.json``, from the checkpoint or GGUF file, or from the ``config.toml`` that a
    run leaves beside its ``.pth``.

    Args:
        tokenizer_path: a tokenizer folder; empty: the one in the weight folder, or the one that
            the run was trained with, or else the shipped one.
        num_experts_per_tok: experts that each token visits (default: what is on record, or 1).
        allow_other_tokenizer: take the tokenizer although the weights know another one.

    Raises:
        WeightsError: the weights cannot be used, or were trained with another tokenizer.
        DataError: the tokenizer cannot be used.
    """
    path = Path(path)
    stored = read_weights(path)
    settings, flags = dict(stored.settings), stored.flags or _flags_beside(path)
    if "num_experts_per_tok" in flags:
        settings.setdefault("num_experts_per_tok", flags["num_experts_per_tok"])
    if num_experts_per_tok is not None:
        settings["num_experts_per_tok"] = num_experts_per_tok
    architecture = infer_architecture(stored.state, **settings)
    folder = _tokenizer_of(path, tokenizer_path, flags)
    tokenizer = load_codec(str(folder))
    origin = stored.origin
    if not origin.tokenizer:
        origin = _known_by_place(path, tokenizer_path, folder, flags)
    special = _special_tokens(tokenizer, origin)
    special.put_on(tokenizer, folder)
    if len(tokenizer) > architecture.vocab_size:
        raise WeightsError(
            f"{path} knows {architecture.vocab_size} tokens, the tokenizer {len(tokenizer)}; "
            "name the one it was trained with by --tokenizer_path"
        )
    if not allow_other_tokenizer:
        check_tokenizer(origin, tokenizer, path, folder)
    architecture.bos_token_id = tokenizer.bos_token_id
    architecture.eos_token_id = tokenizer.eos_token_id
    architecture.pad_token_id = tokenizer.pad_token_id
    return Pretrained(
        path,
        stored.state,
        architecture,
        tokenizer,
        folder,
        special=special,
        origin=replace(origin, step=stored.origin.step),
        flags=flags,
        progress=stored.progress,
    )


def load_weights(
    path: str | Path,
    device: torch.device | str = "cpu",
    tokenizer_path: str = "",
    num_experts_per_tok: int | None = None,
    dtype: torch.dtype = torch.float32,
    allow_other_tokenizer: bool = False,
) -> tuple[MiniMindForCausalLM, Any]:
    """The model on ``device``, its weights in ``dtype``, and the tokenizer.

    Raises:
        WeightsError, DataError: as :func:`open_pretrained`.
    """
    opened = open_pretrained(path, tokenizer_path, num_experts_per_tok, allow_other_tokenizer)
    return _placed(opened.build(), device, dtype), opened.tokenizer


def load_for_text(
    path: str | Path,
    device: torch.device | str = "cpu",
    tokenizer_path: str = "",
    num_experts_per_tok: int | None = None,
    dtype: torch.dtype = torch.float32,
    allow_other_tokenizer: bool = False,
) -> tuple[LanguageModel | MiniMindForCausalLM, Any]:
    """As :func:`load_weights`, without transformers if its model and tokenizer are not needed."""
    opened = open_pretrained(path, tokenizer_path, num_experts_per_tok, allow_other_tokenizer)
    return _placed(opened.build_plain(), device, dtype), opened.codec


def _placed(model: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    for parameter in model.parameters():
        # Not ``model.to(dtype)``, which would round the rotary tables too.
        parameter.data = parameter.data.to(dtype)
    return model.to(device)


def _flags_beside(path: Path) -> dict[str, Any]:
    """The flags of the run that left this ``.pth`` in its save_dir; {} where none says so."""
    file = OutputPaths(path.parent).config
    if path.suffix != ".pth" or not file.is_file():
        return {}
    try:
        flags = read_config_file(file)
    except ConfigError:
        return {}
    return flags if stem_of_flags(flags) == path.stem else {}


def known_origin(stored: StoredWeights, path: Path) -> Origin:
    """What weights say of their tokenizer, or else what is beside them says; or nothing does."""
    if stored.origin.tokenizer:
        return stored.origin
    return _beside(path, stored.flags or _flags_beside(path)) or UNKNOWN


def _known_by_place(path: Path, tokenizer_path: str, folder: Path, flags: dict[str, Any]) -> Origin:
    """The tokenizer of weights that do not name it themselves, where something else does.

    What is beside them, which another one by ``--tokenizer_path`` has to equal; and whoever gives a
    path for a file says which it is. Else there is only a guess.
    """
    if found := _beside(path, flags):
        return found
    if tokenizer_path or "tokenizer_path" in flags:
        return _origin_of(folder, flags)
    log.warning(
        "%s does not say with which tokenizer it was trained; taking %s "
        "(--tokenizer_path names another)",
        path,
        folder,
    )
    return UNKNOWN


def _beside(path: Path, flags: dict[str, Any]) -> Origin | None:
    """The tokenizer that a model folder holds, or that a run's flags name; None: neither."""
    own = folder_of(path)
    recorded = Path(str(flags.get("tokenizer_path", ""))).expanduser()
    if (own / "tokenizer.json").is_file():
        return _origin_of(own, flags)
    if flags.get("tokenizer_path") and recorded.is_dir():
        return _origin_of(recorded, flags)
    return None


def _origin_of(folder: Path, flags: dict[str, Any]) -> Origin:
    # Whoever names another in its place may do so because it is damaged.
    with contextlib.suppress(DataError):
        return Origin.of_tokenizer(load_codec(str(folder), _named_by(flags)))
    return UNKNOWN


def _named_by(flags: dict[str, Any]) -> SpecialTokens:
    return SpecialTokens(*(str(flags.get(f"{role}_token", "")) for role in ("bos", "eos")))


def _special_tokens(tokenizer: Any, origin: Origin) -> SpecialTokens:
    """What began and ended the documents of the weights, where the tokenizer names nothing."""
    named = {}
    for role, wanted in (("bos", origin.bos_id), ("eos", origin.eos_id)):
        if getattr(tokenizer, f"{role}_token_id") is None and wanted is not None:
            named[role] = tokenizer.convert_ids_to_tokens(wanted) or ""
    return SpecialTokens(**named)


def _tokenizer_of(path: Path, given: str, flags: dict[str, Any]) -> Path:
    if given:
        return tokenizer_folder(given)
    folder = folder_of(path)
    if (folder / "tokenizer.json").is_file():
        return folder
    trained_with = flags.get("tokenizer_path", "")
    if trained_with and not Path(trained_with).expanduser().is_dir():
        raise WeightsError(
            f"{path} was trained with the tokenizer {trained_with}, which is not here; "
            "name its folder by --tokenizer_path"
        )
    return tokenizer_folder(trained_with)
