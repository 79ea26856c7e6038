"""What ranks see of each other while they wait: whether the others get on, and who has left.

Each rank has a sign in the store where the ranks met: a count that grows as it gets on, and what it
is doing. A rank that waits looks at the others' signs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from minimind.errors import EXIT_CRASHED, LostRankError, MiniMindError
from minimind.rundir.events import BEAT_SECONDS
from minimind.system.awake import AwakeClock
from minimind.system.signals import StopRequested

SILENCE_SECONDS = 120.0
"""How long ranks that prepare wait for one that shows no progress."""

LOOK_SECONDS = BEAT_SECONDS

LEAVE_SECONDS = 2.0
"""How long a rank that ends waits for a store that does not answer."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sign:
    """What a rank lets the others see."""

    host: str
    beats: int = 0
    doing: str = "preparing"
    left: str = ""
    """Why it has left before the end."""
    code: int = EXIT_CRASHED
    """What it left with."""
    stop: str = ""
    """The signal that it left for."""


class Pulse:
    """A rank's own sign, and what it last saw of the others'.

    The sign is written, and the others' are read, by a thread every ``interval`` seconds. So to
    beat costs nothing, and a store that hangs holds nobody up.

    Args:
        store: torch's; nobody else may use this object.
        address: where the store listens.
    """

    def __init__(self, store: Any, address: tuple[str, int], rank: int, world_size: int) -> None:
        self.patience = SILENCE_SECONDS
        """How long a rank that shows no progress is waited for, in seconds."""
        self.interval = LOOK_SECONDS
        self.seen: dict[int, Sign] = {}
        """The others' signs."""
        self.looks = 0
        """How often they have been read."""
        self._store = store
        self._address = address
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._host = socket.gethostname()
        self._beats = 0
        self._doing = "preparing"
        self._departure: dict[str, Any] = {}
        self._busy = self._waits = 0
        self._posted: Sign | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._post()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """This rank gets on."""
        self._beats += 1

    @contextlib.contextmanager
    def doing(self, what: str, *, quietly: bool = False) -> Iterator[None]:
        """This rank does ``what`` inside: "reading the text".

        Args:
            quietly: it may take long, and shows no progress of its own; as long as this process
                runs at all it counts as getting on.
        """
        before, self._doing = self._doing, what
        self._busy += quietly
        self.beat()
        try:
            yield
        finally:
            self._busy -= quietly
            self._doing = before
            self.beat()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """This rank waits for others, whose signs are read meanwhile."""
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            self.beat()

    def leave(self, reason: BaseException) -> None:
        """Let the others know at once why this rank does not come to the next exchange."""
        if isinstance(reason, LostRankError):
            # The others hear of that one themselves.
            self.end()
            return
        expected = isinstance(reason, MiniMindError)
        text = (str(reason).splitlines() or [""])[0]
        self._departure = {
            "left": text if expected else f"{type(reason).__name__}: {text}",
            "code": reason.exit_code if isinstance(reason, MiniMindError) else EXIT_CRASHED,
            "stop": str(reason) if isinstance(reason, StopRequested) else "",
        }
        # In another thread: a store that hangs must not keep this process.
        last = threading.Thread(target=self._try, args=(self._post,), daemon=True)
        last.start()
        last.join(LEAVE_SECONDS)
        self.end()

    def end(self) -> None:
        """Write and read nothing any more."""
        self._over.set()
        self._thread.join(LEAVE_SECONDS)

    def look(self) -> None:
        """Read the others' signs now, unless the store hangs."""
        self._try(self._read)

    def _run(self) -> None:
        while not self._over.wait(self.interval):
            if self._busy or self._waits:
                self.beat()
            # Asking whether the store is there costs a connection: a rank that trains has no news.
            if self._sign() != self._posted:
                self._try(self._post)
            if self._waits:
                self._try(self._read)

    def _try(self, work: Callable[[], None]) -> None:
        if not self._lock.acquire(timeout=LEAVE_SECONDS):
            return
        try:
            if self._is_there():
                work()
        except (OSError, RuntimeError) as error:
            # It is gone with rank 0. Whoever waits hears of it, or misses its sign.
            log.debug("the ranks' store: %s", error)
            self._over.set()
        finally:
            self._lock.release()

    def _is_there(self) -> bool:
        """Whether the store still listens: torch prints its stack when it does not."""
        with socket.create_connection(self._address, timeout=self.interval):
            return not self._over.is_set()

    def _sign(self) -> Sign:
        return Sign(self._host, self._beats, self._doing, **self._departure)

    def _post(self) -> None:
        sign = self._sign()
        self._store.set(str(self._rank), json.dumps(asdict(sign)))
        self._posted = sign

    def _read(self) -> None:
        found = self._store.multi_get([str(rank) for rank in self._others])
        self.seen = {
            rank: Sign(**json.loads(text)) for rank, text in zip(self._others, found, strict=True)
        }
        self.looks += 1


class Watch:
    """One wait for the others: who shows no progress in it.

    The time in which this rank itself could not run does not count.
    """

    def __init__(self, pulse: Pulse, clock: AwakeClock | None = None) -> None:
        self._pulse = pulse
        self._clock = clock or AwakeClock(longest_gap=2 * pulse.interval)
        self._looks = (pulse.looks, 0.0)
        self._signs = {rank: (sign, 0.0) for rank, sign in pulse.seen.items()}

    def check(self) -> None:
        """See that every other rank gets on, or has until now.

        Raises:
            LostRankError, StopRequested: one does not, or has left.
        """
        now = self._clock.read()
        pulse = self._pulse
        raise_of_leavers(pulse.seen)
        if pulse.looks != self._looks[0]:
            self._looks = (pulse.looks, now)
        for rank, sign in pulse.seen.items():
            before = self._signs.get(rank)
            if before is None or sign != before[0]:
                self._signs[rank] = (sign, now)
        if now - self._looks[1] > pulse.patience:
            raise LostRankError(
                f"rank 0, where the ranks meet, has not answered for {pulse.patience:.0f} s; "
                "look at its log and its host, then start again"
            )
        for rank, (sign, since) in sorted(self._signs.items()):
            if now - since > pulse.patience:
                raise LostRankError(
                    f"rank {rank} on {sign.host} has shown no progress for {pulse.patience:.0f} s "
                    f"while {sign.doing}; look at its log and its host, then start again"
                )


def raise_of_leavers(signs: dict[int, Sign]) -> None:
    """Raise why another rank has left, if one has."""
    for rank, sign in sorted(signs.items()):
        if sign.stop:
            raise StopRequested(sign.stop)
        if sign.left:
            error = LostRankError(f"rank {rank} on {sign.host} has ended: {sign.left}")
            error.exit_code = sign.code
            raise error
