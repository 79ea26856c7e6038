"""A network file system under the ranks, and its server."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.chaos.faults.files import REFUSED, token_files
from tests.chaos.faults.moments import send, some_moment, steps
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import CRASHED, EARLY, NOBODY
from tests.chaos.target import wait_for

FAILS = (CRASHED, REFUSED, *EARLY)
REFUSALS = (errno.EDQUOT, errno.EIO, errno.ENOSPC)


@contextlib.contextmanager
def on_some_nodes(run: Any, rng: Random, **behaviour: float) -> Iterator[str]:
    """The mounts of one node, or of all, behave like this for a while."""
    mounts = list(run.mounts)
    if one := rng.random() < 0.5:
        mounts = [rng.choice(run.mounts_in_use())]
    with contextlib.ExitStack() as stack:
        for mount in mounts:
            stack.enter_context(mount.behaving(**behaviour))
        yield "one node" if one else "all nodes"


def some_steps(run: Any, rng: Random) -> None:
    """Wait for some steps more, or for the attempt's end."""
    steps(run, run.steps() + rng.randint(1, 30))


@fault("nfs", codes=FAILS, weight=4)
def server_refuses_writes(run: Any, rng: Random) -> str:
    """A quota or a broken disk, which shows at the write, at the sync, or only as a file closes."""
    some_moment(run, rng)
    name = rng.choice(("write_error", "sync_error", "close_error"))
    code = rng.choice(REFUSALS)
    with on_some_nodes(run, rng, **{name: code}) as where:
        run.refuses_in = run.attempt
        some_steps(run, rng)
    return f"{errno.errorcode[code]} at {name.split('_')[0]}, {where}"


@fault("nfs", codes=EARLY, weight=2)
def server_is_slow(run: Any, rng: Random) -> str:
    """Every sync takes seconds for a while."""
    moment = some_moment(run, rng)
    with on_some_nodes(run, rng, sync_seconds=rng.uniform(0.2, 1.5)) as where:
        some_steps(run, rng)
    return f"{where} {moment}"


@fault("nfs", weight=3)
def server_is_silent(run: Any, rng: Random) -> str:
    """Nothing is answered for a while, and then all of it: a mount that is ``hard``."""
    moment = some_moment(run, rng)
    with on_some_nodes(run, rng, silent=True) as where:
        # The pause is the fault itself.
        time.sleep(rng.uniform(0.2, 4))
    return f"{where} {moment}"


@fault("nfs", codes=FAILS, weight=3)
def handles_are_stale(run: Any, rng: Random) -> str:
    """The server has forgotten what was open (ESTALE), and knows it by name."""
    moment = some_moment(run, rng)
    mounts = [rng.choice(run.mounts_in_use())] if rng.random() < 0.5 else run.mounts
    for mount in mounts:
        mount.behave(epoch=mount.behaviour.epoch + 1)
    some_steps(run, rng)
    return f"{'one node' if len(mounts) == 1 else 'all nodes'} {moment}"


@fault("nfs", codes=FAILS, weight=3)
def replaced_by_another_client(run: Any, rng: Random) -> str:
    """Files of the token store are copied, and the copies take their names, while ranks train."""
    moment = some_moment(run, rng)
    if not (files := token_files(run)):
        return NOBODY
    for path in rng.sample(files, rng.randint(1, len(files))):
        fresh = path.with_name(".copy")
        shutil.copyfile(path, fresh)
        os.replace(fresh, path)
    some_steps(run, rng)
    return moment


@fault("nfs", codes=(-9, CRASHED), ends=True, weight=3)
def node_lost(run: Any, rng: Random) -> str:
    """Ranks die and with them what their node has not yet sent to the server."""
    moment = some_moment(run, rng)
    with on_some_nodes(run, rng, loses=True) as where:
        for pid in run.ranks():
            send(pid, signal.SIGKILL)
        wait_for(lambda: not run.ranks(), "the ranks' end")
    return f"{where} {moment}"


@fault("nfs", weight=3)
def moved_to_other_nodes(run: Any, rng: Random) -> str:
    """Stopped, and started at once on nodes that remember what was there before."""
    moment = some_moment(run, rng)
    run.rest()
    return moment
