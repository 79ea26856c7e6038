"""Trains a byte-level BPE tokenizer and saves it as a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from minimind.errors import ConfigError, DataError
from minimind.system.durable import write_text_durably

END_OF_TEXT, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, BOS, EOS)
"""Ids 0, 1 and 2. The first also pads."""

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
MODEL_MAX_LENGTH = 32768

CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role not in ("system", "user", "assistant") %}
{{- raise_exception("a message's role is system, user or assistant, not " ~ message.role) }}
{%- endif %}
{{- bos_token ~ message.role ~ "\\n" ~ message.content ~ eos_token ~ "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- bos_token ~ "assistant\\n" }}
{%- endif %}
"""


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train on ``texts`` and write ``tokenizer.json``, its config and chat template.

    The same texts in the same order give the same files, byte for byte.

    Raises:
        ConfigError: ``vocab_size`` has no room for all bytes and the special tokens.
        DataError: the texts are too few for so many entries.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(f"--vocab_size must be {SMALLEST_VOCABULARY} or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        raise DataError(
            f"the text yields only {found} entries; give more text or --vocab_size {found}"
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MODEL_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    # transformers 5 names a class that version 4, still common in serving, does not know.
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_bytes())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_text_durably(config_file, json.dumps(config, indent=2) + "\n")
