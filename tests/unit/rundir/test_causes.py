from __future__ import annotations

import pytest

from minimind.rundir import causes


def test_every_cause_has_a_description() -> None:
    names = {v for k, v in vars(causes).items() if k.isupper() and isinstance(v, str)}
    assert names == set(causes.DESCRIPTIONS)


def test_a_cause_of_another_version_is_shown_as_it_is() -> None:
    assert causes.described(causes.CRASH) == "crashed"
    assert causes.described("meteor") == "meteor"


@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (causes.DONE, "done"),
        (causes.CANCELLED, "cancelled"),
        (causes.HANG, "failed"),
        ("?", "failed"),
    ],
)
def test_what_a_run_is_after_its_end(cause: str, state: str) -> None:
    assert causes.state_after(cause) == state
