"""Small readers of what Slurm prints."""

from __future__ import annotations

import pytest

from launcher.slurm.parse import (
    MOST_TASKS,
    array_indices,
    count_devices,
    count_gres,
    leading_number,
    limit_seconds,
    parse_stamp,
    unanswered,
)


@pytest.mark.parametrize(
    "complaint, silent",
    [
        ("slurm_requeue error: Unable to contact slurm controller (connect failure)", True),
        ("Socket timed out on send/recv operation for job 2", True),
        ("Zero Bytes were transmitted or received for job 2", True),
        ("Slurm backup controller in standby mode for job 2", True),
        ("Command '('scontrol', 'requeue', '2')' timed out after 60 seconds", True),
        ("Requested operation is presently disabled for job 2", False),
        ("Access/permission denied for job 2", False),
        ("Invalid job id specified for job 2", False),
        ("scontrol requeue returned 1", False),
    ],
)
def test_silence_is_told_from_a_refusal(complaint: str, silent: bool) -> None:
    assert unanswered(complaint) is silent


@pytest.mark.parametrize(
    "gres, wanted, count",
    [
        ("(null)", "gpu", 0),
        ("gpu:8", "gpu", 8),
        ("gpu:a100:4(S:0-1)", "gpu", 4),
        ("gpu:a100:4(S:0,1),gpu:h100:2,mps:100", "gpu", 6),
        ("gpu:a100:4(S:0,1),gpu:h100:2,mps:100", "gpu:a100", 4),
        ("gpu", "gpu", 0),
        ("npu:910b:8(S:0-3),gpu:1", "npu", 8),
        ("npu:910b:8", "npu:910", 0),
    ],
)
def test_count_devices(gres: str, wanted: str, count: int) -> None:
    assert count_devices(gres, wanted) == count


@pytest.mark.parametrize(
    "gres, counts",
    [
        ("(null)", {}),
        ("gpu:a100:4(S:0,1),gpu:h100:2,mps:100", {"gpu:a100": 4, "gpu:h100": 2, "mps": 100}),
        ("gpu:2,gpu:1", {"gpu": 3}),
        ("gpu,nvme:1T", {"gpu": 0, "nvme:1T": 0}),
    ],
)
def test_count_gres(gres: str, counts: dict[str, int]) -> None:
    assert count_gres(gres) == counts


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("30:00", 1800),
        ("1:00:00", 3600),
        ("01:00:59", 3659),
        ("2-00:00:00", 172800),
    ],
)
def test_limit_seconds(text: str, seconds: int | None) -> None:
    assert limit_seconds(text) == seconds


def test_stamps_and_seconds() -> None:
    assert parse_stamp("Unknown") is None
    assert parse_stamp(None) is None
    assert parse_stamp("2026-01-01T00:00:01") is not None
    assert leading_number("30 sec", 5) == 30
    assert leading_number("", 5) == 5


def test_an_endless_array_is_bounded() -> None:
    assert len(array_indices("0-999999999999")) == MOST_TASKS
    assert array_indices("1-5:0") == [1, 2, 3, 4, 5]
