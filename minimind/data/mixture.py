"""Several sources in one run, each with its share of the rows.

Each source is tokenised and packed by itself, so that new weights cost no new tokens. An
epoch has as many rows as all sources together, whatever the weights: these say how many of
them come from which source. A source that owes more rows than it has begins again within
the epoch; one that owes fewer goes on in the next epoch with the rows it has not shown yet.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minimind.data.inputs import find_files
from minimind.data.packing import RowPlan, plan_rows
from minimind.data.sampler import SourceRows
from minimind.data.token_store import TokenStore
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenizer import OWN_TOKENS, SpecialTokens
from minimind.errors import DataError, MiniMindError
from minimind.rundir.data_path import parse_sources

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIX_VERSION = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MixedPlan:
    """The rows of several sources under one numbering; otherwise as :class:`RowPlan`.

    The rows of ``parts[i]`` follow those of ``parts[i - 1]``. Pickling carries paths.

    Attributes:
        names: each source's path or glob, as given.
        rows_per_epoch: how many rows each source gives to an epoch.
    """

    names: tuple[str, ...]
    parts: tuple[RowPlan, ...]
    rows_per_epoch: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts)

    @property
    def max_seq_len(self) -> int:
        return self.parts[0].max_seq_len

    @property
    def store(self) -> TokenStore:
        """The first source's; all have the same vocabulary and special tokens."""
        return self.parts[0].store

    @property
    def mix(self) -> tuple[SourceRows, ...]:
        """What the sampler needs to know."""
        sizes = (part.n_rows for part in self.parts)
        return tuple(map(SourceRows, sizes, self.rows_per_epoch))

    @cached_property
    def targets_per_row(self) -> NDArray[np.int32]:
        return np.concatenate([part.targets_per_row for part in self.parts])

    @cached_property
    def tokens_per_row(self) -> NDArray[np.int32]:
        return np.concatenate([part.tokens_per_row for part in self.parts])

    @property
    def fill(self) -> float:
        """Share of an epoch's positions that hold a real token."""
        filled = sum(p.fill * k for p, k in zip(self.parts, self.rows_per_epoch, strict=True))
        return filled / self.n_rows

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sources' rows and of their shares."""
        prints = [part.fingerprint for part in self.parts]
        parts = json.dumps([MIX_VERSION, prints, self.rows_per_epoch])
        return hashlib.sha256(parts.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedPlan, (self.names, self.parts, self.rows_per_epoch)

    def locate(self, row_id: int) -> tuple[int, int]:
        """Return which source a row is of, and its number in it."""
        source = int(np.searchsorted(self._borders, row_id, side="right")) - 1
        return source, row_id - int(self._borders[source])

    @cached_property
    def _borders(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(part.n_rows for part in self.parts)])[:-1]

    def build(self, row_ids: NDArray[Any], batch_size: int) -> dict[str, NDArray[Any]]:
        """Build rows as :meth:`RowPlan.build` does."""
        row_ids = np.asarray(row_ids, np.int64)
        sources = np.searchsorted(self._borders, row_ids, side="right") - 1
        batch = self.parts[0].build(row_ids[:0], batch_size)
        for source in np.unique(sources):
            where = np.flatnonzero(sources == source)
            own = self.parts[source].build(row_ids[where] - self._borders[source], len(where))
            for name, array in own.items():
                batch[name][where] = array
        return batch


Plan = RowPlan | MixedPlan


@dataclass(frozen=True)
class MicroBatches:
    """A plan's rows, one micro-batch for each array of row ids that is asked for.

    Args:
        batch_size: fill short batches up to this many rows; None: leave them short.
    """

    plan: Plan
    batch_size: int | None

    def __getitem__(self, row_ids: NDArray[np.int64]) -> dict[str, NDArray[Any]] | MiniMindError:
        """Return what :meth:`RowPlan.build` does, and ``row_ids`` themselves; or its error.

        The error is for :func:`make_loader` to raise: torch would turn one that is raised in a
        worker into another, of many lines.
        """
        try:
            arrays = self.plan.build(row_ids, self.batch_size or max(1, len(row_ids)))
        except MiniMindError as error:
            return error
        arrays["row_ids"] = np.array(row_ids, np.int64)
        return arrays


def open_plan(
    paths: Sequence[str],
    tokenizer_path: str = "",
    *,
    max_seq_len: int,
    pack: Literal["bestfit", "none"] = "bestfit",
    text_field: str = "text",
    render_chat: bool = False,
    cache_dir: str = "",
    max_bad_rows: int = -1,
    progress: bool = False,
    report: Callable[[str], None] | None = None,
    special: SpecialTokens = OWN_TOKENS,
) -> Plan:
    """Return the rows of ``--data_path``, tokenising what is not yet.

    Args:
        paths: files or globs, all with a weight (``zh.jsonl:0.7``) or none.
        max_bad_rows: of each source; all else as in :func:`open_corpus`.

    Raises:
        ConfigError, DataError: the weights or the data cannot be used.
    """

    def rows(group: Sequence[str]) -> RowPlan:
        store = open_corpus(
            group,
            tokenizer_path,
            text_field=text_field,
            render_chat=render_chat,
            cache_dir=cache_dir,
            max_bad_rows=max_bad_rows,
            progress=progress,
            report=report,
            special=special,
        )
        return plan_rows(store, max_seq_len, pack)

    sources = parse_sources(paths)
    if sources is None:
        return rows(paths)
    _refuse_shared_files([source.path for source in sources])
    parts = tuple(rows([source.path]) for source in sources)
    shares = share_rows([p.n_rows for p in parts], [s.weight for s in sources])
    for source, share in zip(sources, shares, strict=True):
        if not share:
            raise DataError(
                f"{source.path}: its weight gives it no row of an epoch; raise it, or leave it out"
            )
    plan = MixedPlan(tuple(s.path for s in sources), parts, tuple(shares))
    for name, part, share in zip(plan.names, parts, shares, strict=True):
        text = "%s: %.2f%% of the rows, %.2f passes over it an epoch"
        log.info(text, name, 100 * share / plan.n_rows, share / part.n_rows)
    return plan


def share_rows(n_rows: Sequence[int], weights: Sequence[Fraction]) -> list[int]:
    """Divide as many rows as there are among the sources by weight (largest remainders)."""
    total, weight = sum(n_rows), sum(weights)
    exact = [total * w / weight for w in weights]
    shares = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_rest[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _refuse_shared_files(sources: Sequence[str]) -> None:
    owner: dict[Path, str] = {}
    for source in sources:
        for file in find_files([source]):
            other = owner.setdefault(file.resolve(), source)
            if other != source:
                raise DataError(f"{file}: is in both {other} and {source}; give it one weight")
