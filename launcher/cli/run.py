"""``run``: the same spec as ``submit`` has, on this machine and in the foreground."""

from __future__ import annotations

import sys
from typing import Any

from launcher.cli.options import submission_options
from launcher.cli.submit import check_name_is_free
from minimind.errors import ConfigError
from minimind.system.terminal import json_text, show


@submission_options
def run(train_flags: list[str] | None, **given: Any) -> int:
    """Run the same spec here, in the foreground: one rank a GPU, or [bold]--procs N[/bold]."""
    train = train_flags or []
    if given["procs"] is not None and given["gpus"] is not None:
        raise ConfigError("--procs and --gpus exclude each other")
    if given["procs"] is not None:
        # First, so that a --device of the user's own comes later and wins.
        train, given["gpus"] = ["--device", "cpu", *train], given["procs"]
    elif given["gpus"] is None:
        from launcher.spec.profile import load_profile
        from launcher.submit.resolve import site_devices
        from launcher.supervise.host import count_devices

        devices = site_devices(load_profile(given["profile"]), "local")
        given["gpus"] = max(1, count_devices(devices))
    from launcher.submit.local import run_here
    from launcher.submit.resolve import read_secrets, resolve
    from launcher.submit.submission import prepare

    spec = resolve({**given, "cluster": "local"}, train)
    secrets = read_secrets(spec)
    check_name_is_free(spec, given["resume"])
    code = run_here(prepare(spec, secrets), spec, quiet=given["as_json"])
    if given["as_json"]:
        # The exit status tells what became of the run, even if nobody reads this.
        found = {"run": spec.name, "exit_code": code, "run_dir": spec.run_dir}
        show(sys.stdout, json_text(found) + "\n")
    return code
