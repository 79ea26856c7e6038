"""A small text of our own, in English and Chinese, and a tokenizer trained on it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

SENTENCES = [
    "The harbour was quiet when the first boat came in.",
    "A good checkpoint is one that you never have to think about.",
    "Rain fell on the tin roof all night, and nobody slept.",
    "Counting from zero is a habit that no programmer gives up.",
    "She wrote the number on her hand so that she would not lose it.",
    "Every queue looks short until you stand in it.",
    "The old clock in the hall was wrong twice a day as well.",
    "If the lights go out, walk along the wall and keep your hand on it.",
    "Bread, salt and patience: the rest can be bought later.",
    "The graph went down, then up, then down for good.",
    "Two trains met on the bridge and neither would go back.",
    "He repaired the radio with a spoon and a piece of wire.",
    "清晨的港口很安静，只有一条船回来。",
    "好的检查点，就是你从来不用去想它。",
    "雨下了一整夜，屋顶响个不停。",
    "从零开始数数，是程序员改不掉的习惯。",
    "她把号码写在手上，怕自己忘记。",
    "队伍看起来总是很短，直到你站进去。",
    "走廊里的旧钟，一天里也有两次是错的。",
    "如果停电了，就扶着墙慢慢走。",
    "面包、盐和耐心，其余的以后再买。",
    "曲线先下降，再上升，最后一直下降。",
    "两列火车在桥上相遇，谁也不肯后退。",
    "他用一把勺子和一段铁丝修好了收音机。",
]


def documents(count: int, seed: int = 0) -> list[str]:
    """``count`` documents of 1 to 12 sentences; the same for the same seed."""
    generator = random.Random(seed)
    return [
        " ".join(generator.choices(SENTENCES, k=generator.randint(1, 12))) for _ in range(count)
    ]


def write_corpus(path: Path, count: int, seed: int = 0) -> Path:
    """Write documents as jsonl."""
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in documents(count, seed)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_tokenizer(folder: Path, vocab_size: int = 384) -> Path:
    """Train a byte-level BPE on the sentences and save it as a Hugging Face folder."""
    names = {
        "pad_token": "<|endoftext|>",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
    }
    return train_tokenizer(folder, vocab_size, SENTENCES, list(names.values()), names)


def train_tokenizer(
    folder: Path, vocab_size: int, texts: Iterable[str], special: list[str], names: dict[str, str]
) -> Path:
    """Train a byte-level BPE; ``names`` maps roles (``bos_token``, …) to special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder
