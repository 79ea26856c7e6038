"""Valid files, damaged: by what breaks, and by what somebody meant to break."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimind.errors import MiniMindError
from minimind.system.terminal import LONGEST, one_line

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""How many: without it few and always the same ones (`make test`), else new ones (`make fuzz`)."""

MOST_CPU_SECONDS = 10.0

SETTINGS = settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def fuzz(**strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Hypothesis's ``given``, with the settings of all tests here."""

    def wrap(test: Any) -> Any:
        @functools.wraps(test)
        def bounded(*args: Any, **values: Any) -> None:
            before = time.process_time()
            test(*args, **values)
            spent = time.process_time() - before
            assert spent < MOST_CPU_SECONDS, f"{spent:.0f} s for one small file: a hang to be"

        return SETTINGS(given(**strategies)(bounded))

    return wrap


NASTY_NUMBERS = [
    *(0, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308),
    *(float("nan"), float("inf"), -0.0),
]
NASTY_TEXTS = [
    *("", "\0", "\ud800", "\udcff", "\x1b]0;x\x07", "[/red]", "[1-2]", "../..", "/dev/zero"),
    *("a" * 5000, "9" * 5000, "²", "٣", "NaN", "-1", "\n", "$(touch executed)", "%a", "😀"),
]
scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NASTY_NUMBERS), st.sampled_from(NASTY_TEXTS)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


DEEP = b"[" * 100_000
NASTY_BYTES = [DEEP, b"{" * 1000, b"\xff\xfe", b"\0" * 64, b"\xed\xa0\x80", b"9" * 5000, b'"']


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut off, with bits turned, bytes lost, doubled, swapped or put in."""
    blob = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(blob) - 1)))
        length = draw(st.integers(1, 64))
        what = draw(st.sampled_from(["cut", "bit", "lose", "double", "noise", "nasty"]))
        if what == "cut":
            del blob[place:]
        elif what == "bit" and blob:
            blob[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "lose":
            del blob[place : place + length]
        elif what == "double":
            blob[place:place] = blob[place : place + length]
        elif what == "noise":
            blob[place:place] = draw(st.binary(max_size=16))
        elif what == "nasty":
            blob[place:place] = draw(st.sampled_from(NASTY_BYTES))
    return bytes(blob)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*path, index))
    return found


@st.composite
def damaged_value(draw: st.DrawFn, value: Any, put: st.SearchStrategy[Any] = json_values) -> Any:
    """A value made of dicts and lists, with some of its parts lost or replaced."""
    whole = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(whole)
        *above, last = [(), *draw(st.sampled_from(places))]
        if not above:
            whole = draw(put)
            continue
        holder = whole
        for key in above[1:]:
            holder = holder[key]
        if draw(st.booleans()) or not isinstance(holder, dict):
            holder[last] = draw(put)
        else:
            del holder[last]
    return whole


def damaged_json(value: Any) -> st.SearchStrategy[bytes]:
    """A JSON document, damaged as bytes or as a value."""
    return st.one_of(damaged_bytes(to_json(value)), damaged_value(value).map(to_json))


def damaged_lines(records: list[Any]) -> st.SearchStrategy[bytes]:
    """A jsonl file, damaged as bytes or in some of its records."""
    valid = b"\n".join(map(to_json, records)) + b"\n"
    return st.one_of(
        damaged_bytes(valid),
        damaged_value(records).map(
            lambda found: b"\n".join(map(to_json, found if isinstance(found, list) else [found]))
        ),
    )


def say(main: Callable[[list[str]], int | None], arguments: Sequence[str]) -> tuple[int, str, str]:
    """What a command returns and prints. An exception that leaves it fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    assert isinstance(code, int)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


def refused(code: int, err: str) -> None:
    """An error of the user's: one clear line, and the exit code that means it."""
    lines = err.strip().splitlines()
    assert code in (1, 2), code
    assert lines, "it failed without a word"
    assert lines[-1].isprintable()
    assert ": error: " in lines[-1]


def in_one_line(error: MiniMindError) -> None:
    """What a user would see of it."""
    assert one_line(error).isprintable()
    assert len(one_line(error)) <= 10 * LONGEST
    assert error.exit_code == 2


def weights_taken(path: Path) -> bool:
    """Whether weights were read, of whatever form; if not, the user is told in one line."""
    from minimind.weights.state_dict import infer_config, read_weights

    try:
        stored = read_weights(path)
        infer_config(stored.state, **stored.settings)
    except MiniMindError as error:
        in_one_line(error)
        return False
    return True
