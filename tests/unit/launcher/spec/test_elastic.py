from __future__ import annotations

from collections.abc import Callable

import pytest

from launcher.spec.elastic import accumulation_of, check_node_counts, choose_nodes, node_counts
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from minimind.errors import ConfigError

LEFT = ["n1", "n3", "n4", "n5"]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({"nodes": 4, "min_nodes": 2}, LEFT),
        ({"nodes": 5, "min_nodes": 4}, LEFT),
        ({"nodes": 5, "min_nodes": 5}, []),
        ({"nodes": 5, "min_nodes": 2, "accumulation_steps": 3}, ["n1", "n3", "n4"]),
        ({"nodes": 5, "min_nodes": 4, "accumulation_steps": 3}, []),
        ({"nodes": 3, "spare_nodes": 2}, ["n1", "n3", "n4"]),
        ({"nodes": 5, "spare_nodes": 1}, []),
        ({"nodes": 5, "spare_nodes": 1, "min_nodes": 4}, LEFT),
    ],
)
def test_nodes_of_the_next_attempt(
    make_spec: Callable[..., JobSpec], asked: dict[str, int], chosen: list[str]
) -> None:
    assert choose_nodes(make_spec(**asked), LEFT, "n1") == chosen


def test_no_attempt_without_the_batch_host(make_spec: Callable[..., JobSpec]) -> None:
    assert choose_nodes(make_spec(nodes=4, min_nodes=1), LEFT, "n2") == []


def test_counts_that_keep_the_rows_of_an_update(make_spec: Callable[..., JobSpec]) -> None:
    assert node_counts(make_spec(nodes=6, min_nodes=2, accumulation_steps=4)) == [6, 4, 3, 2]
    assert node_counts(make_spec(nodes=6, min_nodes=4)) == [6, 5, 4], "another program's"
    assert node_counts(make_spec(nodes=6, spare_nodes=1)) == [6]


def test_no_node_that_can_be_lost_is_refused(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(nodes=3, min_nodes=2, accumulation_steps=3)
    with pytest.raises(ConfigError, match=r"3 nodes × 3 .* by 2 nodes; --accumulation_steps 4 can"):
        check_node_counts(spec)
    check_node_counts(make_spec(nodes=3, min_nodes=2, accumulation_steps=4))
    check_node_counts(make_spec(nodes=3, min_nodes=3, accumulation_steps=1))


def test_counts_that_are_passed_over_are_named(
    make_spec: Callable[..., JobSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    check_node_counts(make_spec(nodes=8, min_nodes=4, accumulation_steps=8))
    said = capsys.readouterr().err
    assert "cannot be shared by 5, 6 or 7 nodes, so a run with as many left uses fewer" in said
    assert "--accumulation_steps 105 can" in said


def test_accumulation_is_the_trainings() -> None:
    assert accumulation_of(["--accumulation_steps", "6"], TRAIN_MODULE) == 6
    assert accumulation_of(["--accumulation_steps", "6"], "another") == 0
    with pytest.raises(ConfigError, match="give --batch_size a number"):
        accumulation_of(["--batch_size", "auto"], TRAIN_MODULE)
