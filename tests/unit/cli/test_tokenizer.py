from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from minimind.cli.tokenizer import main
from minimind.data.tokenizer import SHIPPED, load_tokenizer
from minimind.data.tools import tokenizer_recipe
from minimind.data.tools.tokenizer_recipe import Source, make_corpus
from minimind.errors import ConfigError, DataError, MiniMindError
from tests.unit.data.helpers import TEXTS, write_jsonl


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", [text * 3 for text in TEXTS])
    with open(data, "a") as file:
        file.write("bad\n")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert main(["train", "--out", str(out), "--vocab_size", "320", data]) == 0
    assert "trained on 6 rows (1 unusable" in capsys.readouterr().out
    tokenizer = load_tokenizer(str(outs[0]))
    assert len(tokenizer) == 320
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    assert tokenizer.decode(tokenizer.encode(TEXTS[1])) == TEXTS[1]
    # The whole text of a line that was in the training is shorter than its bytes.
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
        assert (SHIPPED / name).is_file()
    # What we ship is what this code writes, vocabulary aside.
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        assert (outs[0] / name).read_bytes() == (SHIPPED / name).read_bytes()


def test_train_refuses_what_cannot_work(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match="--vocab_size must be 259 or more"):
        main(["train", "--out", out, "--vocab-size", "258", data])
    with pytest.raises(DataError, match="yields only"):
        main(["train", "--out", out, "--vocab_size", "100000", data])
    with pytest.raises(DataError, match="no such file"):
        main(["train", "--out", out, str(tmp_path / "none.jsonl")])
    with pytest.raises(DataError, match="have no field 'content'; there are 'text'; "):
        main(["train", "--out", out, "--text_field", "content", data])
    assert not (tmp_path / "out").exists()


PAGE = """<html lang="zh"><head><title>标题</title><script>var x = "no";</script></head><body>
<nav>导航</nav><h1>安装</h1><p>在开始之前，请先阅读<b>本章</b>的
说明。</p><pre>apt-get update
  apt-get install vim</pre><p>The package <i>vim</i> is an
editor.</p><p>The package <i>vim</i> is an editor.</p></body></html>"""

MAN = r""".\" a comment
.TH LS 1
.SH 名称
ls \- 列出目录内容
.PP
\fB\-a\fR, \fB\-\-all\fP
不要忽略以点号起始的条目
.B "bold text"
"""


def test_recipe_reads_pages_manuals_and_sayings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "packages" / "docs"
    (root / "html").mkdir(parents=True)
    (root / "html" / "a.html").write_text(PAGE, encoding="utf-8")
    (root / "ls.1.gz").write_bytes(gzip.compress(MAN.encode()))
    (root / "sayings").write_text("\x1b[32m《感遇》\x1b[m\n兰叶春葳蕤\n%\nA saying.\n%\n")
    globs = ["html/*.html", "*.gz", "say*"]
    monkeypatch.setattr(tokenizer_recipe, "SOURCES", [Source("docs", "1", g) for g in globs])
    monkeypatch.setattr(tokenizer_recipe, "HELD_OUT", 10**9)
    monkeypatch.setattr(tokenizer_recipe, "_at_most", lambda texts, _: texts)
    written = make_corpus(tmp_path)
    from minimind.data.rows import read_texts

    assert list(read_texts(written["train"])) == [
        "安装\n在开始之前，请先阅读本章的 说明。",
        "名称\nls - 列出目录内容\n不要忽略以点号起始的条目",
        "《感遇》\n兰叶春葳蕤",
        "apt-get update\n  apt-get install vim\nThe package vim is an editor.",
        "-a, --all\nbold text",
        "A saying.",
    ]


def test_recipe_balances_the_languages_and_holds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "packages" / "docs"
    root.mkdir(parents=True)
    chinese = [f"第{i}句中文文字" for i in range(500)]
    english = [f"English sentence with the number {i}." for i in range(3000)]
    (root / "sayings").write_text("\n%\n".join(chinese + english), encoding="utf-8")
    monkeypatch.setattr(tokenizer_recipe, "SOURCES", [Source("docs", "1", "say*")])
    from minimind.data.rows import read_texts

    written = make_corpus(tmp_path)
    training = {str(text) for text in read_texts(written["train"])}
    held_out = {str(t) for n in ("zh", "en") for t in read_texts(written[f"heldout-{n}"])}
    assert held_out
    assert not held_out & training
    sizes = [sum(len(t.encode()) for t in training if t.isascii() is a) for a in (False, True)]
    assert 0.5 < sizes[0] / sum(sizes) < 0.7


def test_recipe_says_which_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(MiniMindError, match=r"package debian-handbook=11\.20220922 cannot be"):
        make_corpus(tmp_path)
