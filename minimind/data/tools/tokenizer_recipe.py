"""Makes the text that the shipped tokenizer is trained on, from Debian 12's packages.

Real Chinese and English prose, code and tables, that anyone with Debian 12 can fetch
again; ``tokenizer/RECIPE.md`` records versions and checksums.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from minimind.errors import DataError, MiniMindError


class Source(NamedTuple):
    """Files of one package: its version, and a glob under its root."""

    package: str
    version: str
    glob: str


_HANDBOOK = ("debian-handbook", "11.20220922")
_INSTALL = ("installation-guide-amd64", "20230508+deb12u1")

SOURCES = (
    Source(*_HANDBOOK, "usr/share/doc/debian-handbook/html/zh-CN/*.html"),
    Source(*_HANDBOOK, "usr/share/doc/debian-handbook/html/en-US/*.html"),
    Source(*_INSTALL, "usr/share/doc/installation-guide-amd64/zh_CN/*.html"),
    Source(*_INSTALL, "usr/share/doc/installation-guide-amd64/en/*.html"),
    Source("debian-reference-zh-cn", "2.100", "usr/share/debian-reference/*.zh-cn.html"),
    Source("debian-reference-en", "2.100", "usr/share/debian-reference/*.en.html"),
    Source("debian-faq-zh-cn", "11.1", "usr/share/doc/debian/FAQ/zh-cn/*.html"),
    Source("debian-faq", "11.1", "usr/share/doc/debian/FAQ/*.en.html"),
    Source("debian-edu-doc-zh-cn", "2.12.23~deb12u1", "usr/share/doc/debian-edu-doc-zh-cn/*.html"),
    Source("debian-edu-doc-en", "2.12.23~deb12u1", "usr/share/doc/debian-edu-doc-en/*.html"),
    Source("maint-guide-zh-cn", "1.2.53", "usr/share/doc/maint-guide-zh-cn/html/*.html"),
    Source("maint-guide", "1.2.53", "usr/share/doc/maint-guide/html/*.html"),
    Source(
        "libreoffice-help-zh-cn",
        "4:7.4.7-1+deb12u14",
        "usr/share/libreoffice/help/zh-CN/text/**/*.html",
    ),
    Source(
        "libreoffice-help-en-us",
        "4:7.4.7-1+deb12u14",
        "usr/share/libreoffice/help/en-US/text/**/*.html",
    ),
    Source("gimp-help-zh-cn", "2.10.34-2", "usr/share/gimp/2.0/help/zh_CN/*.html"),
    Source("kicad-doc-zh", "6.0.11+dfsg-1", "usr/share/doc/kicad/help/zh/*.html"),
    Source("gnome-user-docs", "43.0-2", "usr/share/help/zh_CN/**/*.page"),
    Source("gnome-user-docs", "43.0-2", "usr/share/help/C/**/*.page"),
    Source("manpages-zh", "1.6.4.0-1", "usr/share/man/zh_CN/*/*.gz"),
    Source("fortunes-zh", "2.98", "usr/share/games/fortunes/*"),
    Source("fortunes", "1:1.99.1-7.3", "usr/share/games/fortunes/*"),
    Source("debian-policy", "4.6.2.0", "usr/share/doc/debian-policy/**/*.html"),
    Source("developers-reference", "12.18", "usr/share/developers-reference/**/*.html"),
    Source("debian-history", "2.28", "usr/share/doc/debian-history/docs/*.en.html"),
    Source("harden-doc", "3.19+nmu1", "usr/share/doc/harden-doc/html/en-US/*.html"),
)

ZH_SHARE = 0.6
"""Share of Chinese in the text, by bytes; the language with more gives some up."""

HELD_OUT = 50
"""One document of so many is kept out of the training, to measure the compression on."""


def make_corpus(folder: Path) -> dict[str, Path]:
    """Fetch the packages and write ``train.jsonl`` and ``heldout-{zh,en}.jsonl`` to ``folder``.

    Raises:
        MiniMindError: a package cannot be had in the version that the recipe names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    languages: dict[str, list[str]] = {"zh": [], "en": []}
    seen: set[bytes] = set()
    for source in SOURCES:
        files = sorted(p for p in _unpacked(source, folder).glob(source.glob) if p.is_file())
        documents = [text for path in files for text in _documents(path)]
        if not documents:
            raise DataError(f"{source.package} {source.version}: no text in {source.glob}")
        for document in documents:
            for language, text in _by_language(document, seen).items():
                languages[language].append(text)
    paths = {name: folder / f"{name}.jsonl" for name in ("train", "heldout-zh", "heldout-en")}
    training = []
    for language, documents in languages.items():
        held_out = [text for text in documents if _number(text) % HELD_OUT == 0]
        _write(paths[f"heldout-{language}"], held_out)
        languages[language] = [text for text in documents if _number(text) % HELD_OUT]
    for language, share in (("zh", ZH_SHARE), ("en", 1 - ZH_SHARE)):
        training += _at_most(languages[language], _size_limit(languages) * share)
    _write(paths["train"], training)
    return paths


