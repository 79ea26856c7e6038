"""``why``: what became of a run, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.rundir.layout import label
from minimind.system.terminal import print_json, visible

if TYPE_CHECKING:
    from launcher.inspect.explain import Explanation


def why(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Say why a run is pending or held, why its attempts ended, and what to do."""
    from launcher.inspect.explain import explain
    from launcher.inspect.runs import find_run

    found = explain(find_run(run, runs_dir))
    if as_json:
        print_json(found.to_dict())
        return 0
    print(visible("\n".join(_lines(run, found))))
    return 0


def _lines(run: str, found: Explanation) -> Iterator[str]:
    yield f"{label(run, found.varied)}: {found.state}" + (
        f" — {found.summary}" if found.summary else ""
    )
    for line in found.attempts:
        yield f"  {line}"
    if found.traceback:
        yield "The first error:"
        yield found.traceback.rstrip()
    for line in found.advice:
        yield f"→ {line}"
