from __future__ import annotations

from minimind.system.text import is_utf8


def test_a_name_in_latin_1_is_no_utf8() -> None:
    assert is_utf8("größe")
    assert not is_utf8(b"gr\xf6\xdfe".decode("utf-8", "surrogateescape"))
