from __future__ import annotations

import pytest

from launcher.spec.mount import Mount
from minimind.errors import ConfigError


def test_mounts() -> None:
    assert Mount.parse("/a b:/c:ro") == Mount("/a b", "/c", read_only=True)
    assert str(Mount.parse("/a:/b")) == "/a:/b"
    for bad in ("/a", "/a:b", "a:/b", "/a:/b:rx", "/a,c:/b", "/a:/b\n:ro", ":"):
        with pytest.raises(ConfigError, match="--mount"):
            Mount.parse(bad)
