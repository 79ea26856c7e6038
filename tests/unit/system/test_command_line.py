from __future__ import annotations

import pytest

from minimind.errors import ConfigError
from minimind.system.command_line import Parser


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="minimind some")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("path", nargs="?")
    inner: Parser = parser.add_subparsers().add_parser("go")
    inner.flag("dry_run", action="store_true")
    return parser


@pytest.mark.parametrize(
    "words", [["--batch_size", "2"], ["--batch-size", "2"], ["--batch-size=2"]]
)
def test_dashes_work_where_underscores_do(parser: Parser, words: list[str]) -> None:
    assert parser.parse_args([*words, "a-b", "go", "--dry-run"]).batch_size == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch=2"], r"unrecognized arguments: --batch.* \(see minimind some --help\)"),
        (["--batch-size", "two"], "argument --batch_size: invalid int value: 'two'"),
    ],
)
def test_a_mistake_is_ours_to_report(parser: Parser, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parser.parse_args(words)


def test_values_keep_their_dashes() -> None:
    parser = Parser()
    parser.add_argument("--data_path", nargs="+")
    found = parser.parse_args(["--data-path=a-b.jsonl"])
    assert found.data_path == ["a-b.jsonl"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--batch_sise=2"], "did you mean --batch_size?"),
        (["--batch-sizes=2"], "did you mean --batch_size?"),
        (["p", "go", "--dry-rum"], "did you mean --dry_run?"),
        (["--rows=2"], "--rows is --batch_size here"),
        (["--qqq=2"], ""),
    ],
)
def test_an_unknown_flag_gets_a_proposal(parser: Parser, words: list[str], hint: str) -> None:
    parser.elsewhere = {"rows": "--batch_size"}
    with pytest.raises(ConfigError, match="unrecognized arguments: --") as caught:
        parser.parse_args(words)
    assert str(caught.value).count("; ") == bool(hint)
    assert hint in str(caught.value)
