"""What is given to ``minimind data`` and to sampling: weights, prompts, corpora, numbers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example
from hypothesis import strategies as st

from minimind.cli import main
from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.rundir.data_path import parse_sources
from minimind.telemetry.samples import sample_prompts
from tests.fuzz.damage import (
    NASTY_TEXTS,
    damaged_bytes,
    damaged_lines,
    fuzz,
    in_one_line,
    refused,
    say,
)

ROWS = [{"text": "The harbour was quiet."}, {"text": "清晨的港口很安静。"}, {"text": "a b " * 90}]
words = st.sampled_from(NASTY_TEXTS) | st.text(":,.-+e0123456789a*[\x1b\ud800", max_size=12)


@fuzz(paths=st.lists(words, min_size=1, max_size=4))
@example(paths=["a.jsonl:" + "9" * 5000])
@example(paths=["a.jsonl:1e999", "b.jsonl:1e-999"])
@example(paths=["a.jsonl:٣", ":1", "a:0", "a:-0.0"])
def test_weights(paths: list[str]) -> None:
    try:
        sources = parse_sources(paths)
    except ConfigError as error:
        in_one_line(error)
        return
    assert sources is None or all(source.path and source.weight > 0 for source in sources)


@fuzz(
    data=damaged_lines([{"prompt": "The"}, {"text": "今天"}]),
    suffix=st.sampled_from([".txt", ".jsonl"]),
)
@example(data=b"[" * 200_000, suffix=".jsonl")
@example(data=b'{"prompt": "\\ud800"}', suffix=".jsonl")
@example(data=b"9" * 5000, suffix=".jsonl")
@example(data=b"", suffix=".txt")
def test_prompts(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"prompts{suffix}")
        path.write_bytes(data)
        try:
            prompts = sample_prompts(TrainConfig(sample_interval=1, sample_prompts=str(path)))
        except ConfigError as error:
            in_one_line(error)
            return
        assert all(prompt.encode("utf-8") for prompt in prompts if prompt)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "a\0b", "/nowhere/prompts.txt"])
def test_what_is_no_file_of_prompts(path: str) -> None:
    with pytest.raises(ConfigError, match="--sample_prompts") as refusal:
        sample_prompts(TrainConfig(sample_interval=1, sample_prompts=path))
    in_one_line(refusal.value)


def command(*arguments: str) -> tuple[int, str, str]:
    code, out, err = say(main, ["data", *arguments])
    if code:
        refused(code, err)
    # What is shown of a corpus may not act on the terminal.
    assert "\x1b" not in out
    return code, out, err


@fuzz(
    data=st.one_of(damaged_lines(ROWS), damaged_bytes(b"\x1b[31m")),
    name=st.sampled_from(["dedup", "split"]),
)
def test_rows_are_copied_or_refused(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, first, second = (str(Path(folder, file)) for file in ("in.jsonl", "1", "2"))
        Path(source).write_bytes(data)
        outputs = ["--out", first] if name == "dedup" else ["--train", first, "--eval", second]
        if command(name, source, *outputs)[0] == 0:
            kept = [line for file in (first, second) if Path(file).exists()
                    for line in Path(file).read_bytes().splitlines()]  # fmt: skip
            assert kept
            assert all(isinstance(json.loads(line)["text"], str) for line in kept)
        assert not list(Path(folder).glob(".*")), "something temporary was left"


@pytest.mark.parametrize("weighted", [False, True])
def test_looking_at_a_corpus(weighted: bool, tmp_path: Path, tiny_tokenizer: Path) -> None:
    source, other = tmp_path / "\x1b[31m.jsonl", tmp_path / "b.jsonl"
    source.write_text(json.dumps({"text": "\x1b]0;title\x07 a \x9b31m b"}) + "\n" + "[" * 200_000)
    other.write_text(json.dumps(ROWS[0]) + "\n")
    paths = [f"{source}:0.5", f"{other}:0.5"] if weighted else [str(source)]
    flags = ["--max_seq_len", "64", "--tokenizer_path", str(tiny_tokenizer)]
    flags += ["--cache_dir", str(tmp_path / "cache")]
    code, out, _ = command("preview", "--data_path", *paths, *flags)
    assert code == 0
    assert "x1b" in out
    code, out, _ = command("mix", "--data_path", *paths, *flags)
    assert code == (0 if weighted else 2)
    assert ("\\x1b[31m.jsonl" in out) == weighted


@pytest.mark.parametrize(
    "arguments",
    [
        ("split", "--seed", "9" * 100),
        ("split", "--share", "nan"),
        ("split", "--count", "9" * 30),
        ("split", "--text_field", "\ud800"),
        ("dedup", "--max_bad_rows", "9" * 5000),
        ("stats", "--max_seq_len", "9" * 30),
        ("stats", "--max_seq_len", "0"),
        ("preview", "--row", "9" * 30),
        ("preview", "--epoch", "9" * 30),
    ],
)
def test_numbers_that_fit_nowhere(
    arguments: tuple[str, ...], tmp_path: Path, tiny_tokenizer: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    name, *given = arguments
    where = {
        "dedup": [str(source), "--out", str(tmp_path / "1")],
        "split": [str(source), "--train", str(tmp_path / "1"), "--eval", str(tmp_path / "2")],
        "stats": [str(source), "--tokenizer_path", str(tiny_tokenizer)],
        "preview": ["--data_path", str(source), "--tokenizer_path", str(tiny_tokenizer)],
    }[name]
    cache = ["--cache_dir", str(tmp_path)] if name in ("stats", "preview") else []
    code, _, err = command(name, *where, *cache, *given)
    assert code == 2, err
