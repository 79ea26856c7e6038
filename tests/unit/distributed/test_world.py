from __future__ import annotations

from typing import Any

import pytest
import torch

from minimind.distributed import world as world_module
from minimind.distributed.world import (
    COLLECTIVE_TIMEOUT,
    WATCHED_TIMEOUT,
    World,
    init_distributed_mode,
)
from minimind.errors import ConfigError


def test_errors_of_work_on_main_are_raised() -> None:
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))

    def fail() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        world.on_main(fail)
    assert world.on_main(lambda: 7) == 7


@pytest.mark.parametrize("attempt", [None, "1"])
def test_only_without_a_watchdog_an_exchange_has_a_short_limit(
    monkeypatch: pytest.MonkeyPatch, attempt: str | None
) -> None:
    """A suspension counts towards the limit, and ranks may be suspended for days."""
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    monkeypatch.delenv("LAUNCHER_ATTEMPT", raising=False)
    for name, value in {**place, "LAUNCHER_ATTEMPT": attempt}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    joined: list[Any] = []
    group = {"init_process_group": lambda *words, **options: joined.append(options["timeout"])}
    group |= {"new_group": lambda **options: None, "destroy_process_group": lambda: None}
    store = world_module.dist.HashStore()
    monkeypatch.setattr(world_module, "rendezvous", lambda *words, **options: iter([(store, 0, 2)]))
    for name, function in group.items():
        monkeypatch.setattr(world_module.dist, name, function)
    with init_distributed_mode("cpu"):
        pass
    assert joined == [WATCHED_TIMEOUT if attempt else COLLECTIVE_TIMEOUT]


class TestLocalMainFirst:
    """Seen from one of two ranks; the other's part is what it gives to each exchange."""

    def other(self, monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> list[Any]:
        """Let the other rank give ``errors``; returns what this one gives, as it does."""
        given: list[Any] = []
        theirs = iter(errors)

        def gather(world: World, value: Any) -> list[Any]:
            given.append(value)
            return [value, next(theirs)] if world.is_main else [next(theirs), value]

        monkeypatch.setattr(World, "gather", gather)
        return given

    def world(self, rank: int) -> World:
        return World(rank, world_size=2, local_rank=rank, device=torch.device("cpu"))

    def test_the_first_does_its_part_before_the_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for rank, before in ((0, 0), (1, 1)):
            given = self.other(monkeypatch, None, None)
            with self.world(rank).local_main_first():
                assert len(given) == before
            assert given == [None, None]

    def test_what_fails_on_the_first_keeps_the_others_from_beginning(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = self.other(monkeypatch, ConfigError("no space"))
        with (
            pytest.raises(ConfigError, match="no space") as raised,
            self.world(1).local_main_first(),
        ):
            pytest.fail("it began")
        assert given == [None]
        assert raised.value.reported_elsewhere

    @pytest.mark.parametrize("rank", [0, 1])
    def test_what_fails_here_is_raised_here_and_given_to_the_others(
        self, monkeypatch: pytest.MonkeyPatch, rank: int
    ) -> None:
        given = self.other(monkeypatch, None, None)
        error = ConfigError("no space")
        with pytest.raises(ConfigError, match="no space"), self.world(rank).local_main_first():
            raise error
        assert given == [error] if rank == 0 else [None, error]
        assert not error.reported_elsewhere
