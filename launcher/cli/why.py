"""``why``: what became of a run, and what to do."""

from __future__ import annotations

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.system.terminal import print_json


def why(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Say why a run is pending or held, why its attempts ended, and what to do."""
    from launcher.inspect.explain import explain
    from launcher.inspect.runs import find_run

    found = explain(find_run(run, runs_dir))
    if as_json:
        print_json(found.to_dict())
        return 0
    print(f"{run}: {found.state}" + (f" — {found.summary}" if found.summary else ""))
    for line in found.attempts:
        print(f"  {line}")
    if found.traceback:
        print("The first error:")
        print(found.traceback.rstrip())
    for line in found.advice:
        print(f"→ {line}")
    return 0