def _unpacked(source: Source, folder: Path) -> Path:
    root = folder / "packages" / source.package
    if root.is_dir():
        return root
    wanted = f"{source.package}={source.version}"
    packages = folder / "packages"
    packages.mkdir(exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-q", wanted], cwd=packages, check=True)
        version = source.version.replace(":", "%3a")
        (archive,) = packages.glob(f"{source.package}_{version}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MiniMindError(
            f"package {wanted} cannot be fetched ({error}); the recipe needs Debian 12 and a "
            "recent 'apt-get update'"
        ) from None
    return root


def _documents(path: Path) -> Iterator[str]:
    if path.suffix in (".html", ".page"):
        yield _html_text(path.read_text(encoding="utf-8", errors="replace"))
    elif path.suffix == ".gz":
        yield _man_text(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
    elif not path.suffix:  # a fortune file: sayings between lines of "%"
        colours = re.compile(r"\x1b\[[0-9;]*m")
        text = colours.sub("", path.read_text(encoding="utf-8", errors="replace"))
        yield from text.split("\n%\n")


class _HtmlText(HTMLParser):
    SILENT = frozenset({"script", "style", "head", "nav", "header", "footer", "button", "info"})
    INLINE = frozenset(
        "a abbr acronym b bdi big br cite code em font i img kbd q s samp small span strong sub "
        "sup tt u var app file gui guiseq key keyseq link cmd input output sys".split()
    )

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in self.SILENT
        self._preformatted += tag == "pre"
        if tag not in self.INLINE or tag == "br":
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in self.SILENT))
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag not in self.INLINE:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data if self._preformatted else re.sub(r"\s+", " ", data))


def _html_text(html: str) -> str:
    parser = _HtmlText()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)


def _man_text(page: str) -> str:
    """A rough rendering of a manual page: requests and font changes go, the words stay."""
    lines = []
    for line in page.splitlines():
        request = re.match(r"[.'][ \t]*(\S*)[ \t]*(.*)", line)
        if request:
            if request[1] not in ("SH", "SS", "B", "I", "BR", "IR", "RB", "BI", "RI", "IP"):
                continue
            line = request[2].replace('"', "")
        line = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[,/&|^]|\\s[-+]?\d", "", line)
        line = re.sub(r"\\\((\w\w|..)|\\\[\w+\]", " ", line)
        lines.append(line.replace(r"\-", "-").replace(r"\e", "\\").replace("\\ ", " "))
    return "\n".join(lines)


def _by_language(document: str, seen: set[bytes]) -> dict[str, str]:
    """Sort a document's new lines into Chinese and English; a line counts as new once."""
    lines: dict[str, list[str]] = {"zh": [], "en": []}
    for line in document.splitlines():
        line = line.rstrip().replace("\0", "")
        key = hashlib.sha256(line.strip().encode()).digest()
        if not line.strip() or key in seen or "\ufffd" in line:
            continue
        seen.add(key)
        letters = sum(map(str.isalpha, line))
        chinese = sum("\u4e00" <= char <= "\u9fff" for char in line)
        # A line of code in a Chinese text is neither's alone; it goes to English.
        lines["zh" if chinese * 5 > letters else "en"].append(line)
    return {name: "\n".join(kept) for name, kept in lines.items() if kept}


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _size_limit(languages: dict[str, list[str]]) -> float:
    """Bytes of the largest text with :data:`ZH_SHARE` of Chinese."""
    size = {name: sum(len(text.encode()) for text in texts) for name, texts in languages.items()}
    return min(size["zh"] / ZH_SHARE, size["en"] / (1 - ZH_SHARE))


def _at_most(texts: list[str], n_bytes: float) -> list[str]:
    """A sample of the texts of about ``n_bytes``, independent of their order."""
    total = sum(len(text.encode()) for text in texts)
    if total <= n_bytes:
        return texts
    return [text for text in texts if _number(text) % 1000 < 1000 * n_bytes / total]


def _write(path: Path, texts: list[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
