from __future__ import annotations

from minimind.report.words import counted, share, text


def test_counts_and_shares() -> None:
    assert [counted(n, "step") for n in (0, 1, 1200)] == ["no step", "1 step", "1,200 steps"]
    assert [share(0.8715), share(None)] == ["87.2%", "–"]


def test_text_is_safe_and_keeps_what_people_write() -> None:
    assert text("<b a='1'>&\"") == "&lt;b a=&#x27;1&#x27;&gt;&amp;&quot;"
    assert text("a\x00\x1b\u202e\ud800b") == "a����b"
    assert text("今天\u3000🙂\n\tx") == "今天\u3000🙂\n\tx"
    assert [text(v) for v in (True, ["a", 1], 0.0005, None)] == ["yes", "a, 1", "0.0005", "None"]
