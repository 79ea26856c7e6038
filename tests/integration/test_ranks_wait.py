"""Two real ranks, one of which waits for the other before they train."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from minimind.distributed import pulse
from minimind.distributed.local_ranks import place_variables
from minimind.distributed.world import World, init_distributed_mode
from minimind.errors import DataError
from minimind.system.process import free_port
from minimind.system.signals import StopFlag, StopRequested
from tests.runs import FORKSERVER, wait_until


def gets_on_slowly(world: World, folder: Path) -> None:
    """Far longer than a silence may last, but with a sign of life now and then."""
    for _ in range(8):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: False, "half a second", 0.5)
        world.beat()


def compiles(world: World, folder: Path) -> None:
    with world.busy("compiling"), contextlib.suppress(AssertionError):
        wait_until(lambda: False, "four seconds", 4.0)


def is_silent(world: World, folder: Path) -> None:
    with world.doing("reading the checkpoint"):
        wait_until((folder / "0").exists, "rank 0's end")


def fails(world: World, folder: Path) -> None:
    raise DataError("no such text")


def stops(world: World, folder: Path) -> None:
    raise StopRequested("SIGUSR1")


PARTS = {part.__name__: part for part in (gets_on_slowly, compiles, is_silent, fails, stops)}


def rank(number: int, port: int, folder: Path, part: str) -> None:
    """Rank 1 does its part before they meet; what becomes of each is in a file of its own."""
    os.environ.update(place_variables(number, 2, port))
    pulse.SILENCE_SECONDS, pulse.LOOK_SECONDS = 2.0, 0.2
    try:
        with StopFlag().installed(), init_distributed_mode("cpu") as world:
            if number == 1:
                PARTS[part](world, folder)
            (folder / f"waits{number}").touch()
            outcome = f"met {world.gather(number)}"
    except BaseException as error:
        outcome = f"{type(error).__name__} {getattr(error, 'exit_code', '')}: {error}"
    (folder / f"{number}.part").write_text(outcome)
    os.replace(folder / f"{number}.part", folder / str(number))


def outcomes(folder: Path, part: str, signalled: int | None = None) -> list[str]:
    port = free_port()
    ranks = [FORKSERVER.Process(target=rank, args=(n, port, folder, part)) for n in range(2)]
    for process in ranks:
        process.start()
    if signalled is not None:
        wait_until((folder / "waits0").exists, "rank 0 to wait")
        os.kill(ranks[0].pid, signalled)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return [(folder / str(number)).read_text() for number in range(2)]


@pytest.mark.parametrize("part", ["gets_on_slowly", "compiles"])
def test_a_rank_that_gets_on_is_waited_for(tmp_path: Path, part: str) -> None:
    assert outcomes(tmp_path, part) == ["met [0, 1]"] * 2


def test_a_silent_rank_is_named_after_a_while(tmp_path: Path) -> None:
    waiting, silent = outcomes(tmp_path, "is_silent")
    assert waiting.startswith("LostRankError 1: rank 1 on ")
    assert " has shown no progress for 2 s while reading the checkpoint; look at " in waiting
    assert silent.startswith("LostRankError 1: another rank has ended while this one waited")


def test_what_ends_one_rank_is_known_to_the_other_at_once(tmp_path: Path) -> None:
    waiting, failed = outcomes(tmp_path, "fails")
    assert failed == "DataError 2: no such text"
    assert waiting.startswith("LostRankError 2: rank 1 on ")
    assert waiting.endswith(" has ended: no such text")


def test_a_stop_of_one_rank_is_one_of_the_other(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "stops") == ["StopRequested : SIGUSR1"] * 2


def test_a_rank_that_waits_heeds_a_stop(tmp_path: Path) -> None:
    waiting, silent = outcomes(tmp_path, "is_silent", signalled=signal.SIGUSR2)
    assert waiting == "StopRequested : SIGUSR2"
    # The store in which it could say why is its own.
    assert silent.startswith("LostRankError 1: another rank has ended")
